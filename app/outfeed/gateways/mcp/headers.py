"""The headers of MCP over HTTP, which repeat parts of the message. No I/O."""

from __future__ import annotations

import base64
import binascii
from typing import Any

CURRENT, BEFORE = "2026-07-28", "2025-11-25"  # revisions of the protocol
# Revisions with a handshake. A client of an older one closes the connection if the answer names a newer one.
HANDSHAKES = (BEFORE, "2025-06-18")
SUPPORTED = (CURRENT, *HANDSHAKES)
META = "io.modelcontextprotocol/"
VERSION, METHOD, NAME = "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"
# The parameter that the header Mcp-Name repeats.
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def version_in(params: dict[str, Any]) -> Any:
    """Return the revision that the `_meta` of a message names, or None."""
    meta = params.get("_meta")
    return meta.get(f"{META}protocolVersion") if isinstance(meta, dict) else None


def repeated(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the headers that a request repeats, not encoded."""
    found = {METHOD: method}
    return found | ({NAME: params.get(_NAMED_BY[method])} if method in _NAMED_BY else {})


def encoded(value: str) -> str:
    """Return *value* as the value of a header: plain, or as base64."""
    is_plain = value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?")
    return value if is_plain else f"=?base64?{base64.b64encode(value.encode('utf-8', 'replace')).decode()}?="


def decoded(header: str) -> str | None:
    """Return the value of a header, or None if it is not base64."""
    if not (header.startswith("=?base64?") and header.endswith("?=")):
        return header
    try:
        return base64.b64decode(header[9:-2], validate=True).decode()
    except (binascii.Error, ValueError):
        return None
