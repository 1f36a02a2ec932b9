"""Operations of the HTTP API, as functions for the tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Response, current_app
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException, Unauthorized

from outfeed.errors import OutfeedError
from outfeed.feed.subscription import validated
from outfeed.http.api.operation import OPERATIONS, Operation


class ApiAnswer(NamedTuple):
    """The status and the JSON of an operation. An error has a `detail`."""

    status: int
    body: Any

    @property
    def is_error(self) -> bool:
        return self.status >= 400


def of(endpoint: str) -> Operation:
    """Return the operation of that endpoint."""
    return OPERATIONS[current_app.view_functions[endpoint]]


def query_of(endpoint: str) -> type[BaseModel]:
    """Return the shape of the operation's query."""
    found = of(endpoint).query
    assert found is not None
    return found


def ask(endpoint: str, arguments: dict[str, Any]) -> ApiAnswer:
    """Call the operation with *arguments* as its query.

    It answers as for an HTTP request of the same principal, and raises the same errors.
    """
    return call(endpoint, query=validated(query_of(endpoint), arguments))


def call(endpoint: str, **arguments: Any) -> ApiAnswer:
    """Call the operation's view. Raises its errors."""
    return _answer(of(endpoint).view(**arguments))


def caught(run: Callable[[], ApiAnswer]) -> ApiAnswer:
    """Return the answer of *run*, or the API's answer to its error.

    Raises Unauthorized, because only the status of the whole request says that a permission was revoked.
    """
    try:
        return run()
    except Unauthorized:
        raise
    except (HTTPException, OutfeedError) as error:
        return _answer(current_app.make_response(current_app.handle_user_exception(error)))


def _answer(response: Response) -> ApiAnswer:
    return ApiAnswer(response.status_code, json.loads(response.get_data()))
