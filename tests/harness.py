"""What the tests drive: a real server process, and clients that are peers of ours, not mirrors."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import random
import re
import secrets
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from app.store import account, migrate, user
from app.store import database as db
from tests.forked import Forked

ROOT = Path(__file__).parents[1]
PATIENCE_SECS = 15.0
# Every client of a test has the same address.
NO_LIMITS = {
    "OUTFEED_MAX_CONNECTIONS_PER_IP": "0",
    "OUTFEED_CONNECTION_ATTEMPTS_PER_MINUTE": "0",
    "OUTFEED_REQUESTS_PER_MINUTE": "0",
}


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE_SECS) -> Any:
    """Return the first true answer of *condition*; fail with *what* was waited for after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.01)
    return answer


def shortest(attempt: Callable[[], float], enough: float) -> float:
    """Return the fewest seconds that *attempt* says it took, of three times; one under *enough* is the last.

    For what is promised within a time: a machine that is busy with others may hold up one attempt, not each.
    """
    took: list[float] = []
    while len(took) < 3 and min(took, default=enough) >= enough:
        took.append(attempt())
    return min(took)


@functools.cache
def upgraded_database() -> Path:
    """Return an upgraded database, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="outfeed-tests-"))
    atexit.register(shutil.rmtree, folder)
    migrate.upgrade(folder / "outfeed.db")
    return folder / "outfeed.db"


def make_database(path: Path) -> None:
    """Make an upgraded database with an epoch of its own. To upgrade one takes ten times as long."""
    shutil.copy(upgraded_database(), path)
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE meta SET value = lower(hex(randomblob(16))) WHERE key = 'epoch'")


@functools.cache
def own_ports() -> Iterator[int]:
    """Yield ports that neither the kernel gives out by itself nor another worker of the tests uses, in any order."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(11_008 + worker % 16, 32_000, 16))  # above those that browsers refuse
    random.Random().shuffle(ports)
    return itertools.cycle(ports)


def free_port() -> int:
    """Return a port on loopback that is free, and stays so while a server that has it is down."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", next(own_ports())))
            return int(probe.getsockname()[1])


def secrets_in(log: str) -> list[str]:
    """Return what looks like a token, password, cookie, ticket or code in a server's log, its sign-in link aside."""
    lines = [line for line in log.splitlines() if not line.startswith("Sign in with this link, once: ")]
    shapes = (
        r"outfeed_[\w-]{20,}|(?i:bearer|basic) +\S{6,}|[?&](?:code|ticket)=\S+|password=\S+|eyJ[\w-]{8,}|[\w-]{43}\b"
    )
    return [found for line in lines for found in re.findall(shapes, line)]


