"""Messages of JSON-RPC, and the checks of MCP on them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mcp_types import methods
from mcp_types.jsonrpc import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import Headers

from outfeed.errors import RpcError
from outfeed.gateways.mcp import headers as http_headers
from outfeed.gateways.mcp.headers import BEFORE, CURRENT, SUPPORTED

# Revisions with a handshake have no statuses of errors: their clients read a body only from 200.
STATUSES = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_PROTOCOL_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}

Surface = Mapping[tuple[str, str], type[BaseModel]]


class RpcMessage(NamedTuple):
    """A request or a notification. A notification has no id."""

    id: str | int | None
    method: str
    params: dict[str, Any]
    version: str

    @property
    def is_current(self) -> bool:
        """Whether the message is of the current revision."""
        return self.version == CURRENT

    @property
    def is_notification(self) -> bool:
        """Whether the message expects no answer."""
        return self.id is None


def id_of(value: Any) -> str | int | None:
    """Return the id of a message that may be invalid, or None."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def read(value: Any, headers: Headers) -> RpcMessage | None:
    """Return the message in parsed JSON, or None for a response.

    *headers* are those of the HTTP request. Raises RpcError.
    """
    if isinstance(value, list):
        raise RpcError(INVALID_REQUEST, "batches are not part of the protocol since 2025-06-18; send one message")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'the body must be a JSON-RPC message, an object with "jsonrpc": "2.0"')
    if "method" not in value and ("result" in value or "error" in value):
        return None
    message = _message(value, headers)
    if message.is_current and not message.is_notification:
        _check_headers(message, headers)
    return message


def _message(value: dict[str, Any], headers: Headers) -> RpcMessage:
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method: must be text")
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params: must be an object")
    if "id" in value and id_of(value) is None:
        raise RpcError(INVALID_REQUEST, "id: must be text or an integer")
    return RpcMessage(id_of(value), method, params, _version(params, headers))


def _version(params: dict[str, Any], headers: Headers) -> str:
    """Return the revision that the message is of.

    A message without any is of the revision before.
    """
    named, header = http_headers.version_in(params), headers.get(http_headers.VERSION)
    if named is not None and named != header:
        raise RpcError(
            HEADER_MISMATCH,
            f"{http_headers.VERSION}: the header is {_shown(header)}, and the message has {_shown(named)}",
        )
    version = header or BEFORE
    if version not in SUPPORTED:
        data = {"supported": [*SUPPORTED], "requested": version}
        raise RpcError(
            UNSUPPORTED_PROTOCOL_VERSION,
            f"the protocol revision {_shown(version)} is not supported; this server has {', '.join(SUPPORTED)}",
            data,
        )
    return version


def _check_headers(message: RpcMessage, headers: Headers) -> None:
    """Raise RpcError unless the headers repeat the method and the name."""
    for header, value in http_headers.repeated(message.method, message.params).items():
        if header not in headers or http_headers.decoded(headers[header]) != value:
            raise RpcError(
                HEADER_MISMATCH,
                f"{header}: the header is {_shown(headers.get(header))}, and the message has {_shown(value)}",
            )


def _shown(value: object) -> str:
    return "missing" if value is None else f"{value!r:.80}"


def check_shape(message: RpcMessage, surface: Surface) -> None:
    """Raise RpcError unless *surface* has the method, in that shape."""
    if (message.method, message.version) not in surface:
        raise RpcError(METHOD_NOT_FOUND, f"the method {message.method!r:.80} does not exist in {message.version}")
    try:
        methods.validate_client_request(message.method, message.version, message.params, surface=surface)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        raise RpcError(INVALID_PARAMS, "; ".join(found[:3])) from None
