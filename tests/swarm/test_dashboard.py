"""The server-rendered dashboard, for viewers with many and few scopes."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from outfeed import clock
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http import compression
from outfeed.http.app import create_app
from outfeed.http.assets import VERSION
from outfeed.log.live import clock_of
from outfeed.principal import EVERYTHING, EventScope
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from outfeed.swarm.dashboard import axis_end, bids_text, count_text, draw, left_text
from outfeed.swarm.part import SwarmPart
from outfeed.swarm.store.activity import MINUTES, Activity
from tests.http.modules import paths_read_by
from tests.http.visitors import Visit, bearer, show_tokens_and_names, signed_in

BEGIN = datetime(2026, 1, 31, 11, 31, tzinfo=UTC)


@pytest.fixture
def visitors(database: Database) -> dict[str, Visit]:
    """Visitors of an app with an agent, its task, two auctions and a failure."""
    app = create_app(Settings(database=database.path))
    show_tokens_and_names(app)
    coordinator = app.extensions["outfeed"].part(SwarmPart).coordinator
    agent = coordinator.join("Forge")
    won, lost = coordinator.post("Write <the> docs"), coordinator.post("Dull work")
    coordinator.bid(won.id, agent.id, 50)
    with freeze_time(clock.now() + timedelta(seconds=coordinator.auction_secs)):
        for task_id in (won.id, lost.id):
            assert coordinator.close_auction(task_id)
    coordinator.auction_secs = 3630
    coordinator.bid(coordinator.post("Label tickets").id, agent.id, 1500)
    with freeze_time(clock.now() + timedelta(seconds=1)):  # ends after the one before
        coordinator.post("Check links")
    cast = {role: signed_in(app, database, role) for role in ("viewer", "producer", "operator")}
    secret = account.create_token(database, "tasks", ["read"], types=["task.*"])
    return cast | {"tasks": bearer(app, secret)}


def panel(page: str, name: str) -> str:
    """Return a panel's rows as text, without markup."""
    section = re.search(rf'data-panel="{name}".*?<ul>(.*?)</ul>', page, re.DOTALL)
    assert section is not None
    return " ".join(re.sub(r"<[^>]+>", " ", section[1]).split())


def test_the_page_shows_the_swarm_without_javascript(visitors: dict[str, Visit]) -> None:
    page = visitors["operator"]("GET", "/swarm/live").text
    counts = re.findall(r'data-state="(\w+)"><dt>\1</dt><dd>([\d,]+)</dd>', page)
    assert counts == [("bidding", "2"), ("assigned", "1"), ("started", "0"), ("completed", "0"), ("failed", "1")]
    assert re.fullmatch(r"Forge busy \d+ s ago Write &lt;the&gt; docs", panel(page, "agents"))
    assert panel(page, "auctions") == (
        "Label tickets 60 min 1 bid, lowest 1,500 sats Check links 60 min no bids yet"
    )  # fmt: skip
    assert re.fullmatch(r"Write &lt;the&gt; docs [\d:]{8} assigned · Forge · 50 sats", panel(page, "work"))
    assert re.fullmatch(r"Dull work [\d:]{8} failed · no bids", panel(page, "ended"))


def test_a_task_that_ended_on_another_day_has_its_date(visitors: dict[str, Visit]) -> None:
    with freeze_time(clock.now() + timedelta(days=9)):
        page = visitors["operator"]("GET", "/swarm/live").text
    assert re.fullmatch(r"Dull work \d+ \w{3} (\d{4} )?[\d:]{8} failed · no bids", panel(page, "ended"))


def test_a_viewer_without_write_scope_gets_no_form(visitors: dict[str, Visit]) -> None:
    forms = {name: 'class="panel post"' in visit("GET", "/swarm/live").text for name, visit in visitors.items()}
    assert forms == {"viewer": False, "producer": True, "operator": True, "tasks": False}


