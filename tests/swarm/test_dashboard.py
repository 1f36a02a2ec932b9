"""The server-rendered dashboard, for viewers with many and few scopes."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta
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
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from outfeed.swarm.dashboard import bids_text, count_text, left_text
from outfeed.swarm.part import SwarmPart
from tests.http.modules import paths_read_by
from tests.http.visitors import Visit, bearer, show_tokens_and_names, signed_in


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
    counts = re.findall(
        r'<div data-state="(\w+)"><dt>([\w ]+)</dt><dd><a href="/swarm/tasks\?state=\1">([\d,]+)</a> '
        r'<span class="trend" title="(\d+) in the last hour">', page,
    )  # fmt: skip
    assert [each[:3] for each in counts] == [
        ("bidding", "Open for bids", "2"), ("assigned", "Assigned", "1"), ("started", "In progress", "0"),
        ("completed", "Completed", "0"), ("failed", "Failed", "1"),
    ]  # fmt: skip
    # The number is an element of its own: an update of the page changes no text beside elements.
    assert re.search(r'<span>\+\d+</span> <span class="wide">last hour</span>', page)
    assert int(counts[0][3]) >= 3  # the last task was posted a second later, maybe in the next minute
    assert re.fullmatch(r"Forge busy \d+ s ago Write &lt;the&gt; docs", panel(page, "agents"))
    links = re.findall(r'<a href="([^"]+)" aria-label="See all: ([\w ]+)"', page)
    assert links == [
        ("/swarm/tasks?state=bidding", "Open auctions"), ("/swarm/agents", "Agents"),
        ("/swarm/tasks?state=started", "In progress"), ("/swarm/tasks?state=completed", "Finished"),
    ]  # fmt: skip
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
    forms = {name: 'aria-label="Post a task" >' in visit("GET", "/swarm/live").text for name, visit in visitors.items()}
    assert forms == {"viewer": False, "producer": True, "operator": True, "tasks": False}


def test_a_viewer_of_some_types_gets_only_their_figures(visitors: dict[str, Visit]) -> None:
    page = visitors["tasks"]("GET", "/swarm/live").text
    assert re.findall(r'data-panel="(\w+)"', page) == ["types", "sources"]
    assert 'data-state="' not in page
    totals = dict(re.findall(r'<li [^>]*data-kind="(\w+)".*?"count">(\d+)<', page))
    assert totals.keys() == {"task"}
    assert int(totals["task"]) > 0


def test_without_an_agent_or_a_task_the_page_follows_the_events(database: Database) -> None:
    app = create_app(Settings(database=database.path))
    visit = signed_in(app, database, "operator")
    empty = visit("GET", "/swarm/live").text
    assert not re.findall(r'data-(?:panel|figure|state)="', empty)
    assert 'aria-label="Post a task" hidden>' in empty

    for event_type in ("shop.sold", "shop.sold", "card.failed"):
        log_event(event_type, "till")
    page = visit("GET", "/swarm/live").text
    assert re.findall(r'data-figure="(\w+)"', page) == ["events", "errors", "warnings", "types", "sources"]
    assert panel(page, "types") == "shop.sold 2 card.failed error 1"
    assert panel(page, "sources") == "till error 3"
    assert re.search(r'<dt>Errors</dt><dd><a href="/swarm/events\?type=card.failed&amp;from=[\dT:-]{16}">1</a>', page)

    app.extensions["outfeed"].part(SwarmPart).coordinator.join("Forge")
    page = visit("GET", "/swarm/live").text
    assert re.findall(r'data-panel="(\w+)"', page) == ["auctions", "agents", "work", "ended"]
    assert 'aria-label="Post a task" >' in page


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
    assert {"outfeed.css", "favicon.svg", "event-types.json", "live/patch.js"} < {
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


def test_the_live_page_loads_at_most_120_kilobytes(visitors: dict[str, Visit]) -> None:
    visit = visitors["operator"]
    page = visit("GET", "/swarm/live").text
    named = [path for path in re.findall('(?:src|href)="(/static/[^"]+)"', page) if not path.endswith(".png")]
    read = {"/swarm/live", *paths_read_by(visit, *named)}
    sizes = {path: len(visit("GET", path, {"Accept-Encoding": "gzip"}).data) for path in read}
    assert sum(sizes.values()) <= 120_000, sizes


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
