"""The delivery log: its content, its limits, and deliveries without it."""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from freezegun import freeze_time

from outfeed import clock, log_event
from outfeed.errors import UnknownName
from outfeed.history import Item
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from outfeed.upkeep.erasure import erase
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery_log import store as delivery_log
from outfeed.webhooks.delivery_log.store import DeliveryLog, LoggedPost
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import Answer
from tests.receiver import SECRET, Receiver, Reply
from tests.server import make_database
from tests.waits import wait_until
from tests.webhooks.test_delivery import serving

URL = "http://127.0.0.1:9/"
REFUSED = Answer(422, body=b'{"problem": "no such field"}')


@pytest.fixture
def ops(database: Database) -> Database:
    webhook.add(database, "ops", URL, types=(), secret=SECRET, batch=0)
    return database


def items_of(database: Database) -> list[Item]:
    return Outbox(database, 65536).read_after(0, 5000).items


def add_post(log: DeliveryLog, items: Sequence[Item], answer: Answer = REFUSED, name: str = "ops") -> None:
    epoch = Outbox(db.default(), 65536).window().epoch
    message = Message.of_event(epoch, items[0], {}) if len(items) == 1 else Message.of_batch(epoch, items, {})
    log.add(name, epoch, items, message, answer, 0.25)


def posts(database: Database) -> list[LoggedPost]:
    return delivery_log.read(database, "ops")


def everything_in(database: Database) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(database.path.parent.glob(f"{database.path.name}*")))


def test_each_post_is_logged_with_its_request_answer_and_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        receiver.behave = lambda post: Reply(422 if post.is_first and post.seqs == [2] else 200)
        webhook.add(database, "ops", receiver.url, types=(), secret=SECRET, batch=0)
        event_ids = [log_event("a.b", "tests", data=n).id for n in range(2)]
        with serving(monkeypatch):
            wait_until(lambda: len(posts(database)) == 3, "logged")
    first, rejected, again = posts(database)
    assert [(post.status, post.error, post.answer, post.events) for post in (first, rejected, again)] == [
        (200, None, "ok", 1), (422, None, "ok", 1), (200, None, "ok", 1),
    ]  # fmt: skip
    assert [json.loads(post.request)["data"]["id"] for post in (first, rejected)] == event_ids
    assert (rejected.first_seq, rejected.last_seq) == (2, 2)
    assert rejected.message_id == again.message_id == receiver.posts[-1].id
    moment = clock.parsed(first.posted_at)
    assert moment is not None
    assert timedelta() <= clock.now() - moment < timedelta(minutes=1)
    assert first.millis >= 0


