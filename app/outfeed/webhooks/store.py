"""The rows of webhooks: targets, states and results.

The position of a webhook is its checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.errors import NameTaken, NotBlocked, UnknownName
from outfeed.events import EventType
from outfeed.history import Claim, Item, Window
from outfeed.log_message import LogMessage
from outfeed.store import audit, checkpoint, event_log
from outfeed.store.database import Connection, Database, IntegrityError
from outfeed.store.outbox import read_window

OLD_SECRET_VALID_FOR = timedelta(days=1)
MAX_SKIPS = 3  # in a row
SOURCE = "webhooks"  # of the events about webhooks
_COLUMNS = """
    webhook.name, url, types, secret, batch, batch_end, state, webhook.created_at, failing_since, last_status,
    last_error, last_tried_at, delivered, failures, revision, on_rejection, skips, old_secret, old_secret_until,
    coalesce(epoch, ''), coalesce(seq, 0)
"""
# A webhook has no checkpoint if a client removed it. The next claim creates another.
_SELECT = f"""
    SELECT {_COLUMNS} FROM outfeed_webhook AS webhook
    LEFT JOIN outfeed_checkpoint AS checkpoint ON checkpoint.name = 'webhook:' || webhook.name
"""  # noqa: S608
log = logging.getLogger(__name__)


class WebhookState(StrEnum):
    """Whether the server posts to the webhook."""

    ACTIVE = "active"
    PAUSED = "paused"


class OnRejection(StrEnum):
    """Policy for a post that the target rejects.

    The server retries it, or skips it after some retries.
    """

    RETRY = "retry"
    SKIP = "skip"


class Webhook(NamedTuple):
    """One row, with its checkpoint. The repr and all lists omit the secrets."""

    name: str
    url: str
    types: tuple[str, ...]
    secret: str
    batch: int
    batch_end: int
    state: WebhookState
    created_at: str
    failing_since: str | None
    last_status: int | None
    last_error: str | None
    last_tried_at: str | None
    delivered: int
    failures: int
    revision: int
    on_rejection: OnRejection
    skips: int
    old_secret: str | None
    old_secret_until: str | None
    epoch: str
    seq: int
    lag: int

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the secrets that sign a post now.

        For a day after a rotation, the previous secret is the second.
        """
        until = clock.parsed(self.old_secret_until)
        is_valid = self.old_secret is not None and until is not None and clock.now() < until
        return (self.secret, str(self.old_secret)) if is_valid else (self.secret,)

    def __repr__(self) -> str:
        return f"Webhook({self.name!r}, {self.state.value!r}, seq={self.seq})"


def consumer_of(name: str) -> str:
    """Return the name of the webhook's checkpoint.

    No client can claim it: the names of clients' consumers have no colon.
    """
    return f"webhook:{name}"


# --- for operators ----------------------------------------------------------------------------------------------------


def add(
    database: Database,
    name: str,
    url: str,
    *,
    types: Iterable[str],
    secret: str,
    batch: int,
    on_rejection: OnRejection = OnRejection.RETRY,
    by: str | None = None,
) -> None:
    """Insert an active webhook that starts at the head. Raises NameTaken.

    Pruning keeps the outbox rows that it has not delivered. The audit event of this and every other change has no URL,
    which may contain a secret.
    """
    row = (name, url, ",".join(types), secret, batch, WebhookState.ACTIVE, clock.timestamp(), on_rejection)
    with database.transaction() as connection:
        try:
            connection.execute(
                "INSERT INTO outfeed_webhook (name, url, types, secret, batch, state, created_at, on_rejection,"
                " batch_end, delivered, failures, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0)",
                row,
            )
        except IntegrityError:
            raise NameTaken(f"there is already a webhook named {name!r}; remove it or choose another name") from None
        audit.record(connection, "access.webhook_added", by, name=name)
        checkpoint.delete(connection, consumer_of(name))
        checkpoint.renew(connection, consumer_of(name), is_protected=True)


