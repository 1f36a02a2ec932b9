"""The measured server: `outfeed serve` of a checkout.

It runs on a free port of the loopback, in a folder of its own.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from scripts.benchmarks import process
from scripts.benchmarks.client import Target
from scripts.benchmarks.errors import ServerError

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_TIMEOUT_SECS = 30.0
QUIET_TIMEOUT_SECS = 1800.0
QUIET_CORE = 0.05

_FILL = """
    WITH RECURSIVE stored (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM stored WHERE n < :events)
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)
    SELECT
        printf('0190a000-0000-7000-8000-%012x', n), 'tool.called', 'bench', 'task-0123', 'agent-0456',
        printf('{"n":1%06d,"t_ns":1000000000000000000,"text":"measured, not guessed"}', n % 1000000),
        strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    FROM stored"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout of Outfeed, its programs in *bin*, and its report name."""

    name: str
    bin: Path

    @classmethod
    def at(cls, folder: Path) -> Checkout:
        """Return the base checkout in *folder*.

        Raises ServerError if it has no virtual environment.
        """
        found = cls("base", folder.absolute() / ".venv" / "bin")
        if not (found.bin / "outfeed").exists():
            raise ServerError(f"{found.bin}/outfeed is missing; run scripts/serve in {folder} once to create it")
        return found

    @property
    def commit(self) -> str:
        """Return the current commit, with a + if files differ from it.

        It is empty outside Git.
        """
        command = ["git", "-C", str(self.bin), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()


THIS = Checkout("this", Path(sys.executable).parent)


class Server:
    """`outfeed serve` with a token, on an empty database or on *database*.

    Use it in a `with`, which starts and ends it.
    """

    def __init__(self, checkout: Checkout, folder: Path, max_clients: int, database: Path | None = None) -> None:
        self.checkout = checkout
        self.folder = folder
        self.max_clients = max_clients
        self.database = database or folder / "outfeed.db"
        self.port = free_port()
        self.token = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.__exit__)
            self._start()
            output = self.run("token", "create", f"bench-{time.time_ns()}", "--scopes", "read,write")
            self.token = re.findall(r"outfeed_[\w-]+", output)[0]
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            process.end(self._process)
            self._process = None

    @property
    def session(self) -> int:
        """Return the session id that the server's processes share."""
        assert self._process, "the server is started"
        return self._process.pid

    def target(self, **wanted: Any) -> Target:
        """Return a subscription to all new events at full speed, or as *wanted*."""
        subscribe = json.dumps({"action": "subscribe", "channel": "events", "rate": 0} | wanted)
        return Target(HOST, self.port, "/ws", {"Authorization": f"Bearer {self.token}"}, subscribe)

    def run(self, *arguments: str, program: str = "outfeed", timeout_secs: float = 60) -> str:
        """Run a program of the checkout. Return its output. Raises ServerError."""
        command, environment = [str(self.checkout.bin / program), *arguments], self._environment()
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout_secs, check=False
        )
        if done.returncode:
            raise ServerError(f"{program} {arguments[0]} of {self.checkout.name} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def await_quiet(self) -> None:
        """Wait until background work, such as a new search index, has ended."""

        def is_quiet() -> bool:
            before = process.cpu_seconds(self.session)
            time.sleep(2)
            return process.cpu_seconds(self.session) - before < 2 * QUIET_CORE

        self._await(is_quiet, QUIET_TIMEOUT_SECS)

    def _start(self) -> None:
        with open(self.folder / "server.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [str(self.checkout.bin / "outfeed"), "serve"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._await(self._is_ready, START_TIMEOUT_SECS)

    def _environment(self) -> dict[str, str]:
        """Return settings that change only the database, the address and limits."""
        is_set_by_user = re.compile(r"OUTFEED_|PYTHON(PATH|DONTWRITEBYTECODE)$").match
        return {name: value for name, value in os.environ.items() if not is_set_by_user(name)} | {
            "OUTFEED_DATABASE": str(self.database),
            "OUTFEED_BIND": f"{HOST}:{self.port}",
            "OUTFEED_MAX_CONNECTIONS": str(self.max_clients + 50),
            # Here all clients have one address, and all producers one token.
            "OUTFEED_MAX_CONNECTIONS_PER_IP": "0",
            "OUTFEED_CONNECTION_ATTEMPTS_PER_MINUTE": "0",
            "OUTFEED_REQUESTS_PER_MINUTE": "0",
            "OUTFEED_ADDRESS_REQUESTS_PER_MINUTE": "0",
        }

    def _is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with suppress(OSError), opener.open(f"http://{HOST}:{self.port}/readyz", timeout=5):
            return True
        return False

    def _await(self, is_so: Callable[[], bool], timeout_secs: float) -> None:
        deadline = time.monotonic() + timeout_secs
        while not is_so():
            if self._process and self._process.poll() is not None:
                raise ServerError(f"the server of {self.checkout.name} ended at startup:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.checkout.name} was not ready in {timeout_secs:.0f} s:\n{self._last_lines()}")
            time.sleep(0.01)

    def _last_lines(self) -> str:
        return "\n".join((self.folder / "server.log").read_text("utf-8", "replace").splitlines()[-20:])


def fill(database: Path, events: int) -> None:
    """Write *events*, numbered from 1, to an upgraded *database*.

    No other process may have it open. The write is fast but not durable.
    """
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000;")
        connection.execute(_FILL, {"events": events})
        connection.execute("PRAGMA journal_mode = WAL")


def free_port() -> int:
    """Return a free port of the loopback."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
