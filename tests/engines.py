"""Real engines on loopback, and edges that serve from them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from outfeed.access.store import account
from scripts.several_hosts import pump
from tests.database_file import epoch_of, head_of
from tests.forked import Forked
from tests.server import NO_LIMITS, Server, free_port
from tests.waits import PATIENCE_SECS, wait_until

HEAD, EVENTS, GRANTS = "{outfeed}:head", "{outfeed}:events", "{outfeed}:grants"


def require_redis() -> str:
    """Return the path of redis-server.

    Without one the test is skipped, but fails in CI.
    """
    found = shutil.which("redis-server")
    if found is None and "CI" not in os.environ:
        pytest.skip("redis-server is not installed; on Debian: apt-get install redis-server")
    assert found, "redis-server is not installed"
    return found


class RedisServer:
    """One `redis-server` without persistence, or with other *options*.

    Gone at the end.
    """

    def __init__(self, folder: Path, port: int | None = None, **options: str) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = {"maxmemory-policy": "noeviction", **options}
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self) -> None:
        """Start it; returns when it answers."""
        own = {"bind": "127.0.0.1", "port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        words = [word for name, value in {**own, **self.options}.items() for word in (f"--{name}", value)]
        with (self.folder / f"redis-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([require_redis(), *words], stdout=log, stderr=log)
        wait_until(self.answers, "redis-server answers")

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Halt it: connections stay open, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @property
    def position(self) -> int:
        """The last seq that it was given; -1 without a stream."""
        try:
            return int(str(self.client.xinfo_stream(EVENTS)["last-generated-id"]).partition("-")[0])
        except redis.RedisError:
            return -1

    @property
    def epoch(self) -> str | None:
        """The epoch of what it holds."""
        with contextlib.suppress(redis.RedisError):
            return self.client.hget(HEAD, "epoch")  # type: ignore[return-value]
        return None

    def knows(self, grant: str) -> bool:
        """Whether the origin has written that grant."""
        return bool(self.client.hexists(GRANTS, grant))

    def seqs(self) -> list[int]:
        """Return the seqs that it holds."""
        return [int(id_.partition("-")[0]) for id_, _ in self.client.xrange(EVENTS)]


class Route(socketserver.ThreadingTCPServer):
    """The way of one host to the engine, or to another one after a failover."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, engine: RedisServer) -> None:
        super().__init__(("127.0.0.1", free_port()), _Passage)
        self.engine = engine
        self.url = f"redis://127.0.0.1:{self.server_address[1]}/0"
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Route:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.lead_to(self.engine)
        self.server_close()

    def lead_to(self, engine: RedisServer) -> None:
        """Cut every connection, and lead new ones to *engine*."""
        self.engine = engine
        for client in [*self._open]:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def carry(self, client: socket.socket) -> None:
        """Pass bytes both ways until either side ends."""
        self._open.add(client)
        try:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.engine.port)) as server:
                pump(server, client)
        finally:
            self._open.discard(client)


class _Passage(socketserver.BaseRequestHandler):
    server: Route

    def handle(self) -> None:
        self.server.carry(self.request)


class Edge(Server):
    """`outfeed edge` for an origin, with the names of a `Server`."""

    def __init__(self, origin: Server, store: RedisServer, name: str = "edge", **settings: Any) -> None:
        folder = origin.database.parent
        super().__init__(folder, **settings)
        self.origin = origin
        self.store = store
        self._known_token = ""
        self.output_path = folder / f"{name}.log"

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTFEED_")}
        return {
            **clean, **NO_LIMITS,
            "OUTFEED_BIND": f"127.0.0.1:{self.port}", "OUTFEED_ENGINE": self.store.url,
            "OUTFEED_ORIGIN_URL": self.origin.url, "OUTFEED_SECRET_KEY": self.secret_key(),
            **self.settings,
        }  # fmt: skip

    def secret_key(self) -> str:
        return self.origin.settings.get("OUTFEED_SECRET_KEY") or Path(f"{self.database}.secret").read_text().strip()

    @property
    def token(self) -> str:
        """The origin's token, once it is known here."""
        secret = self.origin.token
        if self._known_token != secret:
            wait_until(lambda: self.store.knows(f"token:{account.hash_of(secret)}"), "token known")
            self._known_token = secret
        return secret

    def sign_in(self, role: str) -> str:
        """Return the session cookie of a new user, known here."""
        before = self.store.client.hlen(GRANTS)
        cookie = self.origin.sign_in(role)
        wait_until(lambda: self.store.client.hlen(GRANTS) > before, "session known")
        return cookie

    def start(self, *arguments: str, is_ready: bool = True) -> None:
        """Start it; returns when it is ready, or only alive."""
        self.process = Forked(["edge", *arguments], self.environment, self.output_path)
        wait_until(self._is_ready if is_ready else self.is_alive, "edge ready")

    def is_alive(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output
        with contextlib.suppress(httpx.TransportError), self.plain() as http:
            return bool(http.get("/healthz").status_code == 200)
        return False

    def plain(self) -> httpx.Client:

        return httpx.Client(base_url=self.url, timeout=10, trust_env=False, verify=False)


def caught_up(engine: RedisServer, database: Path, timeout: float = PATIENCE_SECS) -> None:
    """Wait until the engine is at the outbox's head."""
    wait_until(
        lambda: engine.epoch == epoch_of(database) and engine.position >= head_of(database), "engine at the head",
        timeout=timeout,
    )  # fmt: skip


@contextlib.contextmanager
def cluster(folder: Path, edges: int = 2, **settings: Any) -> Iterator[tuple[RedisServer, Server, list[Edge]]]:
    """Run an engine, an origin and edges."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(RedisServer(folder))
        origin = stack.enter_context(Server(folder, engine=engine.url, **settings))
        caught_up(engine, origin.database)
        found = [stack.enter_context(Edge(origin, engine, f"edge-{number}", **settings)) for number in range(edges)]
        yield engine, origin, found


class Sentinels:
    """Three sentinels that elect a replica a second after *master* is gone."""

    def __init__(self, folder: Path, master: RedisServer, name: str = "feed") -> None:
        self._folder = folder
        self._master = master
        self.name = name
        self.ports = [free_port() for _ in range(3)]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://{hosts}/{self.name}"

    def __enter__(self) -> Sentinels:
        for port in self.ports:
            configuration = self._folder / f"sentinel-{port}.conf"
            configuration.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
                f"sentinel monitor {self.name} 127.0.0.1 {self._master.port} 2\n"
                f"sentinel down-after-milliseconds {self.name} 1000\nsentinel failover-timeout {self.name} 5000\n"
            )
            with (self._folder / f"sentinel-{port}.log").open("ab") as log:
                command = [require_redis(), str(configuration), "--sentinel"]
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        wait_until(self.are_ready, "sentinels know each other and the replica")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def are_ready(self) -> bool:
        return all(self._knows_all(port) for port in self.ports)

    def _knows_all(self, port: int) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=port, decode_responses=True) as client:
            found = client.sentinel_master(self.name)
            return int(found["num-other-sentinels"]) == 2 and int(found["num-slaves"]) >= 1
        return False
