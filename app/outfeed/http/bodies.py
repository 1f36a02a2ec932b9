"""Request bodies: decompressed up to a limit, with bounded JSON depth."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, request
from flask.json.provider import DefaultJSONProvider
from pydantic import BaseModel
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from outfeed.errors import InvalidRequest
from outfeed.feed.subscription import validated
from outfeed.nesting import MAX_DEPTH, is_deep

MAX_MEMBERS = 16  # each member copies the rest of the body
ENVELOPE_DEPTH = 2  # a list of events, and each event, around `data`
GZIP = ("gzip", "x-gzip")
Model = TypeVar("Model", bound=BaseModel)
_WBITS = 31  # zlib: with the header of gzip


class _Json(DefaultJSONProvider):
    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return parsed(lambda: super(_Json, self).loads(s, **kwargs), "the body")


def parsed(parse: Callable[[], Any], name: str) -> Any:
    """Return the JSON that *parse* reads.

    Raises InvalidRequest if the value is nested too deeply, and every error of *parse*.
    """
    try:
        value = parse()
    except RecursionError:
        value = None
    else:
        if not is_deep(value, MAX_DEPTH + ENVELOPE_DEPTH):
            return value
    raise InvalidRequest("invalid_json", f"{name} is nested too deeply; data may have {MAX_DEPTH} levels")


def init_app(app: Flask) -> None:
    """Reject JSON that is nested too deeply, on each route that reads JSON."""
    app.json = _Json(app)


def read_json() -> Any:
    """Return the request's body as JSON, decompressed.

    Raises 400, 413 and 415 as HTTPException.
    """
    if not request.is_json or "Content-Encoding" not in request.headers:
        return request.get_json()
    try:
        return current_app.json.loads(read())
    except ValueError:
        raise BadRequest("the body is not JSON") from None


def read_object(model: type[Model]) -> Model:
    """Return the JSON object in the body as *model*.

    Raises InvalidRequest, and 400, 413 and 415 as HTTPException.
    """
    fields = read_json()
    if not isinstance(fields, dict):
        raise BadRequest("the body must be a JSON object")
    return validated(model, fields)


def read() -> bytes:
    """Return the request's body, decompressed.

    Raises 400, 413 and 415 as HTTPException.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return request.get_data()
    if encoding not in GZIP:
        raise UnsupportedMediaType(f"the Content-Encoding must be gzip or none, got {encoding!r:.80}")
    try:
        return _decompress(request.get_data(), current_app.config["MAX_CONTENT_LENGTH"])
    except zlib.error as error:
        raise BadRequest(f"the body is not gzip: {error}") from None


def _decompress(packed: bytes, max_bytes: int) -> bytes:
    """Return the joined members of *packed*.

    Decompresses at most one byte more than *max_bytes*.
    """
    found = bytearray()
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(wbits=_WBITS)
        found += member.decompress(packed, max_bytes + 1 - len(found))
        if len(found) > max_bytes:
            raise RequestEntityTooLarge(f"the body exceeds {max_bytes:,} bytes after decompression")
        if not member.eof:
            raise BadRequest("the gzip body ends early")
        packed = member.unused_data
        if not packed:
            return bytes(found)
    raise BadRequest(f"the gzip body has more than {MAX_MEMBERS} members")
