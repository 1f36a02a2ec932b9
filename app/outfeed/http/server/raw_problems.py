"""Raw problems: bytes of responses to requests that don't reach the app."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from gunicorn.http import errors

from outfeed.http import error_codes
from outfeed.http.headers import HEADERS
from outfeed.http.server.assembly import MAX_REQUEST_LINE_BYTES

_NO_HEADERS: Mapping[str, str] = {}
_STATUS: dict[type[Exception], int] = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
    errors.UnsupportedTransferCoding: 501,
}


def raw_problem(status: int, detail: str, headers: Mapping[str, str] = _NO_HEADERS, **more: Any) -> bytes:
    """Return a whole response as bytes. *more* are extension members.

    The caller closes the connection afterwards.
    """
    phrase = HTTPStatus(status).phrase
    body = orjson.dumps(error_codes.body_of(status, detail, "", more))
    fields = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **HEADERS,
        **headers,
    }
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def problem_of(error: Exception) -> bytes:
    """Return the response to a request that gunicorn's parser rejects."""
    if isinstance(error, errors.LimitRequestLine):
        return raw_problem(414, f"the request line is longer than {MAX_REQUEST_LINE_BYTES:,} bytes")
    return raw_problem(_STATUS.get(type(error), 400), f"the request can't be read: {type(error).__name__}")
