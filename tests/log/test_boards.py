"""Boards: viewers with the same permissions share a rendering."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from freezegun import freeze_time

from outfeed import clock
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.log import boards
from outfeed.log.store.activity import RANGES
from outfeed.store import audit
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from outfeed.swarm.part import SwarmPart
from tests.http.visitors import Visit, bearer
from tests.waits import PATIENCE_SECS


@pytest.fixture
def app(database: Database) -> Iterator[Flask]:
    yield create_app(Settings(database=database.path))
    database.close()


@pytest.fixture
def viewer(app: Flask, database: Database) -> Visit:
    return bearer(app, account.create_token(database, "viewer", ["read"]))


@pytest.fixture
def rendered(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[boards.Scope]:
    """The scopes of all renderings so far."""
    found: list[boards.Scope] = []
    for shared in app.extensions["outfeed_boards"].values():

        def render(scope: boards.Scope, content: boards.BoardContent, original: Any = shared.render) -> str:
            found.append(scope)
            return str(original(scope, content))

        monkeypatch.setattr(shared, "render", render)
    return found


def seq(visit: Visit) -> int:
    found = re.search(r'data-seq="(\d+)"', visit("GET", "/swarm/board").text)
    assert found is not None
    return int(found[1])


def test_viewers_share_a_rendering_until_an_event(
    app: Flask, database: Database, viewer: Visit, rendered: list[boards.Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "MIN_AGE_SECS", 0)
    monkeypatch.setattr(boards, "MAX_AGE_SECS", 3600)
    monkeypatch.setattr(boards, "RENDERING_SHARE", 0)
    another = bearer(app, account.create_token(database, "another", ["read", "write"]))
    log_event("a.b", "tests")
    with freeze_time(clock.now()):  # no minute begins
        pages = [visit("GET", "/swarm/board").data for visit in (viewer, another) * 10]
        assert len(set(pages)) == len(rendered) == 1
        assert viewer("GET", "/swarm/live").status_code == 200
        assert len(rendered) == 1
        head = log_event("a.b", "tests") and seq(viewer)
        assert (head, len(rendered)) == (2, 2)


def test_a_rendering_is_shared_briefly_while_events_flow(
    viewer: Visit, rendered: list[boards.Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "MIN_AGE_SECS", 3600)
    with freeze_time(clock.now()) as frozen:
        for _ in range(10):
            log_event("a.b", "tests")
            assert seq(viewer) == 1  # the rendering of before the event
        assert len(rendered) == 1
        assert 'data-seq="10"' in viewer("GET", "/swarm/live").text  # the page is up to date: it may follow a form
        frozen.tick(timedelta(minutes=1))
        seq(viewer)
        assert len(rendered) == 3


def test_only_a_request_for_a_page_waits_for_a_rendering(database: Database) -> None:
    is_rendering, may_end = threading.Event(), threading.Event()
    may_end.set()

    def render(scope: boards.Scope, content: boards.BoardContent) -> str:
        is_rendering.set()
        assert may_end.wait(PATIENCE_SECS)
        return f"up to {content.activity.seq}"

    shared = boards.Boards(database, render, lambda: 0)
    scopes = [boards.Scope(types, frozenset(), "") for types in ((), ("task.*",))]
    with freeze_time(clock.now()) as frozen, ThreadPoolExecutor(1) as pool:
        before = shared.recent(scopes[0])
        assert before is not None
        log_event("a.b", "tests")
        frozen.tick(timedelta(minutes=1))  # the kept rendering is out of date
        is_rendering.clear()
        may_end.clear()
        rendering = pool.submit(shared.current, scopes[0])
        assert is_rendering.wait(PATIENCE_SECS)
        assert shared.recent(scopes[0]) is before
        assert shared.recent(scopes[1]) is None
        may_end.set()
        assert rendering.result().html == b"up to 1"
        found = shared.recent(scopes[1])
        assert found is not None
        assert found.html == b"up to 1"


def test_a_page_with_the_current_board_gets_304(viewer: Visit) -> None:
    log_event("a.b", "tests")
    answer = viewer("GET", "/swarm/board")
    again = viewer("GET", "/swarm/board", {"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert clock.parsed(again.headers["Outfeed-Now"]) is not None
    log_event("a.b", "tests")
    assert "no-store" in answer.headers["Cache-Control"]


def test_a_rendering_is_compressed_once_for_all(viewer: Visit) -> None:
    packed, plain = viewer("GET", "/swarm/board", {"Accept-Encoding": "gzip"}), viewer("GET", "/swarm/board")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert "Content-Encoding" not in plain.headers


def test_the_header_spreads_the_requests_of_many_viewers(database: Database, viewer: Visit) -> None:
    busy = boards.Boards(database, lambda *_: "a board", lambda: 1000)
    everything = boards.Scope((), frozenset(), "")
    assert busy.current(everything).spread_secs == 1000 / boards.REQUESTS_PER_SECOND
    assert viewer("GET", "/swarm/board").headers["Outfeed-Spread"] == "0.000"
    assert 'data-spread="0.0"' in viewer("GET", "/swarm/live").text


def test_no_viewer_gets_the_board_of_viewers_with_more_permissions(
    app: Flask, database: Database, viewer: Visit
) -> None:
    for event_type in ("task.created", "tool.called"):
        log_event(event_type, "tests")
    with database.transaction() as connection:
        audit.record(connection, "access.signed_in", "tests")
    limited = {
        types: bearer(app, account.create_token(database, types, ["read"], types=[types]))
        for types in ("task.*", "tool.*")
    }

    def totals(visit: Visit) -> dict[str, int]:
        page = visit("GET", "/swarm/board").text
        return {kind: int(count) for kind, count in re.findall(r'<li [^>]*data-kind="(\w+)".*?"count">(\d+)<', page)}

    app.extensions["outfeed"].part(SwarmPart).coordinator.join("Forge")
    for _ in range(2):
        assert totals(viewer) == {"task": 1, "agent": 1, "tool": 1}
        assert totals(limited["task.*"]) == {"task": 1}
        assert totals(limited["tool.*"]) == {"tool": 1}
        assert 'data-panel="agents"' in viewer("GET", "/swarm/board").text
        assert not any('data-panel="agents"' in visit("GET", "/swarm/board").text for visit in limited.values())


def test_the_address_of_one_host_is_not_shown_at_another(app: Flask, viewer: Visit) -> None:
    app.extensions["outfeed"].part(SwarmPart).coordinator.post("Write docs")
    for host in ("one.example", "two.example"):
        page = viewer("GET", "/swarm/board", {"Host": host}).text
        assert re.findall(r"http://[^/]+/api/swarm/agents", page) == [f"http://{host}/api/swarm/agents"]


def test_kinds_that_are_not_chosen_are_counted_but_not_drawn(viewer: Visit) -> None:
    log_event("task.created", "tests")
    log_event("tool.called", "tests")

    def drawn(query: str) -> set[str]:
        page = viewer("GET", f"/swarm/board{query}").text
        assert len(re.findall('class="count">1<', page)) >= 2
        return set(re.findall(r'data-kind="(\w+)" data-colour="\w+" data-counts="[\d,]+" d="M', page))

    assert drawn("?kind=task,nonsense") == {"task"}
    assert drawn("") == drawn("?range=15m") == {"task", "tool"}


@pytest.mark.parametrize("name", list(RANGES))
def test_each_range_has_a_board_and_an_unknown_one_is_the_hour(viewer: Visit, name: str) -> None:
    log_event("shop.sold", "tests")
    page = viewer("GET", f"/swarm/board?range={name}").text
    assert f'data-range="{name}" aria-current' in page
    assert RANGES[name].title in page
    assert 'data-range="1h" aria-current' in viewer("GET", "/swarm/board?range=never").text


def test_the_scale_of_the_chart_is_a_link_that_keeps_the_range(viewer: Visit) -> None:
    log_event("shop.sold", "tests")

    def board(query: str) -> str:
        return viewer("GET", f"/swarm/board{query}").text

    linear, root = board("?range=6h"), board("?range=6h&scale=root")
    assert 'href="?range=6h&amp;scale=root" data-scale="root"  title="Square-root scale' in linear
    assert 'href="?range=6h" data-scale="" aria-current="true" title="Linear scale"' in root
    assert 'href="?range=24h" data-range' in linear
    assert 'href="?range=24h&amp;scale=root" data-range' in root


def test_the_number_of_kept_renderings_is_limited(
    app: Flask, viewer: Visit, rendered: list[boards.Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "MAX_KEPT", 2)
    monkeypatch.setattr(boards, "MAX_AGE_SECS", 3600)
    with freeze_time(clock.now()):
        for kinds in ("", "tool", "bid", "", "bid"):
            viewer("GET", f"/swarm/board?kind={kinds}")
    assert [sorted(scope.shown) for scope in rendered] == [[], ["tool"], ["bid"], []]


def test_the_page_without_the_swarm_shows_types_and_sources(app: Flask, viewer: Visit) -> None:
    del app.jinja_env.globals["task_form"]
    del app.extensions["live_panels"]
    del app.extensions["story_heads"]
    log_event("task.created", "tests", "task-1")
    page = viewer("GET", "/swarm/live").text
    assert re.findall(r'data-panel="(\w+)"', page) == ["types", "sources"]
    assert "post.js" not in page
    assert viewer("GET", "/swarm/tasks/task-1").status_code == 200
    assert viewer("GET", "/swarm/tasks/unknown").status_code == 404
