"""Declarations of the API's operations, for validation and OpenAPI."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Response, request
from pydantic import BaseModel

from outfeed.errors import InvalidRequest
from outfeed.feed.subscription import validated

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
LISTS = {"types", "event_type"}  # parameters that take several values
# Of a text that a query searches for. A raw writer's names may be longer than the API accepts, and a request line must
# hold several of them: tests/http/server/test_request_line.py.
MAX_FILTER_CHARS = 1000
OPERATIONS: dict[Callable[..., Any], Operation] = {}

View = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Operation:
    """The shapes of one operation, and the view that takes a validated query.

    A shape is any type that pydantic takes. Bodies are by media type, answers by status and media type.
    """

    view: View
    query: type[BaseModel] | None
    body: Mapping[str, Any]
    answers: Mapping[int, Mapping[str, Any]]
    refusals: Mapping[int, str]
    errors: Mapping[str, Any] | None = None


def query_string() -> Mapping[str, str]:
    """Return the fields of the query string.

    A list that is given in several parameters is joined with commas. Raises InvalidRequest if any other parameter is
    repeated, because one of its values would be dropped.
    """
    found = {}
    for name, values in request.args.lists():
        if len(values) > 1 and name not in LISTS:
            raise InvalidRequest("invalid_field", f"{name:.80}: is given {len(values)} times, and takes one value")
        found[name] = ",".join(filter(None, values))
    return found


def operation(
    *,
    query: type[BaseModel] | None = None,
    fields: Callable[[], Mapping[str, str]] = query_string,
    body: Mapping[str, Any] | None = None,
    answers: Mapping[int, Any],
    refusals: Mapping[int, str] | None = None,
    errors: Mapping[str, Any] | None = None,
) -> Callable[[View], View]:
    """Describe the view for OpenAPI, and validate its query string.

    With *query*, the view gets the validated query string (or *fields*) as its argument `query`. An answer is a shape
    of JSON, or shapes by media type. *refusals* map each status to the condition that causes it, and come as problems,
    or as *errors*, which are shapes by media type.
    """

    def describe(view: View) -> View:
        @functools.wraps(view)
        def checked(**arguments: Any) -> Response:
            if query is not None:
                arguments["query"] = validated(query, fields())
            return view(**arguments)

        by_media_type = {
            status: shape if isinstance(shape, Mapping) else {JSON: shape} for status, shape in answers.items()
        }
        OPERATIONS[checked] = Operation(view, query, body or {}, by_media_type, refusals or {}, errors)
        return checked

    return describe


def json_answer(value: Any, status: int = 200) -> Response:
    """Return *value* as JSON.

    Lone surrogates become question marks.
    """
    try:
        body = orjson.dumps(value)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, or a value nested deeper than orjson writes
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, content_type=JSON)
