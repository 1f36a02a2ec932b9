"""Delivery of one webhook in a server: order, checkpoint and losses."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from outfeed import clock, config, list_events, log_event
from outfeed.display import look_of
from outfeed.errors import NotBlocked
from outfeed.feed.relay import Relay
from outfeed.http.services import Services
from outfeed.store import checkpoint
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.high_water_mark import HighWaterMark
from outfeed.store.outbox import Outbox
from outfeed.upkeep.erasure import erase
from outfeed.webhooks import delivery, dispatcher
from outfeed.webhooks import store as webhook
from outfeed.webhooks.blocked import blocking_items
from outfeed.webhooks.delivery import MAX_PAUSE_SECS, MAX_RETRY_AFTER_SECS, pause_secs
from outfeed.webhooks.target import TOTAL_SECS
from tests.receiver import SECRET, Post, Receiver, Reply
from tests.waits import wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running
    assert running.problems == []


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "127.0.0.1")
    config.settings.cache_clear()
    services = Services(config.settings())
    services.start()
    try:
        yield services
    finally:
        services.stop()


def add(database: Database, receiver: Receiver, types: tuple[str, ...] = (), batch: int = 0) -> None:
    webhook.add(database, "ops", receiver.url, types=types, secret=SECRET, batch=batch)


def log(count: int, event_type: str = "a.b") -> None:
    with db.default().transaction() as connection:
        for n in range(count):
            log_event(event_type, "tests", data=n, connection=connection)


def raw(database: Database, statement: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(database.path, timeout=10)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def checkpoint_of(database: Database) -> int:
    return int(raw(database, "SELECT seq FROM outfeed_checkpoint WHERE name = 'webhook:ops'")[0][0])


def warnings() -> list[str]:
    return [event.data["message"] for event in list_events("system.warning", source="webhooks")]


def test_a_webhook_starts_at_the_head_and_continues_at_its_checkpoint(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(2)
    add(database, receiver)
    log(3)
    with serving(monkeypatch):
        wait_until(lambda: receiver.seqs() == [3, 4, 5], "the events from before the start arrive")
        log(1)
        wait_until(lambda: receiver.seqs() == [3, 4, 5, 6], "the new event arrives")
        wait_until(lambda: checkpoint_of(database) == 6, "the event is acknowledged")
    log(1)
    with serving(monkeypatch):
        wait_until(lambda: receiver.seqs() == [3, 4, 5, 6, 7], "the events of the downtime arrive")
    assert all(post.is_first for post in receiver.posts)
    assert warnings() == []


def test_an_event_is_posted_only_after_the_high_water_mark_has_it(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_two() -> None:
        log(1)
        log(1, "x.y")  # an event without a match makes it read again at once, without waiting for the feed

    def read_and_log(post: Post) -> Reply:
        (point,) = HighWaterMark(database.path).read().values()
        marks.append((post.seqs[0], point.seq))
        if len(marks) < 5:
            log_two()
        return Reply()

    marks: list[tuple[int, int]] = []
    receiver.behave = read_and_log
    monkeypatch.setenv("OUTFEED_POLL_INTERVAL", "60")
    monkeypatch.setattr(Relay, "poll_if_wanted", lambda self: 60.0)  # and no commit makes the feed poll
    add(database, receiver, types=("a.b",))
    log_two()
    with serving(monkeypatch):
        wait_until(lambda: len(marks) == 5, "all events are posted")
    assert [seq for seq, _ in marks] == [1, 3, 5, 7, 9]
    assert all(mark >= seq for seq, mark in marks), marks


def test_only_matching_types_are_posted_and_the_checkpoint_follows(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, receiver, types=("task.*", "x.y"))
    log(3, "a.b")
    log(1, "task.created")
    log(1, "x.y")
    log(2, "x.yz")
    with serving(monkeypatch):
        wait_until(lambda: checkpoint_of(database) == 7, "the checkpoint is at the head")
    assert receiver.seqs() == [4, 5]


def test_events_arrive_in_order_after_any_answer(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_first(post: Post) -> Reply:
        return Reply(post.seqs[0] % 3 * 500 if post.is_first and post.seqs[0] % 3 < 2 else 200)

    add(database, receiver)
    receiver.behave = fail_first  # closes the connection, answers 500, then accepts
    log(6)
    with serving(monkeypatch):
        wait_until(lambda: checkpoint_of(database) == 6, "all events are acknowledged")
    assert receiver.seqs() == [1, 2, 3, 4, 5, 6]
    assert [post.seqs[0] for post in receiver.posts] == [1, 1, 2, 3, 3, 4, 4, 5, 6, 6]
    (found,) = webhook.list_webhooks(database)
    assert (found.delivered, found.failures, found.last_error, found.failing_since) == (6, 4, None, None)


def test_a_retry_waits_as_long_as_the_target_asks(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = []

    def busy(post: Post) -> Reply:
        moments.append(clock.monotonic())
        return Reply(503, {"retry-after": "1"}) if post.is_first else Reply()

    add(database, receiver)
    receiver.behave = busy
    log(1)
    with serving(monkeypatch):
        wait_until(lambda: receiver.seqs() == [1], "the event is accepted")
    assert moments[1] - moments[0] >= 1


class TestBatches:
    def test_pending_events_are_posted_in_lists(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver, batch=4)
        log(10)
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.seqs()) == 10, "all")
            log(1)
            wait_until(lambda: len(receiver.seqs()) == 11, "one more event arrives")
        assert [post.seqs for post in receiver.posts] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], [11]]

    def test_a_failed_batch_is_retried_unchanged(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """This holds after a restart far behind, and after new events."""
        add(database, receiver, types=("x.y",), batch=5)
        receiver.behave = lambda _: Reply(0)
        log(1990, "a.b")
        log(3, "x.y")
        with serving(monkeypatch):
            wait_until(lambda: receiver.posts, "the batch is posted")
            assert checkpoint_of(database) == 1000, "a restart would read other pages and split the batch elsewhere"
        log(20, "x.y")

        receiver.behave = lambda _: Reply()
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.seqs()) == 23, "all")
        assert receiver.posts[0].seqs == [1991, 1992, 1993]
        assert receiver.accepted[0].seqs == [1991, 1992, 1993]
        assert receiver.seqs() == list(range(1991, 2014))

    @pytest.mark.parametrize(
        "change",
        ["UPDATE outfeed_meta SET value = 'other' WHERE key = 'epoch'", "DELETE FROM outfeed_checkpoint"],
        ids=["another history", "no checkpoint"],
    )
    def test_a_failed_batch_of_another_history_is_retried_unchanged(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        add(database, receiver, batch=5)
        log(2)
        raw(database, "UPDATE outfeed_webhook SET batch_end = 1000")  # from the other history
        raw(database, change)
        receiver.behave = lambda _: Reply(0)
        with serving(monkeypatch):
            wait_until(lambda: receiver.posts, "the batch is posted")
        log(2)

        receiver.behave = lambda _: Reply()
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.seqs()) == 3, "all")
        assert receiver.posts[0].seqs == [3]
        assert [post.seqs for post in receiver.accepted] == [[3], [4, 5]]


class TestLosses:
    def test_pruned_events_are_reported_and_the_rest_arrives(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(5)
        raw(database, "DELETE FROM outbox WHERE seq <= 3")
        with serving(monkeypatch):
            wait_until(lambda: receiver.seqs() == [4, 5, 6], "the remaining events and the warning arrive")
        assert warnings() == ["Webhook ops missed 1 to 3: they were pruned before they were delivered"]
        assert receiver.accepted[-1].body["data"]["data"]["message"] == warnings()[0]

    def test_another_history_is_reported(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(5)
        with serving(monkeypatch):
            wait_until(lambda: checkpoint_of(database) == 5, "delivered")
            raw(database, "UPDATE outfeed_meta SET value = 'other' WHERE key = 'epoch'")
            log(1)
            wait_until(warnings, "a warning is written")
            log(1)
            wait_until(lambda: receiver.accepted[-1].id == "other:8", "the delivery continues")
        assert all(post.id.startswith("other:") for post in receiver.posts if post.seqs[0] > 5)
        assert len(warnings()) == 1
        assert "another history" in warnings()[0]

    def test_a_removed_checkpoint_is_reported(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        with serving(monkeypatch):
            log(1)
            wait_until(lambda: checkpoint_of(database) == 1, "delivered")
            checkpoint.remove(database, "webhook:ops")
            wait_until(warnings, "a warning is written")
            log(1)
            wait_until(lambda: receiver.accepted[-1].seqs == [3], "the delivery continues")
        assert warnings() == ["Webhook ops lost its checkpoint and continues after 1"]

    def test_an_operator_can_move_the_checkpoint_back(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        with serving(monkeypatch):
            log(3)
            wait_until(lambda: checkpoint_of(database) == 3, "delivered")
            checkpoint.reset(database, "webhook:ops", 1)
            wait_until(lambda: [post.seqs[0] for post in receiver.accepted] == [1, 2, 3, 2, 3], "again")
        assert warnings() == []


def test_an_event_erased_during_retries_is_not_delivered(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, receiver, types=("a.b",))
    log(1)
    leaked = log_event("a.b", "tests", data="never to be seen")
    receiver.behave = lambda _: Reply(500)
    with serving(monkeypatch):
        wait_until(lambda: receiver.posts, "a post is tried")
        (claims,) = raw(database, "SELECT generation FROM outfeed_checkpoint")
        erase(database, leaked.id)
        wait_until(
            lambda: raw(database, "SELECT generation FROM outfeed_checkpoint") > [claims], "the delivery restarts"
        )
        receiver.behave = lambda _: Reply()
        log(1)
        wait_until(lambda: receiver.accepted and receiver.accepted[-1].seqs == [3], "the later event arrives")
    assert [post.seqs for post in receiver.accepted] == [[1], [3]]


class TestGivingUp:
    @pytest.mark.parametrize("hours", [23.9, 24.1])
    def test_a_webhook_is_paused_after_the_configured_hours(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, hours: float
    ) -> None:
        add(database, receiver)
        receiver.behave = lambda _: Reply(500)
        since = clock.isoformat(clock.now() - timedelta(hours=hours))
        raw(database, "UPDATE outfeed_webhook SET failing_since = ?", since)
        log(2)
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.posts) >= (2 if hours < 24 else 1), "a post is tried")
            wait_until(lambda: hours < 24 or warnings(), "a warning is written")
            state = webhook.find(database, "ops").state
            assert state == (webhook.WebhookState.ACTIVE if hours < 24 else webhook.WebhookState.PAUSED)
            receiver.behave = lambda _: Reply()
            if hours > 24:
                assert len(receiver.posts) == 1
                assert warnings()[0].startswith(f"Webhook ops is paused: it has failed since {since}; last: ")
                webhook.resume(database, "ops")
            wait_until(lambda: checkpoint_of(database) >= 2, "all events after the checkpoint arrive")
        assert receiver.seqs()[:2] == [1, 2]
        assert len(warnings()) == (hours > 24)
        assert webhook.find(database, "ops").failing_since is None

    def test_a_success_resets_the_failing_time(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        raw(database, "UPDATE outfeed_webhook SET failing_since = ?", clock.isoformat(clock.now() - timedelta(days=9)))
        receiver.behave = lambda post: Reply(500 if post.is_first and post.seqs == [2] else 200)
        log(2)
        with serving(monkeypatch):
            wait_until(lambda: checkpoint_of(database) == 2, "delivered")
        assert warnings() == []

    def test_a_webhook_whose_target_is_gone_is_paused_at_once(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        receiver.behave = lambda _: Reply(410)
        log(2)
        with serving(monkeypatch):
            wait_until(warnings, "a warning is written")
        assert len(receiver.posts) == 1
        (warning,) = warnings()
        assert warning == (
            "Webhook ops is paused: the target answered 410 Gone. `outfeed webhook resume ops` continues at seq 1; "
            "`outfeed webhook skip ops` skips that event"
        )


class TestAnEventThatBlocks:
    """A receiver that never accepts one event.

    The operator finds the event by name, and skips only that event.
    """

    def refuse(self, *seqs: int) -> Callable[[Post], Reply]:
        return lambda post: Reply(400 if set(seqs) & set(post.seqs) else 200)

    def test_the_first_failure_is_logged_with_the_event(
        self,
        database: Database,
        receiver: Receiver,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        add(database, receiver)
        log(1)
        poison = log_event("x.y", "tests")
        receiver.behave = self.refuse(2)
        with serving(monkeypatch):
            wait_until(lambda: webhook.find(database, "ops").failures, "a post fails")
            wait_until(lambda: "webhook fails" in caplog.text, "the failure is logged")
        assert (
            "webhook fails; `outfeed webhook skip` skips the event name=ops "
            f"seq=2 event={poison.id} type=x.y error=the target answered 400"
        ) in caplog.text

    @pytest.mark.parametrize(("types", "blocked"), [((), 2), (("x.y",), 4)])
    def test_the_rest_arrives_at_once_after_a_skip(
        self,
        database: Database,
        receiver: Receiver,
        monkeypatch: pytest.MonkeyPatch,
        types: tuple[str, ...],
        blocked: int,
    ) -> None:
        monkeypatch.setattr(delivery, "FIRST_PAUSE_SECS", 1e6)  # no automatic retry
        add(database, receiver, types=types)
        log(3)
        log(2, "x.y")
        receiver.behave = self.refuse(blocked)
        with serving(monkeypatch):
            wait_until(lambda: webhook.find(database, "ops").failing_since, "a post fails")
            found = webhook.find(database, "ops")
            items = blocking_items(Outbox(database, 65536), found)
            assert [item.seq for item in items] == [blocked]
            webhook.skip(database, found, items, "me")
            wait_until(lambda: receiver.accepted and receiver.accepted[-1].seqs == [5], "the other events arrive")
        assert receiver.seqs() == ([5] if types else [1, 3, 4, 5])
        (audited,) = list_events("access.webhook_skipped")
        assert audited.data == {
            "name": "ops", "events": 1, "first_seq": blocked, "last_seq": blocked, "id": items[0].id, "by": "me",
        }  # fmt: skip
        assert "skipped seq" in look_of(audited, {}).text

    def test_a_batch_is_skipped_as_a_whole(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver, batch=3)
        log(7)
        receiver.behave = self.refuse(5)
        with serving(monkeypatch):
            wait_until(lambda: webhook.find(database, "ops").failing_since, "a post fails")
            found = webhook.find(database, "ops")
            items = blocking_items(Outbox(database, 65536), found)
            assert [item.seq for item in items] == [4, 5, 6]
            webhook.skip(database, found, items, "me")
            wait_until(lambda: receiver.seqs() == [1, 2, 3, 7], "the other events arrive")

    def test_an_event_that_has_arrived_is_not_skipped(self, database: Database) -> None:
        webhook.add(database, "ops", "http://127.0.0.1:9/", types=(), secret=SECRET, batch=0)
        log(3)
        raw(database, "UPDATE outfeed_webhook SET failing_since = '2026-01-01T00:00:00.000Z'")
        found = webhook.find(database, "ops")
        items = blocking_items(Outbox(database, 65536), found)
        raw(database, "UPDATE outfeed_checkpoint SET seq = 1")  # the first is accepted, and the second fails
        with pytest.raises(NotBlocked, match="has moved on"):
            webhook.skip(database, found, items, "me")
        assert checkpoint_of(database) == 1
        assert list_events("access.webhook_skipped") == []

    def test_a_webhook_without_failures_has_no_blocking_event(self, database: Database) -> None:
        webhook.add(database, "ops", "http://127.0.0.1:9/", types=(), secret=SECRET, batch=0)
        log(1)
        assert blocking_items(Outbox(database, 65536), webhook.find(database, "ops")) == []


def test_a_private_target_is_not_called_unless_allowed(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook.add(database, "ops", f"http://localhost:{receiver.port}/", types=(), secret=SECRET, batch=0)
    log(1)
    with serving(monkeypatch):  # allows 127.0.0.1, but not the addresses that `localhost` may get
        wait_until(lambda: receiver.accepted, "127.0.0.1 is allowed")
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "10.0.0.0/8")
    config.settings.cache_clear()
    log(1)
    services = Services(config.settings())
    services.start()
    try:
        wait_until(lambda: webhook.find(database, "ops").last_error, "refused")
    finally:
        services.stop()
    assert "is not public; to allow it, set OUTFEED_WEBHOOK_ALLOW" in str(webhook.find(database, "ops").last_error)
    assert len(receiver.posts) == 1


def test_a_shutdown_does_not_wait_for_a_hanging_target(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "STOP_SECS", 60)
    released, is_over = threading.Event(), threading.Event()

    def hang(_: Post) -> Reply:
        released.wait(TOTAL_SECS / 2)
        is_over.set()
        return Reply()

    add(database, receiver)
    receiver.behave = hang
    log(1)
    with serving(monkeypatch) as services:
        wait_until(lambda: receiver.posts, "the target hangs")
        services.part(dispatcher.Dispatcher).stop()
        assert not is_over.is_set()
        assert {"outfeed-webhooks", "outfeed-webhook-ops"}.isdisjoint(each.name for each in threading.enumerate())
    released.set()
    assert checkpoint_of(database) == 0
    assert webhook.find(database, "ops").last_error is None  # a cancelled post does not count as a failure


def test_pauses_grow_to_a_limit_with_full_jitter() -> None:
    for attempt, ceiling in [(0, 0.5), (1, 1), (4, 8), (20, MAX_PAUSE_SECS), (5000, MAX_PAUSE_SECS)]:
        pauses = [pause_secs(attempt, None) for _ in range(300)]
        assert 0 <= min(pauses) < 0.1 * ceiling
        assert 0.9 * ceiling < max(pauses) <= ceiling
    assert 30 <= pause_secs(0, 30) <= 31
    assert pause_secs(9, 1e9) <= MAX_RETRY_AFTER_SECS + 1
