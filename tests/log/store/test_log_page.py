"""Pages of the log: complete, in order, and without a scan or a sort."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outfeed.log.store import indexer, log_page, search, survey
from outfeed.log.store.log_filter import DataCondition, Excluded, LogFilter
from outfeed.log.store.search import Span
from outfeed.principal import EVERYTHING, EventScope, is_of_type
from outfeed.store import database as db
from outfeed.store import database_file
from outfeed.store.database import Database

FEW, MANY = 20_000, 100_000
# Every 2,500th event is a failed task. Times rise by a second, but each 100th event comes an hour late.
FILL = """
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :events)
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)
    SELECT
        'e' || n,
        CASE WHEN n % 2500 = 0 THEN 'task.failed' WHEN n % 3 = 0 THEN 'tool.called' WHEN n % 3 = 1 THEN 'task.created'
            ELSE 'access.signed_in' END,
        CASE WHEN n % 50 = 0 THEN 'worker' ELSE 'coordinator' END,
        'task-' || (n / 10),
        'agent-' || (n % 40),
        json_object('n', n, 'description',
            'step ' || (n % 7) || CASE WHEN n % 5000 = 0 THEN ' ran out of memory' ELSE '' END),
        strftime('%Y-%m-%dT%H:%M:%S.000Z', 1767225600 + n - CASE WHEN n % 100 = 0 THEN 3600 ELSE 0 END, 'unixepoch')
    FROM n
