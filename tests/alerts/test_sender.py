"""Sender: the queue of notices and its targets."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from outfeed.alerts import sender as sending_module
from outfeed.alerts.notice_text import notice_of
from outfeed.alerts.sender import NoticeSender, pause_secs
from outfeed.alerts.store import notices, rules
from outfeed.alerts.store.notices import MAX_ATTEMPTS, NoticeState
from outfeed.alerts.targets import NoticeKind, Outcome
from outfeed.display import Display, Level
from outfeed.store import database_file, displays
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache, MadeBy
from outfeed.upkeep import erasure
from tests.alerts.fake_targets import FakeTargets
from tests.alerts.simulated import SimulatedAlerts
from tests.waits import wait_until

URL = "https://feed.example.com"


@pytest.fixture
def alerts(database: Database) -> SimulatedAlerts:
    """A rule with two targets that has raised an alert."""
    found = SimulatedAlerts(database)
    found.add("errors", "type:job.failed", targets=("ops", "mail"), pause_secs=60)
    found.evaluate()
    found.write(event_type="job.failed", data='{"reason": "disk full"}', id=["first"])
    found.evaluate()
    return found


@contextmanager
def sending(database: Database, targets: FakeTargets) -> Iterator[NoticeSender]:
    cache = DisplayCache(database)
    sender = NoticeSender(
        database, targets, lambda each: notice_of(each, database, cache.current(), URL), lambda _: None
    )
    try:
        yield sender
    finally:
        sender.close()


def send_until(database: Database, targets: FakeTargets, is_done: Callable[[], bool]) -> None:
    with sending(database, targets) as sender:
        wait_until(lambda: (sender.run(), is_done())[1], "the notices were handled")


def states(database: Database) -> dict[str, list[NoticeState]]:
    found = notices.list_notices(database, "errors", 100)
    return {name: [each.state for each in found if each.target == name] for name in ("ops", "mail")}


def test_a_notice_says_what_happened_and_shows_the_newest_event(alerts: SimulatedAlerts) -> None:
    with alerts.database.transaction() as connection:
        display = Display.checked("job.failed", icon="💾", label="A job failed: {reason}", level="error")
        displays.put(connection, {"job.failed": display}, MadeBy.COMMAND)
    targets = FakeTargets("ops", "mail")
    send_until(alerts.database, targets, lambda: len(targets.sent) == 2)
    assert {name for name, _ in targets.sent} == {"ops", "mail"}
    notice = targets.sent[0][1]
    assert (notice.kind, notice.rule, notice.count, notice.level) == (NoticeKind.RAISED, "errors", 1, Level.ERROR)
    assert notice.title == "errors: 1 event"
    assert notice.text == "errors: 1 event.\n💾 A job failed: disk full\njob.failed from s, t"
    assert notice.url == f"{URL}/admin/alerts/rule/errors"
    assert notice.matched is not None
    assert notice.matched["data"] == {"reason": "disk full"}
    assert targets.sent[1][1].event_id == notice.event_id


def test_a_notice_of_an_erased_event_shows_nothing_of_it(alerts: SimulatedAlerts) -> None:
    erasure.erase(alerts.database, "first", by="tests")
    targets = FakeTargets("ops", "mail")
    send_until(alerts.database, targets, lambda: len(targets.sent) == 2)
    assert targets.sent[0][1].text == "errors: 1 event."
    assert "disk full" not in repr(targets.sent)


def test_a_delivered_notice_is_not_sent_again(alerts: SimulatedAlerts) -> None:
    targets = FakeTargets("ops", "mail")
    for _ in range(2):
        send_until(alerts.database, targets, lambda: not notices.waiting_targets(alerts.database))
    assert len(targets.sent) == 2
    assert states(alerts.database) == {"ops": [NoticeState.DELIVERED], "mail": [NoticeState.DELIVERED]}


def test_a_target_that_hangs_delays_no_other_and_gets_one_notice_at_a_time(alerts: SimulatedAlerts) -> None:
    alerts.run_for(61)  # a second notice: cleared
    release, targets = threading.Event(), FakeTargets("ops", "mail")

    def answer(target: str, _: object) -> Outcome:
        if target == "ops":
            release.wait(10)
        return Outcome(is_delivered=True)

    targets.answer = answer
    with sending(alerts.database, targets) as sender:
        sender.run()
        wait_until(lambda: states(alerts.database)["mail"] == [NoticeState.DELIVERED] * 2, "the other got both")
        wait_until(lambda: "ops" in [name for name, _ in targets.sent], "the first one was begun")
        sender.run()
        assert [name for name, _ in targets.sent].count("ops") == 1
        release.set()
        wait_until(lambda: not notices.waiting_targets(alerts.database), "all were sent")
    assert [each.kind for name, each in targets.sent if name == "ops"] == [NoticeKind.RAISED, NoticeKind.CLEARED]


def test_a_failed_notice_waits_with_its_error_and_is_sent_again_under_the_same_id(alerts: SimulatedAlerts) -> None:
    targets = FakeTargets("ops", "mail")
    targets.answer = lambda target, _: Outcome(target == "mail", "connection refused")
    send_until(alerts.database, targets, lambda: notices.queues(alerts.database)[1].last_error is not None)
    (queue,) = [each for each in notices.queues(alerts.database) if each.target == "ops"]
    assert (queue.waiting, queue.last_error) == (1, "connection refused")
    targets.answer = lambda _, __: Outcome(is_delivered=True)
    send_until(alerts.database, targets, lambda: not notices.waiting_targets(alerts.database))
    ids = [each.event_id for name, each in targets.sent if name == "ops"]
    assert len(ids) == 2
    assert len({*ids}) == 1
    assert notices.queues(alerts.database)[1].last_error is None


def test_a_failing_target_is_not_tried_again_before_its_pause(alerts: SimulatedAlerts) -> None:
    targets = FakeTargets("ops", "mail")
    targets.answer = lambda target, _: Outcome(target == "mail", "no")
    with sending(alerts.database, targets) as sender:
        for _ in range(5):
            sender.run()
            wait_until(lambda: len(targets.sent) >= 2, "both were tried")
    assert [name for name, _ in targets.sent].count("ops") == 1


def test_an_accepted_notice_is_sent_once_while_the_database_is_locked(
    alerts: SimulatedAlerts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.02)
    monkeypatch.setattr(sending_module, "FIRST_PAUSE_SECS", 0.0)
    alerts.database.close()
    targets = FakeTargets("ops", "mail")
    with contextlib.closing(sqlite3.connect(alerts.database.path)) as raw, sending(alerts.database, targets) as sender:
        raw.execute("BEGIN IMMEDIATE")
        wait_until(lambda: (sender.run(), len(caplog.records) >= 6)[1], "each was tried again")
        raw.rollback()
        wait_until(
            lambda: (sender.run(), not notices.waiting_targets(alerts.database))[1], "the deliveries were recorded"
        )
    assert len(targets.sent) == 2
    assert states(alerts.database) == {"ops": [NoticeState.DELIVERED], "mail": [NoticeState.DELIVERED]}


def test_a_target_rests_after_an_error_of_the_database(
    alerts: SimulatedAlerts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.02)
    alerts.database.close()
    targets = FakeTargets("ops")
    targets.answer = lambda _, __: Outcome(False, "no")
    with contextlib.closing(sqlite3.connect(alerts.database.path)) as raw, sending(alerts.database, targets) as sender:
        raw.execute("BEGIN IMMEDIATE")
        runs = iter(range(20))
        wait_until(lambda: (sender.run(), next(runs, None) is None)[1], "it has run twenty times")
    assert len(targets.sent) == 1


def test_the_pause_doubles_up_to_an_hour_and_respects_the_target() -> None:
    assert [pause_secs(attempts, None) for attempts in (0, 1, 2, 20)] == [10, 20, 40, 3600]
    assert pause_secs(0, 100.0) == 100
    assert pause_secs(5, 1.0) == 320
    assert pause_secs(0, 86_400.0) == 3600


def test_notices_behind_a_dead_target_fail_together_after_their_attempts(alerts: SimulatedAlerts) -> None:
    alerts.run_for(61)
    for _ in range(MAX_ATTEMPTS):
        first = notices.next_waiting(alerts.database, "ops")
        assert first is not None
        notices.note_failure(alerts.database, first, "connection refused", is_final=False)
    assert states(alerts.database)["ops"] == [NoticeState.FAILED] * 2
    assert states(alerts.database)["mail"] == [NoticeState.WAITING] * 2


def test_a_final_failure_and_a_removed_target_end_the_notice(alerts: SimulatedAlerts) -> None:
    targets = FakeTargets("ops")
    targets.answer = lambda _, __: Outcome(False, "410 Gone", is_final=True)
    send_until(alerts.database, targets, lambda: not notices.waiting_targets(alerts.database))
    errors = {each.target: each.last_error for each in notices.list_notices(alerts.database, "errors", 9)}
    assert errors == {"ops": "410 Gone", "mail": "the target was removed"}
    assert states(alerts.database) == {"ops": [NoticeState.FAILED], "mail": [NoticeState.FAILED]}


def test_a_removed_rule_sends_no_more(alerts: SimulatedAlerts) -> None:
    rules.remove(alerts.database, "errors", "tests")
    assert notices.waiting_targets(alerts.database) == []


def test_old_notices_are_deleted_unless_they_wait(alerts: SimulatedAlerts) -> None:
    first = notices.next_waiting(alerts.database, "ops")
    assert first is not None
    notices.note_delivered(alerts.database, first)
    with alerts.database.transaction() as connection:
        connection.execute("UPDATE outfeed_alert_notice SET occurred_at = '2020-01-01T00:00:00.000Z'")
        notices.clean(connection)
    assert [each.target for each in notices.list_notices(alerts.database, "errors", 9)] == ["mail"]
