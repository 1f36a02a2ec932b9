"""Findings of `outfeed doctor` in the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outfeed.edge import examination, report
from outfeed.edge.engine import EDGE, EVENTS, HEAD
from outfeed.edge.examination import examine
from outfeed.feature import NOTE, PROBLEM
from outfeed.features import EdgeFeature
from outfeed.store.serving import version
from tests.database_file import write_events
from tests.edge.origin_in_process import OriginInProcess
from tests.engines import RedisServer


@pytest.fixture
def filled(origin_in_process: OriginInProcess) -> OriginInProcess:
    write_events(origin_in_process.path, 10)
    origin_in_process.bring_up()
    return origin_in_process


def findings(found: OriginInProcess, **changed: Any) -> list[tuple[str, str]]:
    settings = found.settings.model_copy(update=changed)
    return [(each.level, each.what) for each in examine(found.services.database, settings)]


def test_an_engine_that_is_right_has_no_finding(filled: OriginInProcess) -> None:
    assert findings(filled) == []


def test_the_rule_is_one_of_the_doctors_with_an_engine_only(filled: OriginInProcess) -> None:
    check, database = EdgeFeature().check_health, filled.services.database
    assert list(check(database, filled.settings)) == ["engine"]
    assert check(database, filled.settings.model_copy(update={"engine": None})) == {}


def test_an_engine_that_does_not_answer_is_a_problem_without_the_password(filled: OriginInProcess) -> None:
    settings = type(filled.settings)(database=filled.path, engine="redis://:secret@127.0.0.1:1/0")
    [found] = examine(filled.services.database, settings)
    assert found.level == PROBLEM
    assert found.what.startswith("redis://127.0.0.1:1/0: the engine can't be used")
    assert "secret" not in str(found)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_policy_that_evicts_is_a_problem(filled: OriginInProcess, redis_server: RedisServer, policy: str) -> None:
    redis_server.client.config_set("maxmemory-policy", policy)
    try:
        assert findings(filled) == [(PROBLEM, f"the engine's maxmemory-policy is {policy}")]
    finally:
        redis_server.client.config_set("maxmemory-policy", "noeviction")


def test_too_little_room_is_a_problem(filled: OriginInProcess, redis_server: RedisServer) -> None:
    redis_server.client.config_set("maxmemory", str(64 * 2**20))
    try:
        [(level, what)] = findings(filled)
        assert level == PROBLEM
        assert what.endswith("MiB of events and OUTFEED_ENGINE_BYTES is 256 MiB")
        assert findings(filled, engine_bytes=32 * 2**20) == []
    finally:
        redis_server.client.config_set("maxmemory", "0")


def test_an_older_version_is_a_problem(
    filled: OriginInProcess, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = redis_server.client.info("server")
    is_valkey = "valkey_version" in found
    monkeypatch.setattr(examination, "MIN_VALKEY" if is_valkey else "MIN_REDIS", (99, 0))
    name, shown = ("Valkey", found["valkey_version"]) if is_valkey else ("Redis", found["redis_version"])
    assert findings(filled) == [(PROBLEM, f"the engine is {name} {shown}")]


def test_an_engine_without_events_is_a_note(filled: OriginInProcess, redis_server: RedisServer) -> None:
    redis_server.client.delete(EVENTS)
    assert findings(filled) == [(NOTE, "the engine holds no events")]


def test_an_engine_that_is_behind_is_a_note(filled: OriginInProcess) -> None:
    write_events(filled.path, 5)
    assert findings(filled) == [(NOTE, "the engine is 5 seqs behind")]


def test_an_uplink_that_is_silent_is_a_problem(filled: OriginInProcess, redis_server: RedisServer) -> None:
    redis_server.client.hincrby(HEAD, "appended_at", -60_000)
    assert findings(filled) == [(PROBLEM, "the uplink last wrote to the engine 60 s ago")]


def test_an_edge_of_another_version_or_without_a_report_is_a_note(
    filled: OriginInProcess, redis_server: RedisServer
) -> None:
    fields = {"name": "host", "address": "0.0.0.0:8000", "workers": 1, "clients": 0, "position": 10}
    edges = {"right": version(), "silent": version(), "old": "0.1"}
    for number, (name, own) in enumerate(edges.items()):
        text = json.dumps({**fields, "name": name, "version": own})
        left = report.LIFETIME_SECS - (60 if name == "silent" else 0)
        redis_server.client.set(f"{EDGE}{number}", text, ex=left)
    assert findings(filled) == [
        (NOTE, f"the edge old 0.0.0.0:8000 runs outfeed 0.1, and this is {version()}"),
        (NOTE, "the edge silent 0.0.0.0:8000 last reported 60 s ago"),
    ]