"""
SINCE, UNTIL = "2026-01-01T02:00:00.000Z", "2026-01-01T03:00:00.000Z"
VIEWER = EventScope()
FILTERS = {
    "none": LogFilter(VIEWER),
    "none, by an operator": LogFilter(EVERYTHING),
    "a token's types": LogFilter(EventScope(("task.*",))),
    "a type beyond a token's": LogFilter(EventScope(("tool.called",)), ("task.created",), agent_id="agent-3"),
    "type": LogFilter(VIEWER, ("task.failed",)),
    "unknown type": LogFilter(VIEWER, ("none.such",)),
    "prefix": LogFilter(VIEWER, ("task.*",)),
    "unknown prefix": LogFilter(VIEWER, ("none.*",)),
    "types": LogFilter(VIEWER, ("task.failed", "tool.*")),
    "source": LogFilter(VIEWER, source="worker"),
    "task": LogFilter(VIEWER, task_id="task-77"),
    "agent": LogFilter(VIEWER, agent_id="agent-3"),
    "type and source": LogFilter(VIEWER, ("task.failed",), source="worker"),
    "type and agent": LogFilter(VIEWER, ("tool.called",), agent_id="agent-3"),
    "all four": LogFilter(VIEWER, ("task.*",), source="coordinator", task_id="task-77", agent_id="agent-4"),
    "an hour": LogFilter(VIEWER, since=SINCE, until=UNTIL),
    "from": LogFilter(VIEWER, since="2026-01-01T05:10:00.000Z"),
    "to": LogFilter(VIEWER, until="2026-01-01T00:10:00.000Z"),
    "half of all": LogFilter(VIEWER, since=SINCE, until="2026-01-01T05:00:00.000Z"),
    "type in an hour": LogFilter(VIEWER, ("task.*",), since=SINCE, until=UNTIL),
    "type in half of all": LogFilter(VIEWER, ("task.failed",), since=SINCE, until="2026-01-01T05:00:00.000Z"),
    "text": LogFilter(VIEWER, text="memory"),
    "text and type": LogFilter(VIEWER, ("task.failed",), text='"out of memory"'),
    "text and all": LogFilter(
        VIEWER, ("task.*",), "worker", None, "agent-0", SINCE, "2026-01-01T05:00:00.000Z", "mem*"
    ),
    "not two types": LogFilter(VIEWER, excluded=Excluded(("tool.called", "task.created"))),
    "not a prefix": LogFilter(VIEWER, excluded=Excluded(("task.*",))),
    "a prefix but a type": LogFilter(VIEWER, ("task.*",), excluded=Excluded(("task.created",))),
    "no type": LogFilter(VIEWER, excluded=Excluded(("task.*", "tool.*"))),
    "not a source": LogFilter(VIEWER, excluded=Excluded(sources=("coordinator",))),
    "not these agents": LogFilter(VIEWER, ("task.*",), excluded=Excluded(agent_ids=("agent-3", "agent-4"))),
    "not a task": LogFilter(VIEWER, ("task.failed",), excluded=Excluded(task_ids=("task-250",))),
    "two tasks": LogFilter(VIEWER, task_id=("task-77", "task-78")),
    "two sources": LogFilter(VIEWER, source=("worker", "absent")),
    "a value": LogFilter(VIEWER, data=(DataCondition(("n",), "17"),)),
    "not a value": LogFilter(VIEWER, ("task.failed",), data=(DataCondition(("n",), "2500", is_excluded=True),)),
    "no match": LogFilter(VIEWER, ("task.failed",), source="worker", agent_id="agent-3"),
}


def fill(path: Path, events: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(FILL, {"events": events})


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, upgraded: Path) -> Iterator[Database]:
    """A database of 20,000 events, indexed in blocks of 4,096."""
    path = tmp_path_factory.mktemp("indexed") / "outfeed.db"
    shutil.copy(upgraded, path)
    fill(path, FEW)
    database = db.at(path)
    with pytest.MonkeyPatch.context() as patch:
        for module in (search, indexer):
            patch.setattr(module, "BLOCK_BITS", 12)
        patch.setattr(indexer, "MAX_PAUSE_SECS", 0)
        indexer.Indexer(database).run()
        assert len(search.Index(database).spans()) == 7
        yield database
    database.close()
    db.at(search.path_of(path)).close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, upgraded: Path) -> Iterator[Database]:
    """A database of 100,000 events."""
    path = tmp_path_factory.mktemp("many") / "outfeed.db"
    shutil.copy(upgraded, path)
    fill(path, MANY)
    yield db.at(path)
    db.at(path).close()


@functools.cache  # four tests need the same
def expected(filter_: LogFilter) -> list[int]:
    """Return the numbers of the matching events, computed from the rules."""

    def matches(n: int) -> bool:
        kind = "task.failed" if n % 2500 == 0 else ("tool.called", "task.created", "access.signed_in")[n % 3]
        shown = {
            "source": "coordinator" if n % 50 else "worker",
            "task_id": f"task-{n // 10}",
            "agent_id": f"agent-{n % 40}",
        }
        second = n - (3600 if n % 100 == 0 else 0)
        day, rest = divmod(second + 86_400, 86_400)
        month, day_of_month = ("2025-12", 31) if day == 0 else ("2026-01", day)
        time = f"{month}-{day_of_month:02}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.000Z"
        return (
            filter_.visible.covers(kind)
            and (not filter_.types or any(is_of_type(kind, pattern) for pattern in filter_.types))
            and all(shown[column] in given for column, given in filter_.names().items())
            and not any(is_of_type(kind, pattern) for pattern in filter_.excluded.types)
            and shown["source"] not in filter_.excluded.sources
            and shown["task_id"] not in filter_.excluded.task_ids
            and shown["agent_id"] not in filter_.excluded.agent_ids
            and all((str(n) == one.value) != one.is_excluded for one in filter_.data)
            and (filter_.since or "") <= time
            and (filter_.until is None or time < filter_.until)
            and (filter_.text is None or n % 5000 == 0)
        )

    return [n for n in range(FEW, 0, -1) if matches(n)]


def number(event: Any) -> int:
    return int(event.id[1:])


@pytest.mark.parametrize("filter_", FILTERS.values(), ids=FILTERS)
class TestEveryFilter:
    def test_matches_come_newest_first_and_each_once(self, indexed: Database, filter_: LogFilter) -> None:
        assert [
            number(event) for event in itertools.islice(log_page.iterate_events(indexed, filter_), 3000)
        ] == expected(filter_)[:3000]

    def test_pages_continue_in_both_directions(self, indexed: Database, filter_: LogFilter) -> None:
        wanted = expected(filter_)
        down = [log_page.list_page(indexed, filter_, limit=20)]
        while down[-1].older is not None and len(down) < 6:
            down.append(log_page.list_page(indexed, filter_, limit=20, cursor=down[-1].older))
        assert [number(event) for page in down for _, event in page.events] == wanted[
            : sum(len(p.events) for p in down)
        ]
        assert not any(page.is_scan_limited for page in down)
        assert len(wanted) <= 120 or len(down) == 6
        for above, below in itertools.pairwise(down):
            up = log_page.list_page(indexed, filter_, limit=20, cursor=below.newer, is_newer=True)
            assert up.events == above.events
            assert up.older == above.older

    def test_a_survey_counts_the_newest_matches_and_stops(self, indexed: Database, filter_: LogFilter) -> None:
        found, _ = survey.take(indexed, filter_)
        wanted = expected(filter_)
        assert found.total == min(len(wanted), survey.MAX_COUNTED)
        assert found.is_complete == (len(wanted) <= survey.MAX_COUNTED)
        looked_at = wanted[: survey.MAX_LOOKED_AT]
        assert found.looked_at == len(looked_at)
        assert found.facets["source"] == Counter("coordinator" if n % 50 else "worker" for n in looked_at)
        assert sum(bar.count for bar in found.bars) == found.looked_at

    def test_no_query_scans_or_sorts(self, many: Database, filter_: LogFilter, monkeypatch: pytest.MonkeyPatch) -> None:
        statements: list[str] = []

        def connect(path: Path) -> sqlite3.Connection:
            connection = original(path)
            if path == many.path:
                connection.set_trace_callback(statements.append)
            return connection

        original = database_file.connect
        monkeypatch.setattr(database_file, "connect", connect)
        # The spans of a full-text index with two blocks. Each search finds one event in a thousand.
        blocks = [Span(80_001, MANY), Span(65_536, 80_000, 1, True), Span(0, 65_535, 0, True)]
        monkeypatch.setattr(search.Index, "spans", lambda *_: blocks)
        monkeypatch.setattr(
            search.Index,
            "find",
            lambda _, span, *__, is_upward: [*range(span.low, span.high, 1000)][:: 1 if is_upward else -1],
        )
        many.close()
        page = log_page.list_page(many, filter_, limit=50)
        log_page.list_page(many, filter_, limit=50, cursor=page.older or 70_000)
        log_page.list_page(many, filter_, limit=50, cursor=30_000, is_newer=True)
        survey.take(many, filter_)
        many.close()

        asked = {re.sub(r"'\[[\d, ]*\]'", "'[1, 2]'", sql) for sql in statements if "FROM event_log" in sql}
        assert asked
        with contextlib.closing(original(many.path)) as raw:
            plans = {sql: [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in asked}
        bad = {
            sql: plan for sql, plan in plans.items() if any(re.match("SCAN event_log|USE TEMP", step) for step in plan)
        }
        assert bad == {}

    def test_the_work_does_not_grow_with_the_log(
        self, many: Database, filter_: LogFilter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Count the steps of SQLite's virtual machine.

        A scan without a limit takes four million for some of these filters.
        """
        thousands = itertools.count()

        def connect(path: Path) -> sqlite3.Connection:
            connection = original(path)
            if path == many.path:
                connection.set_progress_handler(lambda: next(thousands) < 0, 1000)
            return connection

        original = database_file.connect
        monkeypatch.setattr(database_file, "connect", connect)
        many.close()
        survey.take(many, filter_)
        log_page.list_page(many, filter_, limit=50, cursor=90_000)
        many.close()
        assert next(thousands) < 3_000


