"""The client of the engine: bounded in time and in connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from outfeed.edge.engine import MAX_CONNECTIONS, Engine
from outfeed.errors import ConfigError, EngineDown
from tests.engines import RedisServer


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of an engine that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_no_call_waits_for_an_engine_that_does_not_answer(silent: str) -> None:
    """Without timeouts the library waits for ever, or for 15 minutes."""
    engine = Engine(silent)
    began = time.monotonic()
    calls = [lambda: engine.call(lambda client: client.ping()), lambda: engine.wait_for_entry(0)]
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(call) for call in calls]
    assert all(isinstance(each.exception(), EngineDown) for each in running)
    assert time.monotonic() - began < 6
    engine.close()


def test_many_callers_share_few_connections(redis_server: RedisServer) -> None:
    engine = Engine(redis_server.url)
    most = 0
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            engine.call(lambda client: client.hget("x", "y"))

    others = len(redis_server.client.client_list())
    with ThreadPoolExecutor(40) as threads:
        for _ in range(40):
            threads.submit(call)
        for _ in range(20):
            most = max(most, len(redis_server.client.client_list()) - others)
        stop.set()
    assert 1 < most <= MAX_CONNECTIONS
    engine.close()


def test_a_script_that_the_engine_forgot_is_loaded_again(engine: Engine, redis_server: RedisServer) -> None:
    from tests.edge.test_scripts import claim

    assert claim(engine, "me") == b"empty"
    redis_server.client.script_flush()
    assert claim(engine, "me") == b"empty"


def test_a_restarted_engine_is_found_again(engine: Engine, redis_server: RedisServer) -> None:
    assert engine.call(lambda client: client.ping())
    redis_server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with contextlib.suppress(EngineDown):
        engine.call(lambda client: client.ping())
    assert engine.call(lambda client: client.ping())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://user:secret@10.0.0.1:6379/2", "redis://10.0.0.1:6379/2"),
        ("sentinel://:secret@10.0.0.1:26379,10.0.0.2/feed", "sentinel://10.0.0.1:26379,10.0.0.2/feed"),
        ("redis://10.0.0.1:6379/2?username=user&password=secret", "redis://10.0.0.1:6379/2"),
        ("unix:///run/redis.sock?db=1&password=secret", "unix:///run/redis.sock"),
    ],
)
def test_an_address_shows_no_credentials(url: str, address: str) -> None:
    engine = Engine(url)
    assert engine.address == address
    engine.close()


def test_an_address_that_is_none_is_a_bad_setting() -> None:
    with pytest.raises(ConfigError, match="OUTFEED_ENGINE"):
        Engine("http://10.0.0.1")
