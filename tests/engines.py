"""Real engines for tests, `redis-server` on loopback, and edges that serve from them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from outfeed.access.store import account
from tests.database_file import epoch_of, head_of
from tests.forked import Forked
from tests.server import NO_LIMITS, Server, free_port
from tests.waits import PATIENCE_SECS, wait_until

HEAD, EVENTS, GRANTS = "{outfeed}:head", "{outfeed}:events", "{outfeed}:grants"


def require_redis() -> str:
    """Return the path of redis-server. Without one the test is skipped, but fails in CI."""
    found = shutil.which("redis-server")
    if found is None and "CI" not in os.environ:
        pytest.skip("redis-server is not installed; on Debian: apt-get install redis-server")
    assert found, "redis-server is not installed"
    return found


class RedisServer:
    """One `redis-server` without persistence, or with other *options*. Gone at the end."""

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
        """Return the session cookie of somebody new, known here."""
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
        with contextlib.suppress(OSError), self.plain() as http:
            return bool(http.get("/healthz").status_code == 200)
        return False

    def plain(self) -> Any:
        import httpx

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
