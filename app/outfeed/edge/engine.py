"""Client of the engine, a Redis or Valkey.

Each call has a time limit, and the number of connections is limited.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from outfeed.edge.scripts import Script
from outfeed.errors import ConfigError, EngineDown, EngineFull

CALL_SECS = 2.0
# The engine answers a wait for the next entry after BLOCK_SECS at most. The client gives up after WAIT_SECS.
BLOCK_SECS = 1.0
WAIT_SECS = 2.5
# Unbounded, five edges with 10,000 viewers opened 156 connections.
MAX_CONNECTIONS = 8
SENTINEL_PORT = 26379
HEAD = "{outfeed}:head"
EVENTS = "{outfeed}:events"
GRANTS = "{outfeed}:grants"
TICKET = "{outfeed}:ticket:"
EDGE = "{outfeed}:edge:"
# The library logs each failed attempt to find a master. `EngineDown` already reports it.
logging.getLogger("redis").setLevel(logging.CRITICAL)
T = TypeVar("T")


class Engine:
    """Calls one Redis or Valkey.

    Any thread may call any method. Each raises EngineDown if the engine cannot be reached or returns an error.

    At most MAX_CONNECTIONS calls run at once, and the others wait. `wait_for_entry` has a connection of its own.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._calls = _client(url, CALL_SECS, MAX_CONNECTIONS)
        self._waits = _client(url, WAIT_SECS, 1)
        self._turn = threading.BoundedSemaphore(MAX_CONNECTIONS)

    @property
    def address(self) -> str:
        """Address of the engine, without credentials.

        It has no query, because redis-py takes a password there, too.
        """
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def call(self, command: Callable[[Any], T]) -> T:
        """Run *command* with the client and return its result.

        Replies of the engine are bytes, numbers and lists of both.
        """
        if not self._turn.acquire(timeout=CALL_SECS):
            raise EngineDown(f"{MAX_CONNECTIONS} calls of the engine are running")
        try:
            with _translate_errors():
                return command(self._calls)
        finally:
            self._turn.release()

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[bytes | str | float]) -> Any:
        """Run *script* and return its reply.

        A restarted engine has no scripts. Then the script is loaded, and run again.
        """

        def attempt(client: redis.Redis) -> Any:
            run = client.evalsha_ro if script.is_read_only else client.evalsha
            try:
                return run(script.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                client.script_load(script.text)
                return run(script.digest, len(keys), *keys, *arguments)

        return self.call(attempt)

    def wait_for_entry(self, after: int) -> bool:
        """Wait until the stream has an entry above the seq *after*.

        The wait takes BLOCK_SECS at most. Returns whether the stream has such an entry.
        """
        with _translate_errors():
            return bool(self._waits.xread({EVENTS: f"{after}-0"}, count=1, block=int(BLOCK_SECS * 1000)))

    def close(self) -> None:
        """Close all connections."""
        self._calls.close()
        self._waits.close()


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except OutOfMemoryError as error:
        raise EngineFull(f"the engine has no memory left: {error}") from error
    except (RedisError, OSError) as error:
        raise EngineDown(f"the engine can't be used: {error or type(error).__name__}") from error


def _client(url: str, timeout: float, connections: int) -> redis.Redis:
    """Return a client that tries each call once, for *timeout* seconds.

    Raises ConfigError.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": CALL_SECS,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections,
        "protocol": 2,
    }
    try:
        if urlsplit(url).scheme == "sentinel":
            return _by_sentinel(url, options)
        return redis.Redis.from_pool(redis.ConnectionPool.from_url(url, **options))
    except ValueError as error:
        raise ConfigError(f"OUTFEED_ENGINE: {error}") from error


def _by_sentinel(url: str, options: dict[str, Any]) -> redis.Redis:
    """Return a client of the master that the sentinels name.

    It asks the sentinels for the master before each new connection.
    """
    credentials, _, hosts = urlsplit(url).netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service = urlsplit(url).path.strip("/")
    sentinels = [
        (host, int(port or SENTINEL_PORT)) for host, _, port in (each.partition(":") for each in hosts.split(","))
    ]
    own = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry", "protocol")}
    own |= {"socket_timeout": CALL_SECS / 4, "socket_connect_timeout": CALL_SECS / 4}
    found = Sentinel(sentinels, sentinel_kwargs=own, **options)  # type: ignore[no-untyped-call]
    master: redis.Redis = found.master_for(  # type: ignore[no-untyped-call]
        service, username=unquote(user) or None, password=unquote(password) or None
    )
    return master
