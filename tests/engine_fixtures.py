"""Fixtures of engines: one `redis-server` for all tests of a worker.

It is emptied for each test. An origin without threads fills it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outfeed.edge.engine import Engine
from tests.edge.origin_in_process import OriginInProcess
from tests.engines import RedisServer


@pytest.fixture(scope="session")
def standing_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture
def redis_server(standing_engine: RedisServer) -> RedisServer:
    """A running engine that holds nothing."""
    standing_engine.client.flushall()
    return standing_engine


@pytest.fixture
def engine(redis_server: RedisServer) -> Iterator[Engine]:
    """A client of it."""
    found = Engine(redis_server.url)
    yield found
    found.close()


@pytest.fixture
def origin_in_process(engine: Engine, tmp_path: Path) -> Iterator[OriginInProcess]:
    """An origin whose uplink does what a test tells it."""
    found = OriginInProcess(engine, tmp_path / "origin.db")
    yield found
    found.close()
