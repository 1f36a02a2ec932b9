"""Operations on webhooks: posts on request, and their audit events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from outfeed import list_events, log_event
from outfeed.config import Settings
from outfeed.errors import NotBlocked, Overtaken, TargetForbidden, UnknownName
from outfeed.history import Item
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from outfeed.text import check_short_name
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery_log import store as delivery_log
from outfeed.webhooks.delivery_log.store import DeliveryLog
from outfeed.webhooks.message import Message
from outfeed.webhooks.operations import Webhooks, parsed_types
from outfeed.webhooks.target import Answer
from tests.receiver import SECRET, Receiver

URL = "http://127.0.0.1:9/hook?key=private"


@pytest.fixture
def hooks(database: Database) -> Webhooks:
    return Webhooks(database, Settings(database=database.path, webhook_allow="127.0.0.1"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def add(database: Database, url: str, batch: int = 0) -> None:
    webhook.add(database, "ops", url, types=("a.*",), secret=SECRET, batch=batch)


def log_post(database: Database, count: int, batch: int = 0) -> list[Item]:
    """Log *count* events, others between them, and one failed post of them."""
    for n in range(count):
        log_event("a.b", "tests", data=n, id=f"of-{n}")
        log_event("x.y", "tests")
    page = Outbox(database, 65536).read_after(0, 5000)
    items = [item for item in page.items if item.event_type == "a.b"]
    epoch = page.window.epoch
    message = Message.of_batch(epoch, items, {}) if batch else Message.of_event(epoch, items[0], {})
    log = DeliveryLog(database)
    log.add("ops", epoch, items, message, Answer(500), 0.1)
    log.write()
    return items


class TestSendAgain:
    @pytest.mark.parametrize(("batch", "count"), [(0, 1), (50, 3)])
    def test_the_same_message_is_posted_and_logged(
        self, database: Database, hooks: Webhooks, receiver: Receiver, batch: int, count: int
    ) -> None:
        add(database, receiver.url, batch)
        items = log_post(database, count, batch)
        (logged,) = delivery_log.read(database, "ops")

        posted = hooks.send_again("ops", logged.id, "ann")

        assert (posted.answer.status, receiver.problems) == (200, [])
        (post,) = receiver.posts
        assert (post.id, post.seqs) == (logged.message_id, [item.seq for item in items])
        again = delivery_log.read(database, "ops")[-1]
        assert (again.message_id, again.events, again.status, again.answer) == (post.id, count, 200, "ok")

    def test_the_position_of_the_webhook_stays(self, database: Database, hooks: Webhooks, receiver: Receiver) -> None:
        add(database, receiver.url)
        log_post(database, 1)
        before = webhook.find(database, "ops")

        hooks.send_again("ops", delivery_log.read(database, "ops")[0].id, "ann")

        after = webhook.find(database, "ops")
        assert (after.seq, after.delivered, after.revision) == (before.seq, before.delivered, before.revision)

    @pytest.mark.parametrize(
        "change",
        [
            "DELETE FROM outbox",
            "UPDATE outfeed_meta SET value = 'other' WHERE key = 'epoch'",
            "UPDATE outfeed_webhook SET types = 'x.*'",
        ],
    )
    def test_events_that_changed_or_are_gone_are_not_posted(
        self, database: Database, hooks: Webhooks, receiver: Receiver, change: str
    ) -> None:
        add(database, receiver.url)
        log_post(database, 1)
        (logged,) = delivery_log.read(database, "ops")
        with closing(sqlite3.connect(database.path)) as raw, raw:
            raw.execute(change)

        with pytest.raises(Overtaken, match="can't be sent again"):
            hooks.send_again("ops", logged.id, "ann")

        assert receiver.posts == []

    def test_a_post_of_another_webhook_is_unknown(self, database: Database, hooks: Webhooks) -> None:
        add(database, URL)
        log_post(database, 1)
        webhook.add(database, "other", URL, types=(), secret=SECRET, batch=0)
        (logged,) = delivery_log.read(database, "ops")

        with pytest.raises(UnknownName, match="webhook 'other' has no post"):
            hooks.send_again("other", logged.id, "ann")

    def test_the_command_shows_the_answer(self, outfeed, database, monkeypatch, receiver):  # type: ignore[no-untyped-def]
        monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "127.0.0.1")
        add(database, receiver.url)
        log_post(database, 1)
        (post,) = json.loads(outfeed("webhook", "log", "ops", "--json").stdout)

        result = outfeed("webhook", "send-again", "ops", post["id"])

        assert result.exit_code == 0
        assert result.output.startswith(f"Webhook ops accepted post {post['id']}: 200 in ")
        assert len(receiver.posts) == 1
        assert outfeed("webhook", "send-again", "ops", 99).exit_code == 1


class TestAudit:
    def test_each_change_is_an_event_with_the_principal_and_without_the_url(
        self, database: Database, hooks: Webhooks, receiver: Receiver
    ) -> None:
        webhook.add(database, "ops", receiver.url, types=(), secret=SECRET, batch=0, by="ann")
        webhook.edit(database, "ops", types=("a.*",), by="ann")
        webhook.rotate(database, "ops", SECRET, by="ann")
        webhook.pause(database, "ops", by="ann")
        webhook.resume(database, "ops", by="ann")
        hooks.test("ops", "ann")
        log_post(database, 1)
        hooks.send_again("ops", delivery_log.read(database, "ops")[0].id, "ann")
        webhook.remove(database, "ops", by="ann")

        events = [event for event in reversed(list_events()) if event.event_type.startswith("access.")]

        done = [event.event_type.removeprefix("access.webhook_") for event in events]
        assert done == ["added", "changed", "rotated", "paused", "resumed", "tested", "sent_again", "removed"]
        assert {(event.data["by"], event.data["name"]) for event in events} == {("ann", "ops")}
        assert "hook?key" not in str([event.data for event in events])
        assert SECRET not in str([event.data for event in events])
        assert events[1].data["fields"] == ["types"]

    def test_a_new_webhook_begins_behind_its_own_event(self, database: Database) -> None:
        webhook.add(database, "ops", URL, types=(), secret=SECRET, batch=0, by="ann")

        assert webhook.find(database, "ops").lag == 0


class TestChecks:
    def test_a_private_target_is_refused_unless_it_is_allowed(self, database: Database, hooks: Webhooks) -> None:
        assert hooks.warning_of(URL) is None
        with pytest.raises(TargetForbidden):
            hooks.warning_of("http://127.0.0.2/")

    def test_an_unresolved_name_is_a_warning(self, hooks: Webhooks) -> None:
        assert "can't be resolved" in str(hooks.warning_of("http://unknown.invalid/"))

    def test_skip_fails_without_a_blocking_event(self, database: Database, hooks: Webhooks) -> None:
        add(database, URL)

        with pytest.raises(NotBlocked):
            hooks.skip("ops", "ann")

    def test_names_and_types_are_checked(self) -> None:
        assert check_short_name("a.b-c_9") == "a.b-c_9"
        assert parsed_types(" task.*,, x.y ") == ("task.*", "x.y")
        for name in ("", "a b", "webhook:x", "n" * 56):
            with pytest.raises(ValueError, match="up to 55"):
                check_short_name(name)


class TestPages:
    def test_pages_of_the_log_have_the_newest_first(self, database: Database) -> None:
        add(database, URL)
        for _ in range(3):
            log_post(database, 1)
        numbers = [post.id for post in delivery_log.read(database, "ops")]

        first = delivery_log.read_page(database, "ops", 2)
        second = delivery_log.read_page(database, "ops", 2, first[-1].id)

        assert [post.id for post in (*first, *second)] == numbers[::-1]
