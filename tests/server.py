"""Real server processes, their databases, and writers to them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import html
import itertools
import json
import os
import random
import re
import secrets
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
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from prometheus_client.parser import text_string_to_metric_families

from outfeed.access import auth
from outfeed.access.store import account, user
from outfeed.store import database as db
from outfeed.store import migrate
from tests import forked
from tests.clients import FeedClient
from tests.forked import Forked
from tests.waits import PATIENCE_SECS, wait_until

ROOT = Path(__file__).parents[1]
# Every client of a test has the same address.
NO_LIMITS = {
    "OUTFEED_MAX_CONNECTIONS_PER_IP": "0",
    "OUTFEED_CONNECTION_ATTEMPTS_PER_MINUTE": "0",
    "OUTFEED_REQUESTS_PER_MINUTE": "0",
    "OUTFEED_MAX_CONNECTIONS": "128",  # at its start a worker probes as many threads
}


@functools.cache
def upgraded_database() -> Path:
    """Return an upgraded database, for copies."""
    folder = Path(tempfile.mkdtemp(prefix="outfeed-tests-"))
    atexit.register(shutil.rmtree, folder)
    migrate.upgrade(folder / "outfeed.db")
    return folder / "outfeed.db"


def make_database(path: Path) -> None:
    """Make an upgraded database with an epoch of its own.

    It is a copy, because an upgrade takes ten times as long.
    """
    shutil.copy(upgraded_database(), path)
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE outfeed_meta SET value = lower(hex(randomblob(16))) WHERE key = 'epoch'")


@functools.cache
def own_ports() -> Iterator[int]:
    """Yield ports of this worker of the tests, in random order.

    Neither the kernel assigns them by itself, nor does another worker of the tests use them.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(11_008 + worker % 16, 32_000, 16))  # above the ports that browsers refuse
    random.Random().shuffle(ports)
    return itertools.cycle(ports)


def free_port() -> int:
    """Return a free port on loopback.

    It stays free while a server that has it is down.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", next(own_ports())))
            return int(probe.getsockname()[1])


def secrets_in(log: str) -> list[str]:
    """Return texts of a log that look like a secret.

    These are tokens, passwords, cookies, tickets and codes. The sign-in link is left out.
    """
    lines = [line for line in log.splitlines() if not line.startswith("Sign in with this link, once: ")]
    shapes = (
        r"outfeed_[\w-]{20,}|(?i:bearer|basic) +\S{6,}|[?&](?:code|ticket)=\S+|password=\S+|eyJ[\w-]{8,}|[\w-]{43}\b"
    )
    return [found for line in lines for found in re.findall(shapes, line)]


def hidden_fields(page: str) -> dict[str, str]:
    """Return the hidden fields of a page's forms, as a browser posts them."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


class Server:
    """`outfeed serve` on a database of its own.

    As a context manager it is started, and stopped at the end. A server that exits early, or that logged a traceback or
    a secret, fails the test.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.database = folder / "outfeed.db"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output_path = folder / "serve.log"
        self.process: Forked | None = None
        self.base = 0  # the seq after which a test begins that shares its server with others
        self._token: str | None = None
        self._session: str | None = None
        self._token_lock = threading.Lock()
        self.settings = {f"OUTFEED_{name.upper()}": str(value) for name, value in settings.items()}

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTFEED_")}
        ours = {**NO_LIMITS, "OUTFEED_DATABASE": str(self.database), "OUTFEED_BIND": f"127.0.0.1:{self.port}"}
        return clean | ours | self.settings

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        print(self.output[-4000:])  # pytest shows it with a failure
        if kind is None:
            assert "Traceback" not in self.output, self.output
            assert secrets_in(self.output) == []

    @property
    def output(self) -> str:
        return self.output_path.read_text() if self.output_path.exists() else ""

    def start(self, *arguments: str) -> None:
        """Start serving; return when the server is ready."""
        if not self.database.exists():
            make_database(self.database)
        self.process = self.launch(["serve", *arguments])
        wait_until(self._is_ready, "server ready")

    def launch(self, arguments: list[str]) -> Forked:
        """Run `outfeed` with *arguments* in a session of its own."""
        return Forked(arguments, self.environment, self.output_path)

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

    def threads(self) -> int:
        """Return the number of threads of the first worker."""
        return len(list(Path(f"/proc/{self.workers()[0]}/task").iterdir()))

    def descriptors(self) -> int:
        """Return the number of open files and sockets of the first worker."""
        return len(list(Path(f"/proc/{self.workers()[0]}/fd").iterdir()))

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Halt all processes during the block.

        Connections stay open, and no request is answered.
        """
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
        """SIGTERM; return how many seconds the server took to end."""
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

    def sign_in_by_link(self, browser: httpx.Client) -> httpx.Response:
        """Open the printed sign-in link in *browser*, and press its button."""
        page = browser.get(self.sign_in_link())
        return browser.post(f"{self.url}/login", data=hidden_fields(page.text))

    @property
    def session(self) -> str:
        """The session cookie of an operator."""
        if self._session is None:
            self._session = self.sign_in("operator")
        return self._session

    def sign_in(self, role: str) -> str:
        """Return the session cookie of a new user, without a sign-in event."""
        database = db.at(self.database)
        name = f"{role}-{secrets.token_hex(4)}"
        user.add(database, name, role)
        key = account.create_session(database, name, timedelta(hours=1))
        database.close()
        return self.cookie(key)

    @property
    def cookie_name(self) -> str:
        """Name of the session cookie. No other server has the same."""
        return auth.cookie_name(self._secret_key)

    @property
    def _secret_key(self) -> str:
        return Path(f"{self.database}.secret").read_text().strip()

    def cookie(self, key: str) -> str:
        """Return the cookie of the session with that key."""
        app = Flask("outfeed")
        app.secret_key = self._secret_key
        signer = SecureCookieSessionInterface().get_signing_serializer(app)
        assert signer is not None
        return str(signer.dumps({"_user_id": key, "_fresh": True, "_permanent": True}))

    def http(self) -> httpx.Client:
        """Return an HTTP client with the token."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=30,
            verify=False,
            trust_env=False,
        )

    def counted(self, name: str, **labels: str) -> dict[str, float]:
        """Return the sum of a metric's samples for each worker.

        Only samples with those *labels* count. Any worker may answer.
        """
        with self.http() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        found: Counter[str] = Counter()
        for sample in (each for family in families for each in family.samples if each.name == name):
            if labels.items() <= sample.labels.items():
                found[sample.labels["worker"]] += sample.value  # type: ignore[assignment]
        return dict(found)

    def run(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run `outfeed` with *arguments* in a process, on the same database."""
        return forked.run([*arguments], self.environment, timeout)

    def log_event(self, event_type: str, source: str, data: Any = None) -> None:
        """Log an event from another process, by the command line."""
        done = self.run("log", event_type, "--source", source, *([] if data is None else ["--data", json.dumps(data)]))
        assert done.returncode == 0, done.stderr

    def connect(self, **options: Any) -> FeedClient:
        """Return a connected client that is not subscribed yet."""
        return FeedClient(self.url, self.token, **options)


@contextlib.contextmanager
def writer(database: Path, rate: float, source: str = "writer", bulk: int = 1) -> Iterator[list[str]]:
    """Run a separate process that commits *rate* events a second.

    It uses plain `sqlite3` and none of Outfeed's code, and runs until the end of the block. Yields a list that has the
    ids of its events after the end.
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
