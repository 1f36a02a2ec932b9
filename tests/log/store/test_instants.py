"""Instants: each readable timestamp counts as its time in every reader.

The readers are filters, summary, chart, search, prune and index.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from freezegun import freeze_time

import outfeed
from outfeed import clock
from outfeed.config import settings
from outfeed.errors import EventConflict
from outfeed.log.store import indexer, log_page, reading, search, timed
from outfeed.log.store.activity import HOUR as LAST_HOUR
from outfeed.log.store.activity import ActivityLog
from outfeed.log.store.indexer import Indexer
from outfeed.log.store.log_filter import LogFilter
from outfeed.principal import EVERYTHING
from outfeed.store import database as db
from outfeed.store import instants
from outfeed.store.database import Database
from outfeed.upkeep import retention
from outfeed.upkeep.policy import Policy

NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def in_zone(hours: int) -> Callable[[datetime], str]:
    return lambda moment: moment.astimezone(timezone(hours * HOUR)).isoformat()


# The forms that a raw writer may use for a whole second.
FORMS: dict[str, Callable[[datetime], str]] = {
    "ours": clock.isoformat,
    "sqlite's datetime()": lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}",
    "no zone": lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}",
    "no seconds": lambda moment: f"{moment:%Y-%m-%dT%H:%M}",
    "no colons": lambda moment: f"{moment:%Y-%m-%dT%H%M%S}Z",
    "space and Z": lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}Z",
    "small letters": lambda moment: f"{moment:%Y-%m-%dt%H:%M:%S}z",
    "small z": lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.000z",
    "a long fraction": lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.000000000001Z",
    "a comma": lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S},000Z",
    "python": lambda moment: moment.isoformat(timespec="microseconds"),
    "far east": in_zone(14),
    "far west": in_zone(-14),
    "with an offset of nearly a day": lambda moment: moment.astimezone(timezone(23 * HOUR + 59 * MINUTE)).isoformat(),
    "with a space and an offset": lambda moment: in_zone(-5)(moment).replace("T", " "),
    "an offset without a colon": lambda moment: in_zone(2)(moment)[:-3] + "00",
    "compact": lambda moment: f"{moment:%Y%m%dT%H%M%S}Z",
    "compact, of another day": lambda moment: f"{moment.astimezone(timezone(14 * HOUR)):%Y%m%dT%H%M%S}+14",
    "a week": lambda moment: f"{moment:%G-W%V-%uT%H:%M:%S}Z",
}
UNREADABLE = (
    "now", "", "1769860800", "2026-02-30T12:25:00.000Z", "2026-01-31T24:25:00.000Z", "2026-01-31T12:2x:00.000Z",
    "12:25", "20260131", b"2026-01-31T12:25:00.000Z", b"\xff2026", "31.01.2026",
)  # fmt: skip


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection
    db.at(search.path_of(database.path)).close()


@pytest.fixture(params=["indexed", "not indexed", "without any index"])
def index(request: pytest.FixtureRequest, database: Database, raw: sqlite3.Connection) -> Callable[[], None]:
    """Return a function that prepares the index of the test's variant.

    The variants are the search index, the index on the text, and none.
    """

    def make() -> None:
        if request.param == "indexed":
            Indexer(database, pause_factor=0).run()
        if request.param == "without any index":
            raw.execute("DROP INDEX event_log_timestamp")

    return make


def write(raw: sqlite3.Connection, texts: dict[str, object]) -> None:
    raw.executemany(
        "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', ?)", list(texts.items())
    )


def found_ids(since: str | None, until: str | None, text: str | None = None) -> set[str]:
    filter_ = LogFilter(EVERYTHING, since=since, until=until, text=text)
    return {event.id for event in log_page.iterate_events(db.default(), filter_)}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@freeze_time(NOW)
def test_a_timestamp_text_counts_as_its_instant_everywhere(
    database: Database, raw: sqlite3.Connection, index: Callable[[], None], form: Callable[[datetime], str]
) -> None:
    ages = {"future": -MINUTE, "new": 5 * MINUTE, "old": 65 * MINUTE, "older": 31 * HOUR}
    assert clock.parsed(form(NOW)) == NOW
    write(raw, {name: form(NOW - age) for name, age in ages.items()})
    index()
    hour_ago, now = clock.isoformat(NOW - HOUR), clock.isoformat(NOW)
    assert found_ids(hour_ago, None) == {"future", "new"}
    assert found_ids(None, hour_ago) == {"old", "older"}
    assert found_ids(hour_ago, now) == {"new"}
    assert found_ids(hour_ago, now, text="s") == {"new"}
    assert found_ids(clock.isoformat(NOW - 5 * MINUTE), clock.isoformat(NOW)) == {"new"}
    assert found_ids(clock.isoformat(NOW - HOUR), clock.isoformat(NOW - 5 * MINUTE)) == set()
    assert reading.get_event_summary(60) == {"a.b": 2}
    assert [event.id for event in outfeed.get_recent_events(60)] == ["new", "future"]
    old = retention.Prune(database, Policy.older_than(1, settings()), "tests").old_events()
    assert [id_ for keys in old for _, id_ in keys] == [b"older"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@freeze_time(NOW)
def test_the_chart_counts_a_text_in_its_minute(
    database: Database, raw: sqlite3.Connection, form: Callable[[datetime], str]
) -> None:
    log = ActivityLog()
    for ages in ((0, 5, 59, 60, 600, 1440), (10, 61)):  # counted at once, and added later
        write(raw, {str(minute): form(NOW - minute * MINUTE) for minute in ages})
        with database.snapshot() as connection:
            minutes = log.read(connection).counts
    assert [LAST_HOUR.bars - 1 - place for place, counts in enumerate(minutes) if counts] == [59, 10, 5, 0]


@freeze_time(NOW)
def test_a_text_without_a_time_matches_no_period(raw: sqlite3.Connection, index: Callable[[], None]) -> None:
    write(raw, {str(place): text for place, text in enumerate(UNREADABLE)})
    assert not any(clock.parsed(text) for text in UNREADABLE)
    index()
    assert found_ids("0001-01-01T00:00:00.000Z", None) == found_ids(None, "9999-12-31T23:59:59.999Z") == set()
    assert len(found_ids(None, None)) == len(UNREADABLE)
    assert reading.get_event_summary(60 * 24 * 366) == {}


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31 23:59:59"])
def test_the_ends_of_the_calendar_raise_no_error(raw: sqlite3.Connection, index: Callable[[], None], text: str) -> None:
    write(raw, {"end": text})
    index()
    wanted = {"end"} if clock.parsed(text) else set()
    assert found_ids("0001-01-01T00:00:00.000Z", None) == wanted
    assert found_ids("9999-12-31T00:00:00.000Z", None) == wanted


@freeze_time(NOW)
def test_a_repeated_event_may_have_another_form_of_its_time(raw: sqlite3.Connection) -> None:
    write(raw, {"known": "2026-01-31 13:00:00+01:00"})
    same = outfeed.log_event("a.b", "s", id="known", timestamp="2026-01-31T12:00:00Z")
    assert same.timestamp == "2026-01-31 13:00:00+01:00"
    with pytest.raises(EventConflict):
        outfeed.log_event("a.b", "s", id="known", timestamp="2026-01-31T13:00:00Z")


def test_a_row_with_any_timestamp_is_written(raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('n', 'a.b', 's', 'now')")
    sql = "SELECT group_concat(sql) FROM sqlite_master WHERE tbl_name = 'event_log' AND type <> 'trigger'"
    assert "date" not in raw.execute(sql).fetchone()[0].lower()


@freeze_time(NOW)
def test_an_event_without_a_time_is_as_old_as_its_outbox_row(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, {"no day": "2020-02-30T12:00:00.000Z"})
    raw.execute("UPDATE outbox SET created_at = '2026-01-01T00:00:00.000Z'")
    old = retention.Prune(database, Policy.older_than(1, settings()), "tests").old_events()
    assert [id_ for keys in old for _, id_ in keys] == [b"no day"]


def test_the_zones_of_the_index_limit_a_scan(database: Database, raw: sqlite3.Connection) -> None:
    raw.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)"
        " INSERT INTO event_log (id, event_type, source, timestamp)"
        " SELECT 'e' || n, 'a.b', 's', datetime(1767225600 + n * 60, 'unixepoch') FROM n"
    )
    Indexer(database, pause_factor=0).run()
    spans = search.Index(database).spans("2026-01-01T00:00:00.000Z", "2026-01-01T01:00:00.000Z")
    assert [(span.low, span.high) for span in spans if span.is_timed] == [(0, 1023)]
    assert instants.utc("2026-01-01 00:01:00") == "2026-01-01T00:01:00.000000"


def test_the_index_agrees_with_the_clock_after_every_change(
    database: Database, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (search, indexer):
        monkeypatch.setattr(module, "BLOCK_BITS", 5)
        monkeypatch.setattr(module, "ZONE_BITS", 2)
    monkeypatch.setattr(timed, "MAX_READ", 10)
    monkeypatch.setattr(log_page, "MAX_SCANNED", 40)
    chance = random.Random(7)
    forms, times, keeper = list(FORMS.values()), dict[str, datetime](), Indexer(database, pause_factor=0)
    for number in range(240):
        late = chance.choice([0, 0, 0, 1, 40]) * HOUR
        moment = NOW + number * 10 * MINUTE - late
        times[f"e{number}"] = moment
        write(raw, {f"e{number}": chance.choice(forms)(moment)})
        if chance.random() < 0.1:
            raw.execute("DELETE FROM event_log WHERE rowid = (SELECT max(rowid) FROM event_log)")
            del times[f"e{number}"]
        if chance.random() < 0.1:
            keeper.run()
        if number % 20 == 0:
            since = NOW + chance.randrange(-300, 2400) * MINUTE
            until = since + chance.choice([1, 60, 600, 6000]) * MINUTE
            wanted = {id_ for id_, moment in times.items() if since <= moment < until}
            assert found_ids(clock.isoformat(since), clock.isoformat(until)) == wanted
            assert found_ids(clock.isoformat(since), clock.isoformat(until), text="s") == wanted
            with freeze_time(until):
                minutes = (until - since) / MINUTE
                summary = {"a.b": count} if (count := sum(since <= moment for moment in times.values())) else {}
                assert reading.get_event_summary(minutes) == summary