def test_a_viewer_of_some_types_gets_only_their_chart(visitors: dict[str, Visit]) -> None:
    page = visitors["tasks"]("GET", "/swarm/live").text
    assert "data-panel" not in page
    assert 'class="panel counts"' not in page
    totals = dict(re.findall(r'<label .*?data-kind="(\w+)".*?"count">(\d+)<', page))
    assert totals.keys() == {"task"}
    assert int(totals["task"]) > 0


def test_only_operators_have_the_status_in_their_menu(visitors: dict[str, Visit]) -> None:
    menus = {name: 'href="/status"' in visit("GET", "/swarm/live").text for name, visit in visitors.items()}
    assert menus == {"viewer": False, "producer": False, "operator": True, "tasks": False}


def test_pages_are_compressed_for_clients_that_accept_it(visitors: dict[str, Visit]) -> None:
    log_event("system.info", "s", data={"message": "x" * 200})
    packed = {"Accept-Encoding": "gzip"}
    for path in ("/swarm/live", "/static/event-feed/event-feed.js"):
        answer = visitors["operator"]("GET", path, packed)
        plain = visitors["operator"]("GET", path)
        assert (answer.headers["Content-Encoding"], plain.headers.get("Content-Encoding")) == ("gzip", None)
        assert len(answer.data) < len(plain.data) / 2
        assert "Accept-Encoding" in answer.headers["Vary"]
        assert "Accept-Encoding" in plain.headers["Vary"]
    etag = answer.headers["ETag"]
    assert etag.startswith("W/")
    assert visitors["operator"]("GET", path, packed | {"If-None-Match": etag}).status_code == 304
    assert "Content-Encoding" not in visitors["operator"]("GET", "/api/events", packed).headers


@pytest.mark.parametrize("path", ["/swarm/live", "/swarm/events", "/swarm/events?id=an-id", "/status"])
def test_a_page_preloads_every_module(visitors: dict[str, Visit], path: str) -> None:
    log_event("system.info", "s", id="an-id")
    page = visitors["operator"]("GET", path).text
    links = re.findall(r'<link rel="modulepreload" href="([^"]+)"', page)
    scripts = re.findall(r'<script type="module" src="([^"]+)"', page)
    read = paths_read_by(visitors["operator"], *scripts)
    assert {*links, *scripts} == {path for path in read if path.endswith(".js")}
    assert len(links) > len(scripts) > 0


def test_only_addresses_with_a_content_hash_are_immutable(visitors: dict[str, Visit]) -> None:
    page = visitors["viewer"]("GET", "/swarm/live").text
    read = paths_read_by(visitors["viewer"], *re.findall('(?:src|href)="(/static/[^"]+)"', page))
    assert {"outfeed.css", "favicon.svg", "event-types.json", "swarm/patch.js"} < {
        path.removeprefix(f"/static/v-{VERSION}/") for path in read
    }
    for path in read:
        answer = visitors["viewer"]("GET", path)
        plain, old = (
            visitors["viewer"]("GET", path.replace(f"v-{VERSION}/", other)) for other in ("", "v-0123456789abcdef/")
        )
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Cookie" not in answer.headers["Vary"]
        assert answer.data == plain.data == old.data
        assert plain.headers["Cache-Control"] == old.headers["Cache-Control"] == "no-cache"
        assert visitors["viewer"]("GET", path, {"If-None-Match": plain.headers["ETag"]}).status_code == 304


def test_static_files_are_compressed_once(visitors: dict[str, Visit], monkeypatch: pytest.MonkeyPatch) -> None:
    static = Path(compression.__file__).parents[1] / "static"
    paths = [f"/static/{file.relative_to(static)}" for file in static.rglob("*") if file.is_file()]
    compress, compressed = gzip.compress, []

    def counted(data: bytes, *level: int, **options: int) -> bytes:
        compressed.append(data)
        return compress(data, *level, **options)

    for path in paths:
        visitors["operator"]("GET", path, {"Accept-Encoding": "gzip"})
    monkeypatch.setattr(gzip, "compress", counted)
    for path in paths:
        visitors["operator"]("GET", path, {"Accept-Encoding": "gzip"})
    assert compressed == []


