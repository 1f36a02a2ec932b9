"""The peers, and whether each can be measured here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.benchmarks.client import Target
from scripts.benchmarks.servers import HOST, ROOT, Server

HERE = Path(__file__).parent
# Beside the Python packages: what npm installs for the bench, once.
NODE_PACKAGES = ROOT / ".venv" / "bench-node"
_INSTALL_TIMEOUT_SECS = 120


class Peer(Server):
    """A Python peer, with the packages that it *needs*."""

    module = ""
    needs: tuple[str, ...] = ()

    @classmethod
    def missing(cls) -> str:
        """Return what is not installed; nothing where it can be measured."""
        return ", ".join(name for name in cls.needs if not importlib.util.find_spec(name))

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", f"scripts.benchmarks.peers.{self.module}", str(self.port), str(self.folder)]


class PostedPeer(Peer):
    """A peer that takes one event after the other over HTTP."""

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Post one event after the other."""
        return {"sink": "http", "arguments": {"address": f"{HOST}:{self.port}", "path": "/events"}}


class NodePeer(PostedPeer):
    """A peer under Node; npm installs the packages that it *needs* when it is first measured."""

    @classmethod
    def missing(cls) -> str:
        """Return what is not installed and can't be."""
        if absent := [tool for tool in ("node", "npm") if not shutil.which(tool)]:
            return ", ".join(absent)
        if all((NODE_PACKAGES / "node_modules" / package.split("@")[0]).is_dir() for package in cls.needs):
            return ""
        return "" if _install(cls.needs) else f"{', '.join(cls.needs)}, which npm could not install"

    def command(self) -> list[str]:
        """Return the command line. Packages are found from the script's own place, so it gets a copy beside them."""
        script = NODE_PACKAGES / self.module
        shutil.copy(HERE / self.module, script)
        return ["node", str(script), str(self.port)]


class Websockets(Peer):
    """The plain broadcast of the `websockets` library."""

    name = "websockets"
    module = "broadcast"
    needs = ("websockets",)

    def sink(self, commit_size: int) -> dict[str, Any]:
        """Write lines down its Unix socket."""
        return {"sink": "line", "arguments": {"path": str(self.folder / "events.sock")}}


class Callback(PostedPeer):
    """A callback for each event, under FastAPI and uvicorn."""

    name = "callback"
    module = "callback"
    needs = ("fastapi", "uvicorn", "websockets")


def _socket_io_target(port: int) -> Target:
    """Connect to the default namespace (Socket.IO protocol 5); the verdict is an event after its two greetings."""
    return Target(HOST, port, "/socket.io/?EIO=4&transport=websocket", {}, "40", greetings=("0{", "40"))


class FlaskSocketIO(PostedPeer):
    """Flask-SocketIO under gevent."""

    name = "flask-socketio"
    module = "flask_socket_io"
    needs = ("flask_socketio", "gevent")

    def target(self) -> Target:
        """Return how a client subscribes to all events."""
        return _socket_io_target(self.port)


class Ws(NodePeer):
    """The `ws` package, a send for each client."""

    name = "ws"
    module = "ws.mjs"
    needs = ("ws@8",)


class SocketIO(NodePeer):
    """Socket.IO's own server."""

    name = "socket.io"
    module = "socket_io.mjs"
    needs = ("socket.io@4",)

    def target(self) -> Target:
        """Return how a client subscribes to all events."""
        return _socket_io_target(self.port)


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Websockets, Callback, FlaskSocketIO, Ws, SocketIO)}


def _install(packages: tuple[str, ...]) -> bool:
    NODE_PACKAGES.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(NODE_PACKAGES)]
    try:
        done = subprocess.run(
            [*command, *packages], stdout=subprocess.DEVNULL, timeout=_INSTALL_TIMEOUT_SECS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
