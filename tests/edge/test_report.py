"""Reports of edges, as the origin lists them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from outfeed.config import Settings
from outfeed.edge import origin
from outfeed.edge.engine import EDGE
from outfeed.edge.report import LIFETIME_SECS, EdgeReport, Reporter, list_edges
from outfeed.edge.web import create_edge
from outfeed.store.serving import version
from tests.database_file import write_events
from tests.edge.origin_in_process import OriginInProcess
from tests.engines import RedisServer

FIELDS = {"name": "host", "address": "0.0.0.0:8000", "workers": 2, "clients": 7, "position": 3, "version": "1"}


def put(redis_server: RedisServer, nonce: str, age: int, **changed: object) -> None:
    """Write the report of an edge, *age* seconds ago."""
    redis_server.client.set(EDGE + nonce, json.dumps({**FIELDS, **changed}), ex=LIFETIME_SECS - age)


@pytest.fixture
def reporter(origin_in_process: OriginInProcess) -> Iterator[Reporter]:
    write_events(origin_in_process.path, 5)
    origin_in_process.bring_up()
    values = {"engine": origin_in_process.engine.url, "origin_url": "https://feed.example", "secret_key": "k" * 16}
    services = create_edge(Settings(**values)).extensions["outfeed"]  # type: ignore[arg-type]
    services.relay.poll()
    yield services.part(Reporter)
    services.engine.close()


def test_a_report_has_the_clients_and_the_position_and_its_age(
    reporter: Reporter, origin_in_process: OriginInProcess
) -> None:
    reporter.write()
    [found] = list_edges(origin_in_process.engine)
    assert (found.workers, found.clients, found.position, found.version) == (1, 0, 5, version())
    assert 0 <= found.age < 5
    assert not found.is_silent


def test_an_edge_that_stops_withdraws_its_report(reporter: Reporter, origin_in_process: OriginInProcess) -> None:
    reporter.write()
    reporter.close()
    assert list_edges(origin_in_process.engine) == []


def test_a_silent_edge_is_listed_and_has_no_metrics(
    origin_in_process: OriginInProcess, redis_server: RedisServer
) -> None:
    origin_in_process.bring_up()
    put(redis_server, "a", age=2)
    put(redis_server, "b", age=90, name="other")
    state = origin.state_of(origin_in_process.services)
    assert [(each.name, each.is_silent) for each in state.edges] == [("host", False), ("other", True)]
    samples = origin.samples_of(origin_in_process.services)
    assert samples["edge_clients"] == [(["host 0.0.0.0:8000"], 7)]
    assert [labels for labels, _ in samples["edge_lag"]] == [["host 0.0.0.0:8000"]]


def test_an_edge_that_was_restarted_is_listed_once(
    origin_in_process: OriginInProcess, redis_server: RedisServer
) -> None:
    put(redis_server, "before", age=90, clients=1)
    put(redis_server, "after", age=1, clients=2)
    [found] = list_edges(origin_in_process.engine)
    assert (found.clients, found.is_silent) == (2, False)


def test_a_report_that_cannot_be_read_is_ignored(origin_in_process: OriginInProcess, redis_server: RedisServer) -> None:
    redis_server.client.set(f"{EDGE}x", '{"name": "of another version"}')
    put(redis_server, "y", age=1)
    assert [type(each) for each in list_edges(origin_in_process.engine)] == [EdgeReport]