def test_a_page_ends_at_the_scan_limit_and_the_next_continues(
    indexed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        log_page.LogScan.__init__, "__kwdefaults__", {**log_page.LogScan.__init__.__kwdefaults__, "max_scanned": 500}
    )
    filter_ = LogFilter(VIEWER, ("tool.called",), agent_id="agent-3", since="2025-01-01T00:00:00.000Z")
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = log_page.list_page(indexed, filter_, limit=50, cursor=cursor)
        found += [number(event) for _, event in page.events]
        cursor, pages = page.older, pages + 1
    assert found == expected(filter_)
    assert not survey.take(indexed, filter_)[0].is_complete


def test_a_table_without_its_indexes_is_read_completely(database: Database) -> None:
    fill(database.path, 500)
    with contextlib.closing(sqlite3.connect(database.path)) as raw, raw:
        for (name,) in raw.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'event%'"
        ).fetchall():
            raw.execute(f"DROP INDEX {name}")
    for filter_ in FILTERS.values():
        page = log_page.list_page(database, filter_, limit=1000)
        assert [number(event) for _, event in page.events] == [n for n in expected(filter_) if n <= 500]


def test_an_event_has_neighbours(indexed: Database) -> None:
    found = log_page.find(indexed, VIEWER, "e502")
    assert found is not None
    near = log_page.neighbours(indexed, LogFilter(VIEWER, agent_id="agent-22"), found[0])
    assert near.before is not None
    assert near.after is not None
    assert (near.before.id, near.after.id) == ("e462", "e582")
    assert log_page.find(indexed, EventScope(("tool.*",)), "e2500") is None
    assert log_page.find(indexed, VIEWER, "\ud800") is None


def test_a_filter_by_type_applies_together_with_a_tokens_types() -> None:
    where = LogFilter(EventScope(("a.b",)), ("c.d",)).where()

    assert {("a.b",), ("c.d",)} <= set(where.values())
