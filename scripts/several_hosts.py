"""`scripts/serve --edges N`.

An engine, an origin and edges on one machine, behind one address.

Only to try it: the front has no TLS, and the engine no password.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import httpx

from outfeed.config import settings
from outfeed.process import exit_with

PATIENCE_SECS = 30.0
MAX_HEAD_BYTES = 64 * 1024
# Of a page's requests, what an edge serves: those with a session, to these paths.
FEED = re.compile(rb"GET (?:/ws|/api/feed|/api/feed/stream|/api/types)[ ?]")
ORIGIN = re.compile(rb"GET \S*[?&]origin=1[& ]")
SESSION = re.compile(rb"(?im)^cookie:.*outfeed_session_")


class Front(socketserver.ThreadingTCPServer):
    """Hands a browser's requests for the feed to an edge that answers.

    Any other request goes to the origin.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, origin: int, edges: list[int]) -> None:
        super().__init__(("127.0.0.1", port), FrontHandler)
        self.origin = origin
        self.edges = edges
        self._lock = threading.Lock()  # guards the two below
        self._open: set[socket.socket] = set()
        self._is_refusing = False

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones until `accept`."""
        with self._lock:
            self._is_refusing = True
            for client in self._open:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def accept(self) -> None:
        """Serve again."""
        with self._lock:
            self._is_refusing = False

    @contextlib.contextmanager
    def admitted(self, client: socket.socket) -> Iterator[bool]:
        """Count *client* as open during the block; yield whether it is served."""
        with self._lock:
            is_served = not self._is_refusing
            self._open.add(client)
        try:
            yield is_served
        finally:
            with self._lock:
                self._open.discard(client)

    def connect_for(self, head: bytes) -> tuple[socket.socket, int]:
        """Return a connection to the server for that request, and its port."""
        for port in [
            *(self.edges if FEED.match(head) and SESSION.search(head) and not ORIGIN.match(head) else []),
            self.origin,
        ]:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), timeout=5), port
        raise ConnectionError("no server answers")


class FrontHandler(socketserver.BaseRequestHandler):
    """One request, or one WebSocket, of a client."""

    server: Front

    def handle(self) -> None:
        """Pass the request on, and then both ways what follows."""
        with contextlib.suppress(OSError), self.server.admitted(self.request) as is_served:
            if not is_served:
                return
            head = self._read_head()
            ours, port = self.server.connect_for(head)
            with ours:
                ours.settimeout(None)
                if b"upgrade: websocket" in head.lower():
                    click.echo(f"A viewer is served by port {port}")
                else:
                    head = re.sub(rb"(?im)^connection:[^\n]*\n", b"", head)
                    head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                ours.sendall(head)
                pump(ours, self.request)

    def _read_head(self) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received and len(received) < MAX_HEAD_BYTES:
            more = self.request.recv(65_536)
            if not more:
                raise ConnectionError("the client is gone")
            received += more
        return received


def pump(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until either side ends."""
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(65_536)
            if not data:
                return
            (other if ready is one else one).sendall(data)


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], **environment: str) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one."""
    parent = os.getpid()
    return subprocess.Popen(command, env={**os.environ, **environment}, preexec_fn=lambda: exit_with(parent))  # noqa: PLW1509 - no thread runs yet


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until *url* answers 200. Raises click.ClickException."""
    deadline = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise click.ClickException(f"{url} does not answer")


@click.command()
@click.option("--edges", type=click.IntRange(1, 16), required=True, help="Number of edges.")
@click.option("--demo", is_flag=True, help="Also run a simulated swarm.")
def main(edges: int, demo: bool) -> None:
    """Serve the feed by an origin and edges on this machine until stopped."""
    program = shutil.which("redis-server")
    if program is None:
        raise click.ClickException("redis-server is not installed; on Debian: apt-get install redis-server")
    host, port = settings().bound
    if host != "127.0.0.1":
        raise click.ClickException("OUTFEED_BIND: --edges serves loopback only, like 127.0.0.1:8000")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="outfeed-engine-"))
        run(stack, program, Path(folder), port, edges, demo=demo)


def run(stack: contextlib.ExitStack, redis: str, folder: Path, port: int, count: int, *, demo: bool) -> None:
    """Start everything, and print what to try.

    Returns when the origin ends, or after Ctrl-C.
    """
    engine_port = free_port()
    options = {"port": str(engine_port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(folder)}
    options |= {"maxmemory-policy": "noeviction", "loglevel": "warning"}
    stop_at_end(stack, start([redis, *(word for name, value in options.items() for word in (f"--{name}", value))]))
    engine, public = f"redis://127.0.0.1:{engine_port}/0", f"http://127.0.0.1:{port}"
    outfeed = [sys.executable, "-m", "outfeed"]
    origin_port = port + count + 1
    origin = start(
        [*outfeed, "serve", *(["--demo"] if demo else [])],
        OUTFEED_ENGINE=engine, OUTFEED_BIND=f"127.0.0.1:{origin_port}", OUTFEED_PUBLIC_URL=public,
        OUTFEED_TRUSTED_PROXIES="127.0.0.1",
    )  # fmt: skip
    stop_at_end(stack, origin)
    wait_for(f"http://127.0.0.1:{origin_port}/healthz", origin)
    key = settings().secret_key
    secret = key.get_secret_value() if key else Path(f"{settings().database}.secret").read_text("ascii").strip()
    ports = [port + number + 1 for number in range(count)]
    for each in ports:
        edge = start(
            [*outfeed, "edge"],
            OUTFEED_ENGINE=engine, OUTFEED_BIND=f"127.0.0.1:{each}", OUTFEED_PUBLIC_URL=public,
            OUTFEED_ORIGIN_URL=public, OUTFEED_SECRET_KEY=secret, OUTFEED_TRUSTED_PROXIES="127.0.0.1",
        )  # fmt: skip
        stop_at_end(stack, edge)
        wait_for(f"http://127.0.0.1:{each}/readyz", edge)
        click.echo(f"Edge on port {each} is process {edge.pid}: kill -9 {edge.pid} moves its viewers")
    front = stack.enter_context(Front(port, origin_port, ports))
    threading.Thread(target=front.serve_forever, daemon=True).start()
    click.echo(f"{public} serves pages from the origin, and the feed of signed-in browsers from the edges")
    click.echo(f"Try: OUTFEED_TOKEN=… outfeed tail --url http://127.0.0.1:{ports[0]}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        origin.wait()
    front.shutdown()


def stop_at_end(stack: contextlib.ExitStack, process: subprocess.Popen[bytes]) -> None:
    """End *process* with the stack, the last to start first."""
    stack.callback(process.wait)
    stack.callback(process.terminate)


if __name__ == "__main__":
    main()