def list_webhooks(database: Database) -> list[Webhook]:
    """Return every webhook, by name."""
    with database.snapshot() as connection:
        window = read_window(connection)
        rows = connection.execute(f"{_SELECT} ORDER BY webhook.name").fetchall()
    return [_webhook(row, window) for row in rows]


def find(database: Database, name: str) -> Webhook:
    """Return the webhook named *name*. Raises UnknownName."""
    with database.snapshot() as connection:
        return _find(connection, name)


def pause(database: Database, name: str, *, by: str | None = None) -> None:
    """Stop posting to the webhook until it is resumed. Raises UnknownName.

    Its events are kept.
    """
    with database.transaction() as connection:
        _set_state(connection, name, WebhookState.PAUSED)
        audit.record(connection, "access.webhook_paused", by, name=name)


def resume(database: Database, name: str, *, by: str | None = None) -> Webhook:
    """Continue at the checkpoint, at once. Raises UnknownName.

    An active webhook that waits for a retry is retried at once.
    """
    with database.transaction() as connection:
        _set_state(connection, name, WebhookState.ACTIVE)
        connection.execute(
            "UPDATE outfeed_webhook SET failing_since = NULL, last_error = NULL, skips = 0 WHERE name = ?", (name,)
        )
        audit.record(connection, "access.webhook_resumed", by, name=name)
        return _find(connection, name)


def edit(
    database: Database,
    name: str,
    *,
    url: str | None = None,
    types: Iterable[str] | None = None,
    on_rejection: OnRejection | None = None,
    by: str | None = None,
) -> Webhook:
    """Change the given attributes of the webhook. Raises UnknownName.

    A post that waits for a retry is posted at once. Events that were delivered or passed over before are not posted
    again.
    """
    joined = None if types is None else ",".join(types)
    given = {"url": url, "types": joined, "on_rejection": on_rejection}
    with database.transaction() as connection:
        changed = connection.execute(
            "UPDATE outfeed_webhook SET url = coalesce(?, url), types = coalesce(?, types),"
            " on_rejection = coalesce(?, on_rejection), failing_since = NULL, last_error = NULL, skips = 0,"
            " revision = revision + 1 WHERE name = ?",
            (*given.values(), name),
        ).rowcount
        _require(changed, name)
        fields = [field for field, value in given.items() if value is not None]
        audit.record(connection, "access.webhook_changed", by, name=name, fields=fields)
        return _find(connection, name)


def rotate(database: Database, name: str, secret: str, *, by: str | None = None) -> None:
    """Sign with *secret* from now on. Raises UnknownName.

    The previous secret signs too, for OLD_SECRET_VALID_FOR.
    """
    until = clock.isoformat(clock.now() + OLD_SECRET_VALID_FOR)
    with database.transaction() as connection:
        changed = connection.execute(
            "UPDATE outfeed_webhook SET old_secret = secret, old_secret_until = ?, secret = ?, revision = revision + 1"
            " WHERE name = ?",
            (until, secret, name),
        ).rowcount
        _require(changed, name)
        audit.record(connection, "access.webhook_rotated", by, name=name)


def skip(database: Database, blocked: Webhook, items: Sequence[Item], by: str) -> None:
    """Move the checkpoint past *items*, the post that blocks a webhook.

    Writes an audit event in the same transaction. *blocked* is the webhook as it was when *items* were read. Raises
    UnknownName, and NotBlocked if the webhook has moved since.
    """
    name, last_seq = blocked.name, items[-1].seq
    with database.transaction() as connection:
        found = _find(connection, name)
        if found.failing_since is None or (found.epoch, found.seq) != (blocked.epoch, blocked.seq):
            raise NotBlocked(f"webhook {name} has moved on; `outfeed webhook list` shows what blocks it now")
        checkpoint.renew(connection, consumer_of(name), is_protected=True)
        checkpoint.advance(connection, consumer_of(name), blocked.epoch, last_seq)
        connection.execute(
            "UPDATE outfeed_webhook SET failing_since = NULL, last_error = NULL, skips = 0, revision = revision + 1"
            " WHERE name = ?",
            (name,),
        )
        data = {"name": name, "events": len(items), "first_seq": items[0].seq, "last_seq": last_seq}
        audit.record(connection, "access.webhook_skipped", by, **data, id=items[0].id)