class Server:
    """`outfeed serve` on a database of its own. As a context manager it is started, and gone at the end.

    A server that dies early, and one that logged a traceback or a secret, fails the test.
    """

    command: tuple[str, ...] = ()  # if it takes another one than `outfeed`

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.database = folder / "outfeed.db"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output_path = folder / "serve.log"
        self.process: Forked | subprocess.Popen[bytes] | None = None
        self.base = 0  # the seq after which a test begins that shares its server with others
        self._token: str | None = None
        self._session: str | None = None
        self._token_lock = threading.Lock()
        self._settings = {f"OUTFEED_{name.upper()}": str(value) for name, value in settings.items()}

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTFEED_")}
        ours = {**NO_LIMITS, "OUTFEED_DATABASE": str(self.database), "OUTFEED_BIND": f"127.0.0.1:{self.port}"}
        return clean | ours | self._settings

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if kind is None:
            assert "Traceback" not in self.output, self.output
            assert secrets_in(self.output) == []

    @property
    def output(self) -> str:
        return self.output_path.read_text() if self.output_path.exists() else ""

    def start(self, *arguments: str) -> None:
        """Start serving; returns when it is ready."""
        if not self.database.exists():
            make_database(self.database)
        if self.command:
            with self.output_path.open("ab") as output:
                self.process = subprocess.Popen(
                    [*self.command, "serve", *arguments],
                    cwd=ROOT, env=self.environment, stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip
        else:
            self.process = Forked(["serve", *arguments], self.environment, self.output_path)
        wait_until(self._is_ready, "server ready")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"server ended with {self.process.returncode}:\n{self.output}"
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port)) as connection, contextlib.suppress(OSError):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    def workers(self) -> list[int]:
        """Return the process ids of the master's children."""
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def descriptors(self) -> int:
        """Return how many files and sockets the first worker has open."""
        return len(list(Path(f"/proc/{self.workers()[0]}/fd").iterdir()))

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Halt all its processes: connections stay open, and nothing answers."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            wait_until(self._stands_still, "server halted")  # one thread takes the signal; others run until it has
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def _stands_still(self) -> bool:
        assert self.process is not None
        pids = (self.process.pid, *self.workers())
        threads = [path.read_text() for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(thread.rpartition(") ")[2].startswith("T") for thread in threads)

    def kill(self) -> None:
        """SIGKILL the master and all its children at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_master(self) -> None:
        """SIGKILL the master alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """SIGTERM; return how many seconds it took to end."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_SECS)
        return time.monotonic() - began

    @property
    def token(self) -> str:
        """A token with the scopes read and write."""
        with self._token_lock:
            if self._token is None:
                self._token = account.create_token(db.at(self.database), "tests", ["read", "write"])
                db.at(self.database).close()
            return self._token

    def sign_in_link(self) -> str:
        """Return the last URL that the server printed."""
        return re.findall(r"http://\S+", self.output)[-1]

    @property
    def session(self) -> str:
        """The session cookie of an operator."""
        if self._session is None:
            self._session = self.sign_in("operator")
        return self._session

    def sign_in(self, role: str) -> str:
        """Return the session cookie of somebody new, without an event that says so."""
        database = db.at(self.database)
        name = f"{role}-{secrets.token_hex(4)}"
        user.add(database, name, role)
        key = account.create_session(database, name, timedelta(hours=1))
        database.close()
        return self.cookie(key)

    def cookie(self, key: str) -> str:
        """Return the cookie of the session with that key."""
        app = Flask("app")
        app.secret_key = Path(f"{self.database}.secret").read_text().strip()
        signer = SecureCookieSessionInterface().get_signing_serializer(app)
        assert signer is not None
        return str(signer.dumps({"_user_id": key, "_fresh": True, "_permanent": True}))

    def http(self) -> httpx.Client:
        """Return an HTTP client that bears the token."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30, verify=False
        )

    def counted(self, name: str, **labels: str) -> dict[str, float]:
        """Return the sum of a metric's samples with those *labels*, for each worker, whichever of them answers."""
        with self.http() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        found: Counter[str] = Counter()
        for sample in (each for family in families for each in family.samples if each.name == name):
            if labels.items() <= sample.labels.items():
                found[sample.labels["worker"]] += sample.value  # type: ignore[assignment]
        return dict(found)

    def run(self, *arguments: str, timeout: float = 30, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `outfeed` with *arguments* in a process of its own, on the same database."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            check=False, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, **more,
        )  # fmt: skip

    def log_event(self, event_type: str, source: str, data: Any = None) -> None:
        """Log an event from another process, by the command line."""
        done = self.run("log", event_type, "--source", source, *([] if data is None else ["--data", json.dumps(data)]))
        assert done.returncode == 0, done.stderr

    def connect(self, **options: Any) -> FeedClient:
        """Return a connected client that is not subscribed yet."""
        return FeedClient(self.url, self.token, **options)


