"""The delivery log: posts to webhooks and their answers, kept for a week."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseError, UnknownName
from outfeed.history import Item
from outfeed.log_message import LogMessage
from outfeed.redaction import redact
from outfeed.store.database import Connection, Database
from outfeed.store.outbox import read_window
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import Answer

KEEP_FOR = timedelta(days=7)
MAX_ROWS = 1000  # for each webhook
MAX_SHOWN = 50  # posts of one event
MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 2048
# In memory. Above the second limit, accepted posts of that webhook are not logged. Other posts displace the oldest.
MAX_PENDING = 500
MAX_PENDING_ACCEPTED = 100
# For one transaction, which delays writers by less than 50 ms: tests/webhooks/test_delivery_log.py.
MAX_CHUNK_ROWS = 50
MAX_CHUNK_EVENTS = 1000
MAX_EXPIRED_ROWS = 100
EXPIRE_EVERY_SECS = 60.0
_DIGEST_BYTES = 8
_COLUMNS = "id, posted_at, message_id, events, first_seq, last_seq, millis, status, error, request, answer"
log = logging.getLogger(__name__)


class LoggedPost(NamedTuple):
    """One row: a post and its answer.

    *id* is the number of the row. *status* is None if there was no answer; *error* then gives the reason.
    """

    id: int
    posted_at: str
    message_id: str
    events: int
    first_seq: int
    last_seq: int
    millis: int
    status: int | None
    error: str | None
    request: str
    answer: str

    @property
    def is_delivered(self) -> bool:
        """Return whether the target accepted the post."""
        return self.status is not None and 200 <= self.status < 300


class _PendingPost(NamedTuple):
    webhook: str
    epoch: str
    seqs: list[int]
    posted_at: str
    message_id: str
    millis: int
    request: bytes
    answer: Answer


class DeliveryLog:
    """Collects posts in memory. A job writes them.

    So no delivery waits for the log or fails with it. Any thread may call `add`. `_lock` guards the pending posts. One
    thread at a time calls `write`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._pending: deque[_PendingPost] = deque(maxlen=MAX_PENDING)
        self._expired_at = -EXPIRE_EVERY_SECS

    def add(
        self, webhook: str, epoch: str, items: Sequence[Item], message: Message, answer: Answer, secs: float
    ) -> None:
        """Keep a post of *items* that took *secs* until the next `write`."""
        seqs = [item.seq for item in items]
        body = message.body[: MAX_REQUEST_BYTES + 1]  # a part only: a batch has up to 512 KiB
        post = _PendingPost(webhook, epoch, seqs, clock.timestamp(), message.id, round(secs * 1000), body, answer)
        with self._lock:
            if not answer.is_delivered or self._accepted(webhook) < MAX_PENDING_ACCEPTED:
                self._pending.append(post)

    def _accepted(self, webhook: str) -> int:
        return sum(each.webhook == webhook and each.answer.is_delivered for each in self._pending)

    def write(self) -> None:
        """Write the pending posts and remove rows above the limits.

        After a database error the unwritten posts are dropped.
        """
        with self._lock:
            pending = list(self._pending)
            self._pending.clear()
        try:
            for chunk in _chunks(pending):
                self._write_chunk(chunk)
            if clock.monotonic() - self._expired_at >= EXPIRE_EVERY_SECS:
                self._expire()
        except DatabaseError as error:
            log.info(LogMessage("webhook log is not written", error=error))

    def _write_chunk(self, chunk: Sequence[_PendingPost]) -> None:
        rows = [(post, _request_text(post.request), _answer_text(post.answer)) for post in chunk]
        with self._database.transaction() as connection:
            epoch = read_window(connection).epoch
            for post, request, answer in rows:
                if post.epoch == epoch:
                    _insert(connection, post, request, answer)
            for webhook in {post.webhook for post in chunk}:
                _trim(connection, webhook)

    def _expire(self) -> None:
        limit = _oldest_kept()
        while True:
            with self._database.connection() as connection:
                if not _expired(connection, limit):
                    break
            with self._database.transaction() as connection:
                expired = _expired(connection, limit)
                connection.executemany("DELETE FROM outfeed_webhook_log WHERE id = ?", expired)
        self._expired_at = clock.monotonic()


def _chunks(pending: Sequence[_PendingPost]) -> Iterator[list[_PendingPost]]:
    """Yield parts of *pending*. Each is written in one transaction."""
    chunk: list[_PendingPost] = []
    for post in pending:
        events = sum(len(each.seqs) for each in chunk)
        if chunk and (len(chunk) >= MAX_CHUNK_ROWS or events + len(post.seqs) > MAX_CHUNK_EVENTS):
            yield chunk
            chunk = []
        chunk.append(post)
    if chunk:
        yield chunk