def remove(database: Database, name: str, *, by: str | None = None) -> None:
    """Delete the webhook, its secret, its log and its checkpoint.

    Raises UnknownName.
    """
    with database.transaction() as connection:
        _require(connection.execute("DELETE FROM outfeed_webhook WHERE name = ?", (name,)).rowcount, name)
        connection.execute("DELETE FROM outfeed_webhook_log WHERE webhook = ?", (name,))
        checkpoint.delete(connection, consumer_of(name))
        audit.record(connection, "access.webhook_removed", by, name=name)


def note_post(database: Database, event_type: str, name: str, by: str | None, **data: Any) -> None:
    """Write the audit event of a post that *by* requested."""
    with database.transaction() as connection:
        audit.record(connection, event_type, by, name=name, **data)


def _set_state(connection: Connection, name: str, state: WebhookState) -> None:
    changed = connection.execute(
        "UPDATE outfeed_webhook SET state = ?, revision = revision + 1 WHERE name = ?", (state, name)
    ).rowcount
    _require(changed, name)


def _require(changed: int, name: str) -> None:
    if not changed:
        raise UnknownName(f"webhook {name!r:.80} not found; `outfeed webhook list` shows all webhooks")


def _find(connection: Connection, name: str) -> Webhook:
    row = connection.execute(f"{_SELECT} WHERE webhook.name = ?", (name,)).fetchone()
    _require(row is not None, name)
    return _webhook(row, read_window(connection))


def _webhook(row: tuple[Any, ...], window: Window) -> Webhook:
    epoch, seq = row[-2:]
    found = Webhook._make((*row, window.last_seq - (seq if epoch == window.epoch else 0)))
    return found._replace(
        types=tuple(filter(None, row[2].split(","))),
        state=WebhookState(found.state),
        on_rejection=OnRejection(found.on_rejection),
    )


# --- for the delivery -------------------------------------------------------------------------------------------------


class Version(NamedTuple):
    """Version of a webhook.

    A delivery compares it to notice a change by a command or of the checkpoint.
    """

    created_at: str
    revision: int
    generation: int