class FeedClient:
    """A WebSocket client on the `websockets` library. Checks of every event that it follows the one before."""

    def __init__(self, url: str, token: str | None, headers: dict[str, str] | None = None, **options: Any) -> None:
        """Connect with *token*; without one with the *headers*, or the ticket in the *url*."""
        self._open = contextlib.ExitStack()
        self.socket: ClientConnection = self._open.enter_context(
            connect(
                url.replace("http", "ws", 1) + ("" if "?" in url else "/ws"),
                additional_headers=headers or ({"Authorization": f"Bearer {token}"} if token else {}),
                # Without a limit to its queue the library goes on reading, and so sees the answer to its close frame.
                compression=None, max_size=None, max_queue=None, **options,
            )
        )  # fmt: skip
        self.cursor = 0
        self.epoch = ""
        self.seen: list[int] = []
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> FeedClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def send(self, **fields: Any) -> None:
        self.socket.send(json.dumps(fields))

    def receive(self, timeout: float = PATIENCE_SECS) -> dict[str, Any]:
        """Return the next frame. Raises TimeoutError, ConnectionClosed."""
        frame: dict[str, Any] = json.loads(self.socket.recv(timeout=timeout))
        return frame

    def subscribe(self, **fields: Any) -> dict[str, Any]:
        """Subscribe and return the verdict's payload; it must come before anything of the new subscription."""
        self.send(action="subscribe", channel="events", **{"rate": 0, **fields})
        while (frame := self.receive())["type"] not in ("subscribed", "error"):
            self._note(frame)
        assert frame["type"] == "subscribed", frame
        payload: dict[str, Any] = frame["payload"]
        self.cursor, self.epoch = payload["after"], payload["epoch"]
        return payload

    def resume(self) -> dict[str, Any]:
        """Subscribe from the cursor on."""
        return self.subscribe(after=self.cursor, epoch=self.epoch)

    def next_event(self, timeout: float = PATIENCE_SECS) -> dict[str, Any]:
        """Return the next event frame, passing over heartbeats."""
        while True:
            frame = self.receive(timeout)
            if self._note(frame):
                return frame

    def follow(self, until: int, timeout: float = PATIENCE_SECS) -> None:
        """Take events until the cursor is at *until*."""
        while self.cursor < until:
            self._note(self.receive(timeout))

    def _note(self, frame: dict[str, Any]) -> bool:
        if frame["type"] == "heartbeat":
            assert frame["payload"]["cursor"] >= self.cursor
            self.cursor = frame["payload"]["cursor"]
            return False
        assert frame["type"] == "event", frame
        assert frame["prev"] <= self.cursor < frame["seq"], (frame["prev"], self.cursor, frame["seq"])
        self.cursor = frame["seq"]
        self.seen.append(frame["seq"])
        self.events.append(frame["payload"])
        return True

    def closed_with(self, timeout: float = PATIENCE_SECS) -> tuple[int, str]:
        """Take what still comes until the server closes; return its code and reason."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                self.socket.recv(timeout=max(0.01, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        raise AssertionError("the server did not close the connection")


class Follower:
    """A client that comes back: follows the feed by cursor over any number of restarts, and drops what it has seen."""

    def __init__(self, server: Server, after: int = 0) -> None:
        self.server = server
        self.cursor = after
        self.epoch = ""
        self.ids: list[str] = []
        self.verdicts: list[str] = []
        self.resumes = 0

    def run(self, is_done: Callable[[Follower], bool]) -> None:
        """Follow until *is_done*; blocks."""
        while not is_done(self):
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError):
                self._follow(is_done)
            time.sleep(0.02)

    def _follow(self, is_done: Callable[[Follower], bool]) -> None:
        with self.server.connect(open_timeout=5) as client:
            fields = {"after": self.cursor} | ({"epoch": self.epoch} if self.epoch else {})
            verdict = client.subscribe(**fields)
            self.verdicts.append(verdict["verdict"])
            self.resumes += 1
            self.epoch = verdict["epoch"]
            while not is_done(self):
                with contextlib.suppress(TimeoutError):
                    self._show(client, client.receive(timeout=0.2))

    def _show(self, client: FeedClient, frame: dict[str, Any]) -> None:
        if frame["type"] != "event" or frame["seq"] <= self.cursor:
            return
        assert frame["prev"] <= self.cursor, (frame["prev"], self.cursor)
        self.ids.append(frame["payload"]["id"])
        self.cursor = frame["seq"]


@contextlib.contextmanager
def writer(database: Path, rate: float, source: str = "writer", bulk: int = 1) -> Iterator[list[str]]:
    """Run a separate process of plain `sqlite3`, no code of ours, that commits *rate* events a second until the end.

    Yields a list that is filled with the ids it wrote once it has ended.
    """
    ids: list[str] = []
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "raw_writer.py"), str(database), str(rate), source, str(bulk)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    try:
        yield ids
    finally:
        output, _ = process.communicate("stop\n", timeout=PATIENCE_SECS)
        ids += output.split()
    assert process.returncode == 0


class RawClient:
    """A WebSocket client of bare bytes: for many at once, for reading nothing, and for breaking the protocol."""

    def __init__(self, server: Server, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(PATIENCE_SECS)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {server.token}\r\n\r\n".encode()
        )
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_frame(self, body: bytes, opcode: int = 1) -> None:
        """Send *body* (125 bytes at most) as one frame, masked with zeros."""
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(body), 0, 0, 0, 0]) + body)

    def subscribe(self, **fields: Any) -> None:
        self.send_frame(json.dumps({"action": "subscribe", "channel": "events", "rate": 0, **fields}).encode())

    def has_more(self, timeout: float) -> bool:
        """Return whether there is something to take, a frame or its beginning, within *timeout* seconds."""
        return bool(self._buffer or select.select([self.socket], [], [], timeout)[0])

    def take_frame(self) -> tuple[int, bytes]:
        """Return the opcode and body of the next frame; anything but a whole, unmasked, known frame is corrupt."""
        first, length = self._take(2)
        assert first in (0x81, 0x88, 0x89, 0x8A), f"corrupt frame: {first:#x}"
        assert length < 128, "a server's frames are not masked"
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8))
        return first & 0xF, self._take(length)

    def _take(self, size: int) -> bytes:
        if len(self._buffer) < size:
            chunks = [self._buffer]
            while sum(map(len, chunks)) < size:
                chunks.append(self._receive())
            self._buffer = b"".join(chunks)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _receive(self) -> bytes:
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise EOFError("the server ended the connection")
        return chunk