# --- words and numbers ------------------------------------------------------------------------------------------------


def test_an_invalid_time_of_a_raw_writer_is_shown_unchanged() -> None:
    for text in ("yesterday", "", "2026-13-99T00:00:00Z", "x" * 150):
        assert clock_of(text) == text


@pytest.mark.parametrize(
    ("secs", "text"), [(-3, "closing"), (0, "closing"), (0.1, "1 s"), (15, "15 s"), (119.5, "2 min")]
)
def test_the_remaining_time_is_rounded_up_to_a_second(secs: float, text: str) -> None:
    assert left_text(secs) == text


def test_the_number_of_bids_is_written_as_text() -> None:
    assert [bids_text(0, None), bids_text(1, 5), bids_text(2, 1500)] == [
        "no bids yet", "1 bid, lowest 5 sats", "2 bids, lowest 1,500 sats",
    ]  # fmt: skip


def test_a_count_above_the_limit_has_a_plus_sign() -> None:
    assert [count_text(each) for each in (0, 10_000, 10_001)] == ["0", "10,000", "10,000+"]


def activity(minutes: dict[int, dict[str, int]]) -> Activity:
    return Activity("epoch", 9, BEGIN, [Counter(minutes.get(index, {})) for index in range(MINUTES)])


@pytest.mark.parametrize(("peak", "end"), [(0, 10), (10, 10), (11, 20), (21, 50), (51, 100), (180, 200), (1001, 2000)])
def test_the_axis_ends_at_a_round_number(peak: int, end: int) -> None:
    assert axis_end(peak) == end


def test_kinds_are_stacked_in_one_order() -> None:
    chart = draw(activity({0: {"agent.joined": 5, "task.failed": 2, "task.created": 3}, 59: {"x.y": 1}}), EVERYTHING)
    assert [band.kind for band in chart.bands] == ["task", "agent", "x"]
    assert {band.kind: band.path for band in chart.bands if band.path} == {
        "task": "M0 50.00h8v50.00h-8z",
        "agent": "M0 0.00h8v50.00h-8z",
        "x": "M590 90.00h8v10.00h-8z",
    }
    assert (chart.top, chart.peak, chart.total) == (10, 10, 11)


def test_the_table_has_the_chart_data_newest_first() -> None:
    rows = list(
        draw(activity({0: {"task.created": 1}, 4: {"task.created": 2}, 5: {"tool.called": 4}}), EVERYTHING).rows
    )
    assert len(rows) == 12
    assert rows[-1] == (BEGIN, [3, 0])
    assert rows[-2] == (BEGIN + timedelta(minutes=5), [0, 4])


def test_kinds_of_the_chart_are_those_that_occur_and_rare_ones_count_as_other() -> None:
    own = {f"kind_{number:02}.x": 100 - number for number in range(15)}
    chart = draw(activity({0: {**own, "system.info": 1, "Odd one": 7}, 1: {"kind_14.x": 1}}), EVERYTHING)
    assert [band.kind for band in chart.bands] == ["system", *(f"kind_{number:02}" for number in range(12)), "other"]
    assert chart.bands[-1].total == 88 + 87 + 86 + 7 + 1
    assert chart.total == sum(own.values()) + 1 + 7 + 1


def test_a_chart_without_events_has_no_kinds() -> None:
    chart = draw(activity({}), EVERYTHING)
    assert (chart.bands, chart.top, chart.total) == ([], 10, 0)


def test_types_without_permission_are_not_counted() -> None:
    found = activity({0: {"access.signed_in": 1, "system.pruned": 1, "system.info": 1, "task.created": 1}})
    assert draw(found, EventScope()).total == 2
    assert draw(found, EventScope(types=("task.*",))).total == 1
