"""The servers that are measured, each as its users start it, on a free port of the loopback, in a folder of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from scripts.benchmarks import process
from scripts.benchmarks.client import Target
from scripts.benchmarks.errors import ServerError

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_TIMEOUT_SECS = 30.0


class Server:
    """One server process and its children. Use it in a `with`: it starts on entry and ends on exit."""

    name = ""
    module = ""
    needs: tuple[str, ...] = ()

    def __init__(self, folder: Path, max_clients: int) -> None:
        self.folder = folder
        self.max_clients = max_clients
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return once it is ready."""
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
        self._await_ready()

    def stop(self) -> None:
        """End the server and its children."""
        if self.process:
            process.end(self.process)

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", f"scripts.benchmarks.peers.{self.module}", str(self.port), str(self.folder)]

    def environment(self) -> dict[str, str]:
        """Return the environment, without the settings of the user who runs the bench."""
        return {name: value for name, value in os.environ.items() if not name.startswith("OUTFEED_")}

    def is_ready(self) -> bool:
        """True once the server takes connections."""
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0

    def target(self) -> Target:
        """Return how a client subscribes to all events."""
        return Target(HOST, self.port, "/ws", {}, json.dumps({"action": "subscribe", "channel": "events"}))

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Return the writer's way in; a server that takes one event at a time ignores *commit_size*."""
        raise NotImplementedError

    @property
    def session(self) -> int:
        """The session id that the server's processes share."""
        if not self.process:
            raise ServerError(f"{self.name} was not started")
        return self.process.pid

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECS
        while not self.is_ready():
            if self.process and self.process.poll() is not None:
                raise ServerError(f"{self.name} ended at its start:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} was not ready in {START_TIMEOUT_SECS:.0f} s:\n{self._last_lines()}")
            time.sleep(0.02)

    def _last_lines(self) -> str:
        lines = (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-20:])


class Outfeed(Server):
    """`outfeed serve` with one worker and a token; writers know the database and nothing else."""

    name = "outfeed"

    def __init__(self, folder: Path, max_clients: int) -> None:
        super().__init__(folder, max_clients)
        self.database = folder / "outfeed.db"
        self.token = ""

    def start(self) -> None:
        """Start, and make the token that clients send."""
        super().start()
        if not self.token:
            self.token = self._create_token()

    def command(self) -> list[str]:
        """Return what a user types."""
        return [sys.executable, "-m", "app", "serve"]

    def environment(self) -> dict[str, str]:
        """Return settings that differ from the defaults in the database, the address and the limits alone."""
        return super().environment() | {
            "OUTFEED_DATABASE": str(self.database),
            "OUTFEED_BIND": f"{HOST}:{self.port}",
            "OUTFEED_MAX_CONNECTIONS": str(self.max_clients + 50),
            # All clients come from one address here.
            "OUTFEED_MAX_CONNECTIONS_PER_IP": "0",
            "OUTFEED_CONNECTION_ATTEMPTS_PER_MINUTE": "0",
        }

    def is_ready(self) -> bool:
        """True once /readyz says so."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=5) as response:
                return int(response.status) == 200
        except OSError:
            return False

    def target(self) -> Target:
        """Subscribe from now on, as fast as events come."""
        subscribe = json.dumps({"action": "subscribe", "channel": "events", "rate": 0})
        return Target(HOST, self.port, "/ws", {"Authorization": f"Bearer {self.token}"}, subscribe)

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Write rows with nothing but SQLite."""
        return {"sink": "sqlite", "arguments": {"path": str(self.database), "commit_size": commit_size}}

    def _create_token(self) -> str:
        command = [sys.executable, "-m", "app", "token", "create", "bench", "--scopes", "read,write"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(), capture_output=True, text=True, timeout=30, check=False
        )
        found = re.search(r"outfeed_[\w-]+", done.stdout)
        if not found:
            raise ServerError(f"token create gave no token: {done.stdout}{done.stderr}")
        return found[0]


class Websockets(Server):
    """The plain broadcast of the `websockets` library."""

    name = "websockets"
    module = "broadcast"
    needs = ("websockets",)

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Write lines down its Unix socket."""
        return {"sink": "line", "arguments": {"path": str(self.folder / "events.sock")}}


class Callback(Server):
    """A callback for each event, under FastAPI and uvicorn."""

    name = "callback"
    module = "callback"
    needs = ("fastapi", "uvicorn", "websockets")

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Post one event after the other."""
        return {"sink": "http", "arguments": {"address": f"{HOST}:{self.port}", "path": "/events"}}


PEERS: dict[str, type[Server]] = {peer.name: peer for peer in (Websockets, Callback)}


def is_installed(peer: type[Server]) -> bool:
    """True where all that *peer* needs can be imported."""
    return all(importlib.util.find_spec(name) for name in peer.needs)


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
