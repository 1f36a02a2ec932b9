"""Concurrent producers over HTTP, each on its own connection."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from scripts.benchmarks import event
from scripts.benchmarks.errors import LoadError

MCP_REVISION = "2026-07-28"


class Call(NamedTuple):
    """One POST: its path, body and headers."""

    path: str
    body: bytes
    headers: dict[str, str]


def api_call(token: str, batch: int) -> Call:
    """Return the call of the API that writes *batch* events."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    return Call("/api/events", make_body(batch), headers)


def mcp_call(token: str) -> Call:
    """Return the call of MCP's tool `log_event`, with the same event."""
    arguments = json.loads(make_body(1))
    meta = {"protocolVersion": MCP_REVISION, "clientCapabilities": {}}
    params = {
        "name": "log_event",
        "arguments": arguments,
        "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {"MCP-Protocol-Version": MCP_REVISION, "Mcp-Method": "tools/call", "Mcp-Name": "log_event"}
    return Call("/mcp", json.dumps(message).encode(), api_call(token, 1).headers | headers)


def produce(address: str, call: Call, producers: int, posts: int) -> float:
    """Have each producer make *call* *posts* times.

    Returns the seconds. Raises LoadError.
    """
    ready = threading.Barrier(producers + 1)
    with ThreadPoolExecutor(producers) as pool:
        running = [pool.submit(post_all, address, call, posts, ready) for _ in range(producers)]
        ready.wait(60)
        began = time.monotonic()
        for each in running:
            each.result()
        return time.monotonic() - began


def make_body(batch: int) -> bytes:
    """Return *batch* events without id and timestamp: the server adds them."""
    row = {name: value for name, value in event.make(1, 0).items() if name not in ("id", "timestamp")}
    return json.dumps([row] * batch if batch > 1 else row).encode()


def post_all(address: str, call: Call, posts: int, ready: threading.Barrier) -> None:
    """Post *posts* times. Repeat a post that a busy server rejects (503)."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.connect()
    ready.wait(60)
    while posts:
        connection.request("POST", call.path, call.body, call.headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status == 503:
            time.sleep(float(response.headers.get("Retry-After", 1)))
        elif response.status not in (200, 201) or b'"isError":true' in answer:
            raise LoadError(f"POST {call.path} answered {response.status}: {answer[:200]!r}")
        else:
            posts -= 1
    connection.close()
