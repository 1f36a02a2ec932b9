"""Alerts on a clock of the test's own, stepped by hand."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from outfeed.alerts.evaluation import Evaluator
from outfeed.alerts.rule import AlertRule, Condition
from outfeed.alerts.store import evaluation, rules
from outfeed.alerts.store.evaluation import HeldRules
from outfeed.clock import Reading
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from tests.database_file import head_of, write_events

START = 1_700_000_000.0


class AlertEvent(NamedTuple):
    kind: str
    rule: str
    matches: int


class SimulatedAlerts:
    """The evaluation of one database.

    *wall* and *boot* are its clocks. Events are written at the wall time.
    """

    def __init__(self, database: Database, begin: float = START) -> None:
        self.database = database
        self.wall, self.boot, self.boot_id = begin, 1000.0, "first"
        self.held: HeldRules | None = None
        self.evaluator: Evaluator | None = None

    def reading(self) -> Reading:
        return Reading(self.wall, self.boot, self.boot_id)

    def add(self, name: str, query: str = "", **fields: Any) -> AlertRule:
        rule = AlertRule(name, query, **fields).checked()
        with self._written_now():
            rules.add(self.database, rule, "tests")
        return rule

    def add_count(self, name: str, threshold: int, window_secs: int, query: str = "", **fields: Any) -> AlertRule:
        return self.add(
            name, query, condition=Condition.COUNT, threshold=threshold, window_secs=window_secs,
            **{"pause_secs": 10} | fields,
        )  # fmt: skip

    def add_absence(self, name: str, window_secs: int, query: str = "", **fields: Any) -> AlertRule:
        more = {"pause_secs": 10} | fields
        return self.add(name, query, condition=Condition.ABSENCE, window_secs=window_secs, **more)

    def pass_secs(self, secs: float) -> None:
        """Let time pass on both clocks."""
        self.wall += secs
        self.boot += secs

    def write(self, count: int = 1, **columns: Any) -> None:
        """Write events that are committed now."""
        with self._written_now():
            write_events(self.database.path, count, **columns)

    @contextlib.contextmanager
    def _written_now(self) -> Iterator[None]:
        """Give the outbox rows of the block the present as their time."""
        before = head_of(self.database.path)
        yield
        at = datetime.fromtimestamp(self.wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with contextlib.closing(sqlite3.connect(self.database.path)) as raw, raw:
            raw.execute("UPDATE outbox SET created_at = ? WHERE seq > ?", (at, before))

    def evaluate(self) -> None:
        """Evaluate up to the head, as the running process does each second."""
        if self.held is None or self.evaluator is None or not evaluation.is_current(self.database, self.held):
            self.start()
        if self.evaluator is not None:
            while self.evaluator.step():
                pass

    def run_for(self, secs: int, every: float = 1.0) -> None:
        """Let time pass and evaluate each second."""
        for _ in range(int(secs / every)):
            self.pass_secs(every)
            self.evaluate()

    def start(self) -> None:
        """Claim the evaluation, at the start and after a change of the rules."""
        started_at = self.evaluator.started_at if self.evaluator else None
        self.held, self.evaluator = evaluation.claim(self.database), None
        if self.held is not None:
            self.evaluator = Evaluator(
                self.database, Outbox(self.database, 65_536), self.held, publish=lambda _, __: None,
                read_clocks=self.reading, started_at=started_at,
            )  # fmt: skip
            self.evaluator.begin()

    def crash(self) -> None:
        """Forget what is only in memory. The next evaluation is another process."""
        self.evaluator = None

    def stop(self) -> None:
        """End the process as a signal does."""
        if self.evaluator is not None:
            self.evaluator.close()
        self.evaluator = None

    def events(self) -> list[AlertEvent]:
        """Return the events about alerts so far."""
        return alert_events(self.database.path)

    def kinds(self) -> list[str]:
        return [each.kind for each in self.events()]


def saved_progress(path: Path) -> list[str]:
    """Return what the database keeps of each rule's progress."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return [text for (text,) in raw.execute("SELECT progress FROM outfeed_alert ORDER BY name").fetchall()]


def alert_events(path: Path) -> list[AlertEvent]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        rows = raw.execute(
            "SELECT event_type, data FROM event_log WHERE event_type GLOB 'alert.*' AND source = 'alerts'"
            " ORDER BY rowid"
        ).fetchall()
    found = [(kind, json.loads(data)) for kind, data in rows]
    return [AlertEvent(kind.removeprefix("alert."), data["rule"], data["count"]) for kind, data in found]
