"""PocketBase: records written over HTTP, followed by its realtime stream."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from scripts.benchmarks import client
from scripts.benchmarks.client import CONNECT_TIMEOUT_SECS, Target
from scripts.benchmarks.errors import LoadError, ServerError
from scripts.benchmarks.peers.peer import BIN, Peer
from scripts.benchmarks.servers import HOST

COLLECTION = "events"
RECORDS = f"/api/collections/{COLLECTION}/records"
OWNER, PASSWORD = "bench@example.com", "measured, not guessed"
TEXTS = ("event_type", "source", "task_id", "agent_id", "timestamp")


class Server(Peer):
    """PocketBase with one collection that anyone may read and write."""

    name = "PocketBase"
    stored = "rows, not synced"

    def command(self) -> list[str]:
        """Return the command line."""
        program, folder = str(BIN / "pocketbase"), ["--dir", str(self.folder / "data")]
        subprocess.run([program, "superuser", "upsert", OWNER, PASSWORD, *folder], check=True, capture_output=True)
        return [program, "serve", *folder, "--http", f"{HOST}:{self.port}"]

    def is_ready(self) -> bool:
        """Return whether the server answers."""
        try:
            call(self.port, "/api/health", method="GET")
        except OSError:
            return False
        return True

    def prepare(self) -> None:
        """Make the collection."""
        account = {"identity": OWNER, "password": PASSWORD}
        token = call(self.port, "/api/collections/_superusers/auth-with-password", account)["token"]
        fields = [{"name": name, "type": "text"} for name in TEXTS] + [{"name": "data", "type": "json"}]
        rules = {"listRule": "", "viewRule": "", "createRule": ""}
        order = {"name": COLLECTION, "type": "base", "fields": fields, **rules}
        call(self.port, "/api/collections", order, {"Authorization": token})

    def target(self) -> Target:
        """Return a subscription to all new records."""
        return Target(HOST, self.port, "/api/realtime", {}, COLLECTION, "peers.pocketbase")

    def sink(self) -> dict[str, Any]:
        """Return the writer's order."""
        return {"module": "peers.pocketbase", "port": self.port}


def call(port: int, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "POST") -> Any:
    """Return the JSON of an answer, None without one. Raises ServerError."""
    connection = http.client.HTTPConnection(HOST, port, timeout=CONNECT_TIMEOUT_SECS)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise ServerError(f"{path} answered {response.status}: {answer[:200]!r}")
    return json.loads(answer) if answer else None


@dataclass(slots=True)
class Client(client.Client):
    """A subscriber of the stream of server-sent events."""

    has_frames: ClassVar[bool] = False

    @classmethod
    def dial(cls, target: Target) -> Self:
        """Connect and request the stream."""
        sock = socket.create_connection((target.host, target.port), CONNECT_TIMEOUT_SECS)
        sock.sendall(f"GET {target.path} HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode())
        return cls(sock)

    def subscribe(self, target: Target) -> None:
        """Read the client's id, and subscribe by it."""
        while not (found := re.search(rb'"clientId":"(\w+)"', self.rest)):
            chunk = self.sock.recv(65_536)
            if not chunk:
                raise LoadError(f"PocketBase closed the stream after {self.rest[:200]!r}")
            self.rest += chunk
        self.rest = b""
        call(target.port, target.path, {"clientId": found[1].decode(), "subscriptions": [target.subscribe]})

    def await_verdict(self) -> None:
        """Do nothing: the subscription has been answered."""


class Sink:
    """Creates each event as a record, in a request of its own."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._connection = http.client.HTTPConnection(HOST, order["port"], timeout=CONNECT_TIMEOUT_SECS)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seconds: list[float] = []

    def put(self, row: dict[str, Any]) -> None:
        """Create a record with all fields but the id, which PocketBase makes."""
        began = time.perf_counter()
        body = json.dumps({name: row[name] for name in (*TEXTS, "data")}, separators=(",", ":"))
        self._connection.request("POST", RECORDS, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise LoadError(f"PocketBase answered {response.status}: {answer[:200]!r}")
        self.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