def test_a_post_without_an_answer_is_logged(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(behave=lambda _: Reply(0)) as receiver:
        webhook.add(database, "ops", receiver.url, types=(), secret=SECRET, batch=0)
        log_event("a.b", "tests")
        with serving(monkeypatch):
            wait_until(lambda: posts(database), "logged")
    assert posts(database)[0].status is None
    assert posts(database)[0].error
    assert posts(database)[0].answer == ""


def test_a_stopping_server_writes_the_pending_posts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outfeed.webhooks.dispatcher.LOG_SECS", 1e6)
    with Receiver() as receiver:
        webhook.add(database, "ops", receiver.url, types=(), secret=SECRET, batch=0)
        with serving(monkeypatch):
            log_event("a.b", "tests")
            # A stop before the answer is read would cancel the post.
            wait_until(lambda: webhook.list_webhooks(database)[0].delivered, "the answer was read")
    assert [post.status for post in posts(database)] == [200]


def test_secrets_are_redacted_in_requests_and_answers(ops: Database) -> None:
    with ops.transaction() as connection:
        # A raw writer's data is not redacted when it is stored.
        connection.execute(
            "INSERT INTO event_log (id, event_type, source, data, timestamp)"
            """ VALUES ('x', 'a.b', 's', '{"password": "hunter2-request"}', '2026-01-01T00:00:00.000Z')"""
        )
    log = DeliveryLog(ops)
    add_post(log, items_of(ops), Answer(400, body=b'{"you sent": {"password": "hunter2-answer"}, "why": "odd"}'))
    log.write()
    (post,) = posts(ops)
    assert "[redacted]" in post.request
    assert json.loads(post.answer) == {"you sent": {"password": "[redacted]"}, "why": "odd"}
    with closing(sqlite3.connect(ops.path)) as raw:
        assert "hunter2" not in str(raw.execute("SELECT * FROM outfeed_webhook_log").fetchall())


class TestErasure:
    def test_an_erased_event_leaves_no_byte_in_the_file(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        log_event("a.b", "tests", id="kept", data="stays")
        log_event("a.b", "tests", id="leaked", data="LEAKED-REQUEST")
        for item in items_of(ops):
            add_post(log, [item], Answer(400, body=b"LEAKED-ANSWER" if item.id == "leaked" else b"fine"))
        log.write()
        assert b"LEAKED-ANSWER" in everything_in(ops)

        assert erase(ops, "leaked")

        assert [post.answer for post in posts(ops)] == ["fine"]
        assert b"LEAKED" not in everything_in(ops)

    def test_a_batch_with_the_event_is_removed(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        for n in range(9):
            log_event("a.b", "tests", id=f"of-{n}")
        items = items_of(ops)
        add_post(log, items[:3])
        add_post(log, items[3:6])
        add_post(log, items[6:])
        log.write()

        erase(ops, "of-4")

        assert [(post.first_seq, post.last_seq) for post in posts(ops)] == [(1, 3), (7, 9)]

    def test_an_event_that_only_the_delivery_log_has_is_erased(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        log_event("a.b", "tests", id="leaked")
        add_post(log, items_of(ops))
        log.write()
        with ops.transaction() as connection:
            connection.execute("DELETE FROM event_log")
            connection.execute("DELETE FROM outbox")

        assert erase(ops, "leaked", dry_run=True)
        assert len(posts(ops)) == 1, "a dry run"
        assert erase(ops, "leaked")
        assert posts(ops) == []
        assert not erase(ops, "leaked")

    def test_an_event_erased_before_the_log_is_written_is_not_logged(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        for id_ in ("leaked", "in a batch", "fine"):
            log_event("a.b", "tests", id=id_)
        leaked, batched, fine = items_of(ops)
        add_post(log, [leaked])
        add_post(log, [batched, fine])
        add_post(log, [fine])
        erase(ops, "leaked")
        erase(ops, "in a batch")

        log.write()

        assert [post.first_seq for post in posts(ops)] == [3]

    def test_a_post_of_another_history_is_not_logged(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        log_event("a.b", "tests")
        add_post(log, items_of(ops))
        with ops.transaction() as connection:
            connection.execute("UPDATE outfeed_meta SET value = 'other' WHERE key = 'epoch'")
        log.write()
        assert posts(ops) == []


class TestBounds:
    def test_rows_are_kept_for_seven_days(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        log_event("a.b", "tests")
        items = items_of(ops)
        for days in (7.1, 6.9):
            with freeze_time(clock.now() - timedelta(days=days)):
                add_post(log, items)
        log.write()
        with closing(sqlite3.connect(ops.path)) as raw:
            assert raw.execute("SELECT count(*) FROM outfeed_webhook_log").fetchone() == (1,)

    def test_old_rows_are_not_shown_even_if_no_server_removed_them(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        log_event("a.b", "tests")
        add_post(log, items_of(ops))
        log.write()
        with freeze_time(clock.now() + timedelta(days=8)):
            assert posts(ops) == []

    def test_each_webhook_keeps_its_newest_rows(self, ops: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delivery_log, "MAX_ROWS", 5)
        webhook.add(ops, "rare", URL, types=(), secret=SECRET, batch=0)
        log = DeliveryLog(ops)
        for _ in range(9):
            log_event("a.b", "tests")
        items = items_of(ops)
        add_post(log, items[:1], name="rare")
        for item in items:
            add_post(log, [item])
            log.write()
        assert [post.first_seq for post in posts(ops)] == [5, 6, 7, 8, 9]
        assert len(delivery_log.read(ops, "rare")) == 1

    def test_a_row_is_bounded_in_bytes(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        for _ in range(1000):
            log_event("a.b", "tests", data="ä" * 50)
        add_post(log, items_of(ops), Answer(400, body="✓".encode() * 5000))
        log.write()
        (post,) = posts(ops)
        assert 4000 < len(post.request.encode()) <= delivery_log.MAX_REQUEST_BYTES
        assert 2000 < len(post.answer.encode()) <= delivery_log.MAX_ANSWER_BYTES
        assert post.answer.endswith("✓…")
        with closing(sqlite3.connect(ops.path)) as raw:
            (digests,) = raw.execute("SELECT length(event_digests) FROM outfeed_webhook_log").fetchone()
        assert digests == 8 * 1000

    def test_pending_posts_are_bounded_and_failures_are_kept(
        self, ops: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(delivery_log, "MAX_PENDING_ACCEPTED", 3)
        log = DeliveryLog(ops)
        log_event("a.b", "tests")
        items = items_of(ops)
        add_post(log, items)
        for _ in range(delivery_log.MAX_PENDING):
            add_post(log, items, Answer(200))
        add_post(log, items)
        log.write()
        assert [post.status for post in posts(ops)] == [422, 200, 200, 200, 422]

    def test_removing_the_webhook_removes_its_log(self, ops: Database) -> None:
        log = DeliveryLog(ops)
        log_event("a.b", "tests")
        add_post(log, items_of(ops))
        log.write()
        add_post(log, items_of(ops))
        webhook.remove(ops, "ops")
        log.write()
        assert posts(ops) == []
        with pytest.raises(UnknownName):
            webhook.find(ops, "ops")


def test_no_delivery_waits_for_a_log_that_cannot_be_written(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(database.path, isolation_level=None)) as raw, Receiver() as receiver:
        webhook.add(database, "ops", receiver.url, types=(), secret=SECRET, batch=0)
        raw.execute("DROP TABLE outfeed_webhook_log")
        with serving(monkeypatch):
            for _ in range(5):
                log_event("a.b", "tests")
            wait_until(lambda: receiver.seqs() == [1, 2, 3, 4, 5], "all events are posted")
    assert all(post.is_first for post in receiver.posts)
    assert webhook.find(database, "ops").failures == 0


def test_no_writer_waits_long_for_the_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Writes a full log on the disk at the limits of rows, events and bytes.

    The time includes redaction.
    """
    path: Path = tmp_path_factory.mktemp("disk") / "outfeed.db"
    make_database(path)
    database = db.at(path)
    webhook.add(database, "ops", URL, types=(), secret=SECRET, batch=0)
    with database.transaction() as connection:
        for _ in range(1000):
            log_event("a.b", "tests", connection=connection)
    items, epoch = items_of(database), Outbox(database, 65536).window().epoch
    request = Message("e:1", orjson.dumps("r" * 9000))
    log = DeliveryLog(database)
    took: list[float] = []
    for _ in range(40):  # from the 20th on, each write also removes as many rows as it adds
        for _ in range(delivery_log.MAX_CHUNK_ROWS):
            log.add("ops", epoch, items[:20], request, Answer(400, body=b"a" * 9000), 0.1)
        began = clock.monotonic()
        log.write()
        took.append(clock.monotonic() - began)
    assert len(delivery_log.read(database, "ops")) == delivery_log.MAX_ROWS
    database.close()
    print("a chunk of the log, s: median", statistics.median(took), "longest", max(took))
    assert statistics.median(took) < 0.05
