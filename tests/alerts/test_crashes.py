"""Crashes: a kill at any statement, and two processes."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from outfeed.alerts.notice_text import notice_of
from outfeed.alerts.sender import NoticeSender
from outfeed.alerts.store import notices
from outfeed.alerts.store.notices import QueuedNotice
from outfeed.alerts.targets import AlertTarget, Notice, Outcome
from outfeed.errors import Superseded
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache
from tests.alerts.fake_targets import FakeTargets
from tests.alerts.simulated import SimulatedAlerts, alert_events
from tests.killed import killed_at
from tests.waits import wait_until

END = ("-wal", "-shm")


def prepare(database: Database) -> None:
    """Leave two events of a rule with two targets to evaluate."""
    alerts = SimulatedAlerts(database)
    alerts.add("errors", "type:a.b", targets=("ops", "mail"), pause_secs=60)
    alerts.add_count("burst", 1, 60, "type:a.b", targets=("ops",))
    alerts.evaluate()
    alerts.stop()
    alerts.write(2)
    database.close()


def queued(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute("SELECT rule, target FROM outfeed_alert_notice ORDER BY rule, target").fetchall()


def evaluate(database: Database) -> None:
    SimulatedAlerts(database).evaluate()


def test_a_kill_at_any_statement_leaves_one_alert_and_one_notice_of_each_target(
    database: Database, tmp_path: Path
) -> None:
    prepare(database)
    copy, kills, is_killed = tmp_path / "copy.db", 0, True
    while is_killed:
        shutil.copy(database.path, copy)
        is_killed = killed_at(kills, evaluate, copy)
        kills += is_killed
        written = alert_events(copy), queued(copy)
        assert written in (([], []), ALL)
        resumed = Database(copy)
        evaluate(resumed)
        resumed.close()
        assert (alert_events(copy), queued(copy)) == ALL
        for end in END:
            copy.with_name(copy.name + end).unlink(missing_ok=True)
    assert kills > 15


ALL = (
    [("raised", "burst", 2), ("raised", "errors", 1)],
    [("burst", "ops"), ("errors", "mail"), ("errors", "ops")],
)


def test_a_second_process_takes_over_and_the_first_writes_no_more(database: Database) -> None:
    first, second = SimulatedAlerts(database), SimulatedAlerts(database)
    first.add("errors", "type:a.b")
    first.evaluate()
    first.write()
    second.start()
    assert first.evaluator is not None
    with pytest.raises(Superseded):
        first.evaluator.step()
    assert first.events() == []
    second.evaluate()
    assert first.kinds() == ["raised"]


def make_notice(database: Database, queued: QueuedNotice) -> Notice:
    return notice_of(queued, database, DisplayCache(database).current(), None)


class FileTargets(FakeTargets):
    """Targets that append the event id of each accepted notice to a file."""

    def __init__(self, file: Path) -> None:
        super().__init__("ops", "mail")
        self.file = file

    def send(self, target: AlertTarget, notice: Notice) -> Outcome:
        with self.file.open("a") as file:
            file.write(f"{target.name} {notice.event_id}\n")
        return Outcome(is_delivered=True)


def test_a_kill_at_any_statement_of_the_sender_repeats_at_most_the_notice_in_flight(
    database: Database, tmp_path: Path
) -> None:
    prepare(database)
    evaluate(database)
    with database.one_write() as connection:
        connection.execute("DELETE FROM outfeed_alert_notice WHERE target = 'mail'")
    database.close()
    copy, file = tmp_path / "copy.db", tmp_path / "sent"

    def send_to_ops(database: Database) -> None:
        targets = FileTargets(file)
        sender = NoticeSender(database, targets, lambda each: make_notice(database, each), lambda _: None)
        sender.run()
        wait_until(lambda: len({*lines()}) == 2, "both notices were sent")
        sender.close()

    def lines() -> list[str]:
        return [line for line in file.read_text().splitlines() if line.startswith("ops ")]

    kills, is_killed = 0, True
    while is_killed:
        shutil.copy(database.path, copy)
        file.write_text("")
        is_killed = killed_at(kills, send_to_ops, copy)
        kills += is_killed
        resumed = Database(copy)
        send_to_ops(resumed)
        assert {each.waiting for each in notices.queues(resumed)} == {0}
        resumed.close()
        assert len({*lines()}) == 2, "none is lost"
        assert len(lines()) <= 3, "at most one is repeated"
        for end in END:
            copy.with_name(copy.name + end).unlink(missing_ok=True)
    assert kills > 5
