"""What is measured: a server as its users start it, on a free port of the loopback, in a folder of its own; Outfeed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from scripts.benchmarks import process
from scripts.benchmarks.client import Target
from scripts.benchmarks.errors import ServerError

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_TIMEOUT_SECS = 30.0


class Server(ABC):
    """One server process and its children. Use it in a `with`: it starts on entry and ends on exit."""

    name = ""

    def __init__(self, folder: Path, max_clients: int) -> None:
        self.folder = folder
        self.max_clients = max_clients
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.stop)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return once it is ready."""
        self.spawn()
        self._await(self.is_ready)

    def spawn(self) -> None:
        """Start, without waiting."""
        with open(self.folder / f"{self.name}.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the server and its children."""
        if self.process:
            process.end(self.process)
            self.process = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line."""

    def environment(self) -> dict[str, str]:
        """Return the environment without what the user who runs the bench has set; compiled modules are kept."""
        is_theirs = re.compile(r"OUTFEED_|PYTHONDONTWRITEBYTECODE$").match
        return {name: value for name, value in os.environ.items() if not is_theirs(name)}

    def is_ready(self) -> bool:
        """True once the server takes connections."""
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0

    def target(self) -> Target:
        """Return how a client subscribes to all events."""
        return Target(HOST, self.port, "/ws", {}, json.dumps({"action": "subscribe", "channel": "events"}))

    @abstractmethod
    def sink(self, commit_size: int) -> dict[str, Any]:
        """Return the writer's way in; a server that takes one event at a time ignores *commit_size*."""

    @property
    def session(self) -> int:
        """The session id that the server's processes share."""
        if not self.process:
            raise ServerError(f"{self.name} was not started")
        return self.process.pid

    def _await(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECS
        while not is_so():
            if self.process and self.process.poll() is not None:
                raise ServerError(f"{self.name} ended at its start:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} was not ready in {START_TIMEOUT_SECS:.0f} s:\n{self._last_lines()}")
            time.sleep(0.01)

    def _last_lines(self) -> str:
        lines = (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-20:])


class Outfeed(Server):
    """`outfeed serve` with a token; writers know the database and nothing else. A *database* outlives the server."""

    name = "outfeed"

    def __init__(self, folder: Path, max_clients: int, workers: int = 1, database: Path | None = None) -> None:
        super().__init__(folder, max_clients)
        self.workers = workers
        self.database = database or folder / "outfeed.db"
        self.token = ""

    def start(self) -> None:
        """Start, and make the token that clients send."""
        super().start()
        if not self.token:
            self.token = self._create_token()

    def restart(self) -> tuple[float, float]:
        """Stop, start; return the seconds from the start to the first page served, and to being ready."""
        self.stop()
        began = time.monotonic()
        self.spawn()
        self._await(lambda: self._serves("/login"))
        page_secs = time.monotonic() - began
        self._await(self.is_ready)
        return page_secs, time.monotonic() - began

    def command(self) -> list[str]:
        """Return what a user types."""
        return [sys.executable, "-m", "outfeed", "serve"]

    def environment(self) -> dict[str, str]:
        """Return settings that differ from the defaults in the database, the address and the limits alone."""
        return super().environment() | {
            "OUTFEED_DATABASE": str(self.database),
            "OUTFEED_BIND": f"{HOST}:{self.port}",
            "OUTFEED_WORKERS": str(self.workers),
            "OUTFEED_MAX_CONNECTIONS": str(self.max_clients + 50),
            # All clients come from one address here, and all producers have one token.
            "OUTFEED_MAX_CONNECTIONS_PER_IP": "0",
            "OUTFEED_CONNECTION_ATTEMPTS_PER_MINUTE": "0",
            "OUTFEED_REQUESTS_PER_MINUTE": "0",
        }

    def is_ready(self) -> bool:
        """True once /readyz says so."""
        return self._serves("/readyz")

    def target(self, **wanted: Any) -> Target:
        """Subscribe from now on, as fast as events come, or as *wanted*."""
        subscribe = json.dumps({"action": "subscribe", "channel": "events", "rate": 0} | wanted)
        return Target(HOST, self.port, "/ws", {"Authorization": f"Bearer {self.token}"}, subscribe)

    def viewer(self) -> Target:
        """Subscribe as the page does for a session: in batches, ten frames a second at most; with a filter besides."""
        return self.target(batch=True, rate=10, types=["task.*", "tool.*"])

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Write rows with nothing but SQLite."""
        return {"sink": "sqlite", "arguments": {"path": str(self.database), "commit_size": commit_size}}

    def head(self) -> dict[str, Any]:
        """Return the head as `after` and `epoch` of a subscription."""
        with self._get("/api/feed") as response:
            page = json.load(response)
        return {"after": page["cursor"], "epoch": page["epoch"]}

    def upgrade(self) -> None:
        """Make the database."""
        self._run("upgrade")

    def _serves(self, path: str) -> bool:
        try:
            with self._get(path) as response:
                return int(response.status) == 200
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(f"http://{HOST}:{self.port}{path}", headers=headers)
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5)

    def _create_token(self) -> str:
        output = self._run("token", "create", f"bench-{time.time_ns()}", "--scopes", "read,write")
        found = re.search(r"outfeed_[\w-]+", output)
        if not found:
            raise ServerError(f"token create gave no token: {output}")
        return found[0]

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "outfeed", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise ServerError(f"outfeed {arguments[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
