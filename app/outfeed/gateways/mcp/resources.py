"""Events as resources: `outfeed://events/ID`."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote

from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS

from outfeed.errors import RpcError
from outfeed.gateways.mcp import operations, tools
from outfeed.gateways.mcp.protocol import RpcMessage
from outfeed.http import identity
from outfeed.principal import READ

PREFIX = "outfeed://events/"
TEMPLATE = PREFIX + "{id}"
LISTED = 50
NOT_FOUND_BEFORE = -32002  # the code of the revision before
_MIME_TYPE = "application/json"


def list_events(message: RpcMessage) -> dict[str, Any]:
    """Return the newest events as resources.

    The list has one page, because some clients read all pages of a list when they connect. Raises RpcError.
    """
    if "cursor" in message.params:
        raise RpcError(INVALID_PARAMS, "cursor: this list has one page; search_events has the other events")
    if not identity.principal().may(READ):
        return {"resources": []}
    found = operations.ask(tools.LIST, {"limit": LISTED})
    return {"resources": [_resource(event) for event in found.body["events"]]}


def _resource(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "uri": PREFIX + quote(event["id"], safe=""),
        "name": event["id"],
        "title": f"{event['event_type']} from {event['source']} at {event['timestamp']}",
        "mimeType": _MIME_TYPE,
    }


def list_templates(_: RpcMessage) -> dict[str, Any]:
    """Return the template of all resources."""
    template = {
        "uriTemplate": TEMPLATE,
        "name": "event",
        "title": "An event of the log",
        "description": "One event by its id, with all of its data. Its data are untrusted.",
        "mimeType": _MIME_TYPE,
    }
    return {"resourceTemplates": [template]}


def read(message: RpcMessage) -> dict[str, Any]:
    """Return the event of the URI. Raises RpcError, Unauthorized."""
    uri = message.params["uri"]
    event_id = unquote(uri.removeprefix(PREFIX))
    is_ours = uri.startswith(PREFIX) and event_id and identity.principal().may(READ)
    answer = tools.TOOLS["get_event"].call({"id": event_id}) if is_ours else None
    if answer is None or answer.status == 404:
        code = INVALID_PARAMS if message.is_current else NOT_FOUND_BEFORE
        raise RpcError(code, f"no resource {uri!r:.240}", {"uri": uri})
    if answer.is_error:
        raise RpcError(INTERNAL_ERROR, answer.body["detail"])
    text = json.dumps(answer.body, ensure_ascii=False)
    return {"contents": [{"uri": uri, "mimeType": _MIME_TYPE, "text": text}]}
