"""Hostile input at the entrances that need a real server.

Frames of a WebSocket, slow clients, and answers that are not read.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from pathlib import Path

import pytest

from outfeed.config import Settings
from outfeed.feed.subscription import SubscribeMessage
from outfeed.http.app import create_app
from tests import entrances
from tests.server import Server
from tests.waits import shortest

CONTROL = "a\x1b[2J\x07\x7f\x9b31m\u202e\r\n"
# The names of the actions stand in the code that obeys them.
ACTIONS = re.findall(r'case "(\w+)":', (entrances.PACKAGE / "feed" / "dialogue.py").read_text())
FIELDS = sorted({*SubscribeMessage.model_fields, "action", "seq", "unknown"})
HOSTILE = {
    "nesting": ["[" * depth + "]" * depth for depth in (65, 400, 1000, 1020, 1100)]
    + ['{"a":' * 1000 + "1" + "}" * 1000],
    "huge numbers": ["1" * 5000, "1e999", "-1", "9223372036854775808", "18446744073709551616", "NaN"],
    "control characters": [json.dumps(CONTROL), '"\\ud800"', '"\\u0000"'],
    "oversized texts": [json.dumps("x" * 60_000), json.dumps(["x"] * 5000)],
}
MAX_ERROR_CHARS = 3000


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_frame_of_a_websocket_is_answered_and_the_connection_goes_on(shared: Server, action: str, kind: str) -> None:
    for field in FIELDS:
        errors: list[str] = []
        with shared.connect() as client:
            for value in HOSTILE[kind]:
                fields = {"action": f'"{action}"', "channel": '"events"', field: value}
                given = ",".join(f'"{name}":{text}' for name, text in fields.items())
                client.socket.send(f"{{{given}}}")
            client.send(action="last one")
            while not errors or "'last one'" not in errors[-1]:
                answer = client.receive()
                errors += [answer["payload"]["message"]] if answer["type"] == "error" else []
        assert all(text.isprintable() and len(text) < MAX_ERROR_CHARS for text in errors), (field, errors)


# --- slow clients -----------------------------------------------------------------------------------------------------


def routes(server: Server) -> list[tuple[str, str]]:
    """Return method and path of each route."""
    app = create_app(Settings(database=server.database))
    found = {
        entrances.Place(method, rule.rule, "", "").request("")[:2]
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    app.extensions["outfeed"].database.close()
    return sorted(found)


def half_a_request(server: Server, method: str, path: str) -> bytes:
    """Return a request that costs a thread if the thread waits for it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: feed\r\nAuthorization: Bearer {server.token}\r\n".encode()
    if method == "GET":
        return (head + b"\r\n") * 100  # and no answer is read
    return head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


def test_clients_that_are_slow_on_any_route_hold_nobody_up(tmp_path: Path) -> None:
    with Server(tmp_path, max_connections=50) as server, contextlib.ExitStack() as open_sockets:
        tried = routes(server)
        assert len(tried) > 40
        for method, path in tried:
            client = open_sockets.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            with contextlib.suppress(OSError):  # closed already
                client.sendall(half_a_request(server, method, path))
        with server.http() as http:
            for path in ("/healthz", "/api/events"):
                assert shortest(lambda path=path: http.get(path).elapsed.total_seconds(), 1) < 1  # type: ignore[misc]
            posted = http.post("/api/events", json={"event_type": "a.b", "source": "s"})
            assert posted.status_code == 201