def _insert(connection: Connection, post: _PendingPost, request: str, answer: str) -> None:
    """Write one row, unless its webhook or one of its events is gone.

    The webhook may have been removed, or an event erased, since the post.
    """
    ids = connection.execute(
        "SELECT event_id FROM outbox WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(post.seqs),)
    ).fetchall()
    if len(ids) < len(post.seqs):
        return
    digests = b"".join(_digest(str(event_id)) for (event_id,) in ids)
    connection.execute(
        "INSERT INTO outfeed_webhook_log (webhook, event_digests, posted_at, message_id, events, first_seq, last_seq,"
        " millis, status, error, request, answer)"
        " SELECT name, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM outfeed_webhook WHERE name = ?",
        (
            digests, post.posted_at, post.message_id, len(post.seqs), post.seqs[0], post.seqs[-1], post.millis,
            post.answer.status, post.answer.error, request, answer, post.webhook,
        ),
    )  # fmt: skip


def _trim(connection: Connection, webhook: str) -> None:
    connection.execute(
        "DELETE FROM outfeed_webhook_log WHERE webhook = ?1 AND id <="
        " (SELECT id FROM outfeed_webhook_log WHERE webhook = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        (webhook, MAX_ROWS),
    )


def _expired(connection: Connection, limit: datetime) -> list[tuple[int]]:
    """Return the ids of up to MAX_EXPIRED_ROWS rows older than *limit*."""
    rows = connection.execute(
        "SELECT id, posted_at FROM outfeed_webhook_log ORDER BY id LIMIT ?", (MAX_EXPIRED_ROWS,)
    ).fetchall()
    return [(id_,) for id_, posted_at in rows if datetime.fromisoformat(posted_at) < limit]


def _oldest_kept() -> datetime:
    return clock.now() - KEEP_FOR


def _request_text(body: bytes) -> str:
    # Its events are already redacted.
    return _cut(body.decode("utf-8", "replace"), MAX_REQUEST_BYTES)


def _answer_text(answer: Answer) -> str:
    return _cut(str(redact(answer.body.decode("utf-8", "replace"))), MAX_ANSWER_BYTES)


def _cut(text: str, max_bytes: int) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= max_bytes else raw[: max_bytes - 3].decode("utf-8", "ignore") + "…"


def _digest(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode("utf-8", "replace"), digest_size=_DIGEST_BYTES).digest()


# --- for operators ----------------------------------------------------------------------------------------------------


def read(database: Database, webhook: str) -> list[LoggedPost]:
    """Return the webhook's posts of the last KEEP_FOR, oldest first."""
    limit = _oldest_kept()
    with database.connection() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM outfeed_webhook_log WHERE webhook = ? ORDER BY id",  # noqa: S608 - ours
            (webhook,),
        ).fetchall()
    posts = [LoggedPost(*row) for row in rows]
    return [post for post in posts if datetime.fromisoformat(post.posted_at) >= limit]


def read_page(database: Database, webhook: str, limit: int, before: int | None = None) -> list[LoggedPost]:
    """Return the webhook's newest *limit* posts, newest first.

    With *before*, all of them are older than the row of that number.
    """
    oldest = _oldest_kept()
    with database.connection() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM outfeed_webhook_log WHERE webhook = ?1 AND (?2 IS NULL OR id < ?2)"  # noqa: S608
            " ORDER BY id DESC LIMIT ?3",
            (webhook, before, limit),
        ).fetchall()
    posts = [LoggedPost(*row) for row in rows]
    return [post for post in posts if datetime.fromisoformat(post.posted_at) >= oldest]


def attempts(database: Database, webhook: str) -> dict[int, int]:
    """Return for each logged post the number of its attempt, from 1.

    Posts with one message id are attempts at one message. The log may lack the first ones.
    """
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT id, message_id FROM outfeed_webhook_log WHERE webhook = ? ORDER BY id", (webhook,)
        ).fetchall()
    counts: Counter[str] = Counter()
    found: dict[int, int] = {}
    for number, message_id in rows:
        counts[message_id] += 1
        found[number] = counts[message_id]
    return found


def find(database: Database, webhook: str, post_id: int) -> LoggedPost:
    """Return the post with that number. Raises UnknownName."""
    with database.connection() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM outfeed_webhook_log WHERE webhook = ? AND id = ?",  # noqa: S608 - ours
            (webhook, post_id),
        ).fetchone()
    if row is None:
        raise UnknownName(
            f"the log of webhook {webhook!r} has no post {post_id}; `outfeed webhook log` shows all posts"
        )
    return LoggedPost(*row)


def posts_with(database: Database, event_id: str) -> list[tuple[str, LoggedPost]]:
    """Return the newest MAX_SHOWN posts of an event, each with its webhook."""
    with database.connection() as connection:
        rows = connection.execute(
            f"SELECT webhook, {_COLUMNS} FROM outfeed_webhook_log WHERE instr(event_digests, ?)"  # noqa: S608 - ours
            " ORDER BY id DESC LIMIT ?",
            (_digest(event_id), MAX_SHOWN),
        ).fetchall()
    return [(webhook, LoggedPost(*row)) for webhook, *row in rows]


def holds(connection: Connection, event_id: str) -> bool:
    """Return whether the log contains a post with that event."""
    row = connection.execute("SELECT 1 FROM outfeed_webhook_log WHERE instr(event_digests, ?)", (_digest(event_id),))
    return row.fetchone() is not None


def erase(connection: Connection, event_id: str) -> None:
    """Delete every post with that event, in the caller's transaction."""
    connection.execute("DELETE FROM outfeed_webhook_log WHERE instr(event_digests, ?)", (_digest(event_id),))
