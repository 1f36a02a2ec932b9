"""Rejected events, and webhooks that are changed during retries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from outfeed import config, list_events, log_event
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.webhooks import delivery
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery import MAX_REJECTIONS
from outfeed.webhooks.message import new_secret
from outfeed.webhooks.store import OnRejection, WebhookState
from tests.receiver import SECRET, Post, Receiver, Reply
from tests.waits import wait_until
from tests.webhooks.test_delivery import checkpoint_of, log, raw, receiver, serving, warnings

__all__ = ["receiver"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECS", 0.001)
    monkeypatch.setattr(delivery, "MAX_PAUSE_SECS", 0.02)


def add(
    database: Database,
    receiver: Receiver,
    on_rejection: OnRejection = OnRejection.SKIP,
    types: tuple[str, ...] = ("a.b",),
    batch: int = 0,
) -> None:
    webhook.add(database, "ops", receiver.url, types=types, secret=SECRET, batch=batch, on_rejection=on_rejection)


def reject(*seqs: int, status: int = 400) -> Callable[[Post], Reply]:
    return lambda post: Reply(status if set(seqs) & set(post.seqs) else 200)


def count_of(receiver: Receiver, seq: int) -> int:
    return sum(seq in post.seqs for post in receiver.posts)


def skipped(seq: int, event_id: str, status: int = 400) -> str:
    return f"Webhook ops skipped seq {seq} a.b {event_id}: the target answered {status}, {MAX_REJECTIONS} times"


class TestSkipping:
    @pytest.mark.parametrize("status", [400, 413, 415, 422])
    def test_an_event_is_skipped_after_repeated_rejections_with_a_warning(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        add(database, receiver)
        log(1)
        poison = log_event("a.b", "tests")
        log(1)
        receiver.behave = reject(2, status=status)
        with serving(monkeypatch):
            wait_until(lambda: receiver.seqs() == [1, 3], "the other events arrive")
            wait_until(lambda: checkpoint_of(database) >= 3, "the checkpoint moves")
        assert count_of(receiver, 2) == MAX_REJECTIONS
        assert warnings() == [skipped(2, poison.id, status)]
        found = webhook.find(database, "ops")
        assert (found.state, found.failing_since, found.last_error, found.skips) == (
            WebhookState.ACTIVE, None, None, 0,
        )  # fmt: skip

    @pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 0])
    def test_other_statuses_never_skip(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        add(database, receiver)
        log(2)
        receiver.behave = reject(1, status=status)
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.posts) > 3 * MAX_REJECTIONS, "many tries")
            assert checkpoint_of(database) == 0
        assert {post.seqs[0] for post in receiver.posts} == {1}
        assert warnings() == []

    def test_a_410_pauses_and_skips_nothing(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(2)
        receiver.behave = reject(1, status=410)
        with serving(monkeypatch):
            wait_until(lambda: webhook.find(database, "ops").state == WebhookState.PAUSED, "paused")
        assert len(receiver.posts) == 1
        assert checkpoint_of(database) == 0

    def test_another_failure_restarts_the_count(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = [400] * (MAX_REJECTIONS - 1) + [503] + [400] * (MAX_REJECTIONS - 1) + [200]
        add(database, receiver)
        log(1)
        receiver.behave = lambda post: Reply(answers[len(receiver.posts) - 1])
        with serving(monkeypatch):
            wait_until(lambda: receiver.seqs() == [1], "the event is accepted")
        assert len(receiver.posts) == len(answers)
        assert warnings() == []

    def test_without_the_option_a_rejected_event_is_retried(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        webhook.add(database, "ops", receiver.url, types=("a.b",), secret=SECRET, batch=0)
        log(2)
        receiver.behave = reject(1)
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.posts) > 3 * MAX_REJECTIONS, "many tries")
            receiver.behave = reject()
            wait_until(lambda: receiver.seqs() == [1, 2], "both arrive")
        assert warnings() == []

    def test_a_batch_is_skipped_as_a_whole(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver, batch=3)
        log(7)
        receiver.behave = reject(5, status=413)
        with serving(monkeypatch):
            wait_until(lambda: receiver.seqs() == [1, 2, 3, 7], "the other events arrive")
        assert len(warnings()) == 1
        assert "and 2 more events up to seq 6: the target answered 413" in warnings()[0]

    def test_the_count_of_skips_survives_a_restart(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        receiver.behave = reject(1, 2, 3, 4)
        for count in (1, 2):
            log(1)
            with serving(monkeypatch):
                wait_until(lambda count=count: len(warnings()) == count, "skipped")  # type: ignore[misc]
            assert webhook.find(database, "ops").skips == count


class TestPausing:
    def test_three_skips_in_a_row_pause_it(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(5)
        receiver.behave = reject(1, 2, 3, 4, 5)
        with serving(monkeypatch):
            wait_until(lambda: len(warnings()) == 4, "three skips and the pause")
            assert webhook.find(database, "ops").state == WebhookState.PAUSED
            assert {post.seqs[0] for post in receiver.posts} == {1, 2, 3}
            paused = (
                "Webhook ops is paused: 3 posts in a row were skipped. `outfeed webhook resume ops` continues after 3"
            )
            assert paused in warnings()
            receiver.behave = reject(4)
            webhook.resume(database, "ops")
            wait_until(lambda: receiver.seqs() == [5], "one more skip, then the delivery continues")
        assert len(warnings()) == 5
        assert webhook.find(database, "ops").state == WebhookState.ACTIVE

    def test_an_accepted_event_restarts_the_count(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(7)
        receiver.behave = reject(1, 2, 4, 5, 7)
        with serving(monkeypatch):
            wait_until(lambda: len(warnings()) == 5, "five skips")
        assert receiver.seqs() == [3, 6]
        assert webhook.find(database, "ops").state == WebhookState.ACTIVE

    def test_a_webhook_whose_warnings_are_rejected_is_paused(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver, types=())
        log(1)
        receiver.behave = lambda _: Reply(400)
        with serving(monkeypatch):
            wait_until(lambda: webhook.find(database, "ops").state == WebhookState.PAUSED, "paused")
        assert len(list_events("system.warning", source="webhooks")) == 4


def test_an_event_with_a_very_long_id_is_skipped(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTFEED_MAX_EVENT_BYTES", "8192")
    config.settings.cache_clear()
    add(database, receiver)
    with db.default().transaction() as connection:  # a raw writer
        connection.execute(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', '2026-01-01T00:00:00Z')",
            ("x" * 7000,),
        )
    log(1)
    receiver.behave = reject(1)
    with serving(monkeypatch):
        wait_until(lambda: receiver.seqs() == [2], "the other events arrive")
    assert len(warnings()[0]) < 500


class TestChanges:
    def test_a_changed_policy_applies_to_a_blocking_event(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver, OnRejection.RETRY)
        log(2)
        receiver.behave = reject(1)
        with serving(monkeypatch):
            wait_until(lambda: len(receiver.posts) > MAX_REJECTIONS, "an event blocks the webhook")
            webhook.edit(database, "ops", on_rejection=OnRejection.SKIP)
            wait_until(lambda: receiver.seqs() == [2], "the other events arrive")

    def test_a_changed_url_gets_the_undelivered_events(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(1)
        with serving(monkeypatch), Receiver() as other:
            wait_until(lambda: checkpoint_of(database) == 1, "the first event")
            receiver.behave = lambda _: Reply(500)
            monkeypatch.setattr(delivery, "FIRST_PAUSE_SECS", 1e6)
            monkeypatch.setattr(delivery, "MAX_PAUSE_SECS", 1e6)  # no automatic retry
            log(2)
            wait_until(lambda: webhook.find(database, "ops").failing_since, "a post fails")
            webhook.edit(database, "ops", url=other.url)
            wait_until(lambda: other.seqs() == [2, 3], "the other events arrive at once")
        assert receiver.seqs() == [1]
        assert other.problems == []

    def test_changed_types_apply_from_the_checkpoint_on(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        log(1, "x.y")
        log(1)
        with serving(monkeypatch):
            wait_until(lambda: checkpoint_of(database) == 2, "the checkpoint moves")
            (claims,) = raw(database, "SELECT generation FROM outfeed_checkpoint")
            webhook.edit(database, "ops", types=("x.*",))
            wait_until(
                lambda: raw(database, "SELECT generation FROM outfeed_checkpoint") > [claims], "the change is applied"
            )
            log(1)
            log(1, "x.y")
            wait_until(lambda: receiver.seqs() == [2, 4], "only the new type arrives")

    def test_a_rotated_secret_signs_beside_the_old_one_for_a_day(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(database, receiver)
        new = new_secret()
        with serving(monkeypatch):
            webhook.rotate(database, "ops", new)
            log(1)
            wait_until(lambda: receiver.seqs() == [1], "the old secret verifies the post")
            wait_until(lambda: len(signatures(receiver)) == 2 or log(1), "the new secret signs too")
            receiver.secret = new
            log(1)
            wait_until(lambda: checkpoint_of(database) == receiver.seqs()[-1] > 1, "the new secret verifies the post")
            with database.transaction() as connection:  # a day later
                connection.execute(
                    "UPDATE outfeed_webhook SET old_secret_until = '2020-01-01T00:00:00.000Z', revision = revision + 1"
                )
            wait_until(lambda: len(signatures(receiver)) == 1 or log(1), "the old secret has expired")


def signatures(receiver: Receiver) -> list[str]:
    return receiver.posts[-1].headers["webhook-signature"].split(" ")
