"""Every error that Outfeed raises on purpose.

OutfeedError
├── ConfigError             settings are unusable; lists every bad one
├── InvalidEvent            an event is outside the limits; names field, value and limit
├── EventConflict           the id is known with different content
├── InvalidRequest          a subscription or feed request can't be honoured; carries a code
├── Overtaken               the history a reader stands on is gone: pruned or another epoch
├── Refused                 a server will not serve this client, now or later
│   └── ConsumerSuperseded  another connection has taken over this client's consumer
├── Unreachable             a server has not answered for as long as the caller would wait
├── ClientGone              a connected client has ended the connection
├── ClientStalled           a connected client accepts no more bytes
├── NoInput                 a client has sent nothing that is not processed yet
├── Superseded              a newer connection of the same consumer is the active one
├── InvalidTransition             an agent or task of the swarm can't do that now; carries its state
├── UndeclaredRoute         a route declares no permission
├── Forbidden               the principal may not do that
│   └── ForbiddenConsumer   the consumer belongs to another principal
├── TooManyChecks           too many passwords are being checked; try again
├── QueryCancelled          a query exceeded its deadline, or its client left
├── BadArchive              an archive is not what was written, or can't be read in there
├── BadBackup               a file is no whole backup of a feed
├── TargetForbidden         a webhook's target has no address that may be called
├── TargetUnresolvable      a webhook's target has no address
├── DeliveryCancelled       a post to a webhook's target was cancelled
├── NotBlocked              no event blocks the webhook, or another one by now
├── NameTaken               a token or user of that name exists
├── UnknownName             no token, user, agent or task has that name or id
└── DatabaseError
    ├── DatabaseMissing     no database at the path
    ├── DatabaseBusy        no write lock in time; try again
    │   ├── DatabaseChanged another process changed the file while it was read
    │   └── DatabaseFull    no space left
    ├── DatabaseReadOnly    the file, its folder or its filesystem can't be written to
    ├── SchemaMismatch      not upgraded yet, made by newer code, or its tables do not fit
    │   └── AdoptionNeeded  the file holds another program's tables
    └── DatabaseUnreadable  SQLite can't read the file
        └── DatabaseDamaged what is in it makes no sense; nothing is written to it any more
"""

from __future__ import annotations


class OutfeedError(Exception):
    """Root of every error raised on purpose."""


class ConfigError(OutfeedError):
    """Settings are unusable. The message lists every bad value, one a line."""


class InvalidEvent(OutfeedError, ValueError):
    """An event is outside the limits; nothing was written. *index* is its place in a batch."""

    def __init__(self, field: str, problem: str, *, index: int | None = None) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.index = index


class EventConflict(OutfeedError):
    """The id is already in the log with different content; nothing was written. *index* is its place in a batch."""

    index: int | None = None


class InvalidRequest(OutfeedError):
    """What a client asked for can't be honoured. *code* is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Overtaken(OutfeedError):
    """The rows after a cursor were pruned, or the epoch changed, while it was being served."""


class Refused(OutfeedError):
    """The server will not serve this client; trying again is no use."""


class ConsumerSuperseded(Refused):
    """A newer connection has taken over this client's consumer, or the consumer was reset, removed or given away."""


class Unreachable(OutfeedError):
    """The server has not answered in time. What was sent may have been written: send the same again."""


class ClientGone(OutfeedError, OSError):
    """A connected client has ended the connection."""


class ClientStalled(OutfeedError, OSError):
    """A connected client has accepted no byte for too long."""


class NoInput(OutfeedError):
    """A client has sent nothing that is not processed yet. No OSError: that would mean the end of the connection."""


class Superseded(OutfeedError):
    """A newer connection of the same consumer has become the active one, or the consumer was removed."""


class InvalidTransition(OutfeedError):
    """It is not that agent's or task's turn; nothing was written. *state* is the one that stands in the way."""

    def __init__(self, state: str, problem: str) -> None:
        super().__init__(problem)
        self.state = state


class UndeclaredRoute(OutfeedError):
    """A route declares no permission, so it can't be registered."""


class Forbidden(OutfeedError):
    """The principal may not do that; nothing was written."""


class ForbiddenConsumer(Forbidden):
    """The consumer belongs to another principal; nothing was changed, and its connection goes on."""

    code = "forbidden_consumer"


class TooManyChecks(OutfeedError):
    """Too many passwords are being checked at once; try again."""


class QueryCancelled(OutfeedError):
    """A query exceeded its deadline, or its client disconnected."""


class BadArchive(OutfeedError):
    """An archive is damaged or has no checksum, or what it is read into is no new database."""


class BadBackup(OutfeedError):
    """A file is no whole backup of a feed, or stands where none may be written; nothing was changed."""


class TargetForbidden(OutfeedError):
    """A webhook's target has no address that may be called. OUTFEED_WEBHOOK_ALLOW can allow it."""


class TargetUnresolvable(OutfeedError):
    """The host name of a webhook's target has no address, or the name server did not answer."""


class DeliveryCancelled(OutfeedError):
    """A post was cancelled: its webhook was changed, paused or removed, or the server stops."""


class NotBlocked(OutfeedError):
    """No event blocks the webhook, or another one does by now; nothing was skipped."""


class NameTaken(OutfeedError):
    """There is already one of that name; nothing was written."""


class UnknownName(OutfeedError):
    """There is none of that name or id."""


class DatabaseError(OutfeedError):
    """The database can't do what was asked. *in_short* is for those who may not know where it lies."""

    in_short = "the database can't be used right now"


class DatabaseMissing(DatabaseError):
    """There is no database at the path; only `serve` and `upgrade` make one."""

    in_short = "the database is missing"


class DatabaseBusy(DatabaseError):
    """The write lock was not free in time; nothing was written, try again."""

    in_short = "the database is locked by another writer; nothing was written, try again"


class DatabaseChanged(DatabaseBusy):
    """The file was changed by another process while it was looked at; nothing was written, try again."""


class DatabaseFull(DatabaseBusy):
    """No space is left to write; nothing was written, try again when there is."""

    in_short = "no space is left for the database; nothing was written, try again"


class DatabaseReadOnly(DatabaseError):
    """The file, its folder or its filesystem can't be written to; nothing was written."""

    in_short = "the database is read-only; nothing was written"


class SchemaMismatch(DatabaseError):
    """The database is not upgraded yet, was made by newer code, or holds tables that do not fit."""


class AdoptionNeeded(SchemaMismatch):
    """The file holds tables that Outfeed did not make; nothing was changed."""


class DatabaseUnreadable(DatabaseError):
    """SQLite can't read the file: not a database, damaged, or an I/O error."""

    in_short = "the database can't be read right now"


class DatabaseDamaged(DatabaseUnreadable):
    """The file is no database, or its pages contradict each other; nothing is written to it until it is mended."""

    in_short = "the database is damaged; nothing is written until it is restored"
