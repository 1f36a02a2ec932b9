"""`POST /mcp`: one JSON-RPC message a request (streamable HTTP)."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, request
from mcp_types.jsonrpc import HEADER_MISMATCH, INVALID_REQUEST, PARSE_ERROR, UNSUPPORTED_PROTOCOL_VERSION
from werkzeug.exceptions import UnsupportedMediaType

from outfeed.config.addresses import is_local_url
from outfeed.errors import RpcError
from outfeed.gateways.mcp import methods, protocol
from outfeed.gateways.mcp.headers import BEFORE, HANDSHAKES, VERSION
from outfeed.gateways.mcp.protocol import STATUSES
from outfeed.http import bodies, origins
from outfeed.http.api.operation import json_answer
from outfeed.http.problems import problem
from outfeed.http.services import serving
from outfeed.nesting import MAX_DEPTH, is_deep
from outfeed.text import escaped

# Errors that have a status in both revisions.
OF_TRANSPORT = (PARSE_ERROR, INVALID_REQUEST, HEADER_MISMATCH, UNSUPPORTED_PROTOCOL_VERSION)
ENVELOPE_DEPTH = 3  # the message, its params and their arguments, around `data`


def respond() -> Response:
    """Answer the request's message.

    Raises 400, 413 and 415 as HTTPException, and Unauthorized if the token was revoked during a wait.
    """
    if mismatch := origins.why_foreign_origin() or _why_unknown_host():
        serving().metrics.note_refusal("origin", path=request.path, address=request.remote_addr, detail=mismatch)
        return problem(403, f"a page of another site may not use MCP: {mismatch}")
    if not request.is_json:
        raise UnsupportedMediaType("the body must be application/json")
    value = None
    try:
        value = _parsed(bodies.read())
        message = protocol.read(value, request.headers)
        if message is None or message.is_notification:
            return Response(status=202)
        result = methods.answer(message)
    except RpcError as error:
        return _refusal(error, protocol.id_of(value))
    if isinstance(result, Response):
        return result
    return json_answer({"jsonrpc": "2.0", "id": message.id, "result": result})


def _why_unknown_host() -> str | None:
    """Return why the page may have a name of its own for this server.

    The page of another site can be at a host that leads here, and then its Origin equals the Host of the request.
    """
    if "Origin" not in request.headers:
        return None
    hosts = origins.own_hosts()
    host = hosts.pop("Host")
    if is_local_url(f"http://{host}") or host in hosts.values():
        return None
    return f"no setting names the host {escaped(host)!r:.200}; set OUTFEED_PUBLIC_URL"


def _parsed(body: bytes) -> Any:
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, f"the body is not JSON: {error}") from None
    if is_deep(value, MAX_DEPTH + ENVELOPE_DEPTH):
        raise RpcError(INVALID_REQUEST, f"the message is nested too deeply; data may have {MAX_DEPTH} levels")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _refusal(error: RpcError, message_id: str | int | None) -> Response:
    """Return the error as the revision of the request has it.

    A client of a revision with a handshake reads the error of a valid message only from an answer with the status 200.
    """
    has_handshake = request.headers.get(VERSION, BEFORE) in HANDSHAKES
    is_strict = message_id is None or error.code in OF_TRANSPORT or not has_handshake
    told = {"code": error.code, "message": str(error)} | ({} if error.data is None else {"data": error.data})
    status = STATUSES.get(error.code, 200) if is_strict else 200
    return json_answer({"jsonrpc": "2.0", "id": message_id, "error": told}, status)