def versions(database: Database) -> dict[str, Version]:
    """Return the version of every active webhook."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT webhook.name, webhook.created_at, revision, coalesce(generation, 0) FROM outfeed_webhook AS webhook"
            " LEFT JOIN outfeed_checkpoint AS checkpoint ON checkpoint.name = 'webhook:' || webhook.name"
            " WHERE state = ?",
            (WebhookState.ACTIVE,),
        ).fetchall()
    return {name: Version(*version) for name, *version in rows}


def claim(database: Database, name: str) -> WebhookLease | None:
    """Take over the delivery to the webhook. None if it is paused or removed.

    If its checkpoint was removed, it continues at the head and a warning event is written.
    """
    with database.transaction() as connection:
        row = connection.execute("SELECT state FROM outfeed_webhook WHERE name = ?", (name,)).fetchone()
        if row is None or row[0] != WebhookState.ACTIVE:
            return None
        is_new = not checkpoint.exists(connection, consumer_of(name))
        claimed = checkpoint.renew(connection, consumer_of(name), is_protected=True)
        if is_new:
            connection.execute("UPDATE outfeed_webhook SET batch_end = 0 WHERE name = ?", (name,))
            _write_warning(connection, name, f"lost its checkpoint and continues after {claimed.seq}")
        return WebhookLease(database, _find(connection, name), claimed, read_window(connection))


class WebhookLease:
    """The right to deliver to one webhook, and the writes of its delivery.

    If a newer lease exists, every method raises Superseded and writes nothing. *window* is the outbox's window at the
    time of the claim.
    """

    def __init__(self, database: Database, webhook: Webhook, claim: Claim, window: Window) -> None:
        self.webhook = webhook
        self.claim = claim
        self.window = window
        self._database = database

    @property
    def version(self) -> Version:
        """Return the version of the claimed webhook."""
        return Version(self.webhook.created_at, self.webhook.revision, self.claim.generation)

    def acknowledge(self, seq: int, *, events: int, status: int | None, batch_end: int | None) -> None:
        """Move the checkpoint to *seq*.

        *events* more have arrived; *status* is the last answer. With *batch_end*, the matching events after *seq* up to
        it are posted as one batch from now on, also after a crash.
        """
        name = self.webhook.name
        with self._database.transaction() as connection:
            checkpoint.advance(connection, self.claim.name, self.window.epoch, seq, self.claim.generation)
            if events:
                connection.execute(
                    "UPDATE outfeed_webhook SET delivered = delivered + ?, last_status = ?, last_tried_at = ?, "
                    "last_error = NULL, failing_since = NULL, skips = 0 WHERE name = ?",
                    (events, status, clock.timestamp(), name),
                )
            if batch_end is not None:
                connection.execute("UPDATE outfeed_webhook SET batch_end = ? WHERE name = ?", (batch_end, name))

    def failed(self, status: int | None, error: str) -> str:
        """Count a failed post. Return the wall time of the first failure in a row."""
        now = clock.timestamp()
        with self._database.transaction() as connection:
            self._check_generation(connection)
            (since,) = connection.execute(
                "UPDATE outfeed_webhook SET failures = failures + 1, last_status = ?,"
                " last_error = ?, last_tried_at = ?, "
                "failing_since = coalesce(failing_since, ?) WHERE name = ? RETURNING failing_since",
                (status, error, now, now, self.webhook.name),
            ).fetchone()
        return str(since)

    def pause(self, reason: str) -> None:
        """Pause the webhook and write *reason* as a warning event.

        Both are one transaction.
        """
        with self._database.transaction() as connection:
            self._check_generation(connection)
            _set_state(connection, self.webhook.name, WebhookState.PAUSED)
            _write_warning(connection, self.webhook.name, f"is paused: {reason}")

    def skip_rejected(self, epoch: str, seq: int, what: str) -> bool:
        """Move the checkpoint to *seq* and write a warning event.

        Pauses the webhook after MAX_SKIPS in a row. All of it is one transaction. Returns whether the webhook is
        paused.
        """
        name = self.webhook.name
        with self._database.transaction() as connection:
            checkpoint.advance(connection, self.claim.name, epoch, seq, self.claim.generation)
            (skips,) = connection.execute(
                "UPDATE outfeed_webhook SET skips = skips + 1, failing_since = NULL, last_error = NULL WHERE name = ?"
                " RETURNING skips",
                (name,),
            ).fetchone()
            _write_warning(connection, name, f"skipped {what}")
            if skips < MAX_SKIPS:
                return False
            _set_state(connection, name, WebhookState.PAUSED)
            reason = (
                f"is paused: {skips} posts in a row were skipped. `outfeed webhook resume {name}` continues after {seq}"
            )
            _write_warning(connection, name, reason)
            return True

    def skip_to(self, epoch: str, seq: int, reason: str, *, batch_end: int) -> None:
        """Move the checkpoint to *seq* and write *reason* as a warning event.

        Both are one transaction.
        """
        with self._database.transaction() as connection:
            checkpoint.advance(connection, self.claim.name, epoch, seq, self.claim.generation)
            connection.execute(
                "UPDATE outfeed_webhook SET batch_end = ? WHERE name = ?", (batch_end, self.webhook.name)
            )
            _write_warning(connection, self.webhook.name, reason)

    def _check_generation(self, connection: Connection) -> None:
        checkpoint.prove(connection, self.claim.name, self.claim.generation)


def _write_warning(connection: Connection, name: str, what: str) -> None:
    message = f"Webhook {name} {what}"
    log.warning(LogMessage("webhook trouble", name=name, what=what))
    data = {"message": message, "webhook": name}
    event_log.log_event(EventType.SYSTEM_WARNING, SOURCE, data=data, connection=connection)


def restart_deliveries(connection: Connection) -> None:
    """Restart every delivery: it may hold events that it read hours ago."""
    connection.execute("UPDATE outfeed_webhook SET revision = revision + 1")
