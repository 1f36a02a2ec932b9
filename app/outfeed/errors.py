"""Every error that Outfeed raises on purpose.

OutfeedError
├── ConfigError             settings are unusable; lists every bad one
├── InvalidEvent            an event exceeds a limit; names field, value and limit
├── InvalidDisplay          a display exceeds a limit; names type, field and limit
├── EventConflict           the id is known with different content
├── InvalidRequest          a subscription or feed request can't be honoured; carries a code
├── InvalidForm             fields of a page's form are invalid; names each field
├── Overtaken               events after a reader's cursor were pruned, or the epoch changed
├── Refused                 a server will not serve this client, now or later
│   └── ConsumerSuperseded  another connection took over this client's consumer
├── Unreachable             a server has not answered within the caller's time limit
├── ClientGone              a connected client has ended the connection
├── ClientStalled           a connected client accepts no more bytes
├── NoInput                 all input of a client is processed
├── Superseded              a newer connection of the same consumer is active
├── InvalidTransition       an agent or task is in a state that forbids it; carries the state
├── UndeclaredRoute         a route declares no permission
├── Forbidden               the principal may not do that
│   └── ForbiddenConsumer   the consumer belongs to another principal
├── TooManyChecks           too many passwords are being checked; try again
├── QueryCancelled          a query exceeded its deadline, or its client left
├── BadArchive              an archive is damaged, or can't be imported there
├── BadBackup               a file is not a complete backup of a feed
├── BadTrace                a file is not the trace of a server; names the line
├── AlreadyRunning          a job that runs once at a time is running
├── TargetForbidden         a webhook's target has no allowed address
├── TargetUnresolvable      a webhook's target has no address
├── DeliveryCancelled       a post to a webhook's target was cancelled
├── RpcError                a JSON-RPC message can't be served; carries its code
├── InvalidMapping          a mapping of incoming webhooks is wrong; names table and field
├── InvalidSignature        a request's signature is missing, wrong or too old
├── InvalidWatch            a table can't be watched, or not in that way
├── InvalidTarget           the settings of a target of alerts are wrong; names one
├── TargetInUse             rules send to the target
├── NotBlocked              no event blocks the webhook, or another one does now
├── NameTaken               a token or user of that name exists
├── InvalidUserChange       a user can't be changed in that way, such as the last operator
├── UnknownName             no token, user, agent or task has that name or id
└── SourceError             the history can't be read now
    ├── EngineDown          the Redis or Valkey between origin and edges can't be used now
    │   └── EngineFull      it has no memory left
    └── DatabaseError
        ├── DatabaseMissing     no database at the path
        ├── DatabaseBusy        no write lock in time; try again
        │   ├── DatabaseChanged another process changed the file while it was read
        │   └── DatabaseFull    no space left
        ├── DatabaseReadOnly    the file, its folder or its filesystem can't be written to
        ├── SchemaMismatch      not upgraded yet, made by newer code, or its tables do not fit
        │   └── AdoptionNeeded  the file holds another program's tables
        └── DatabaseUnreadable  SQLite can't read the file
            └── DatabaseDamaged the file is damaged; nothing is written to it
"""

from __future__ import annotations

from collections.abc import Mapping


class OutfeedError(Exception):
    """Root of every error raised on purpose."""


class ConfigError(OutfeedError):
    """Invalid settings.

    The message lists every bad value, one a line.
    """


class InvalidEvent(OutfeedError, ValueError):
    """An event exceeds a limit; nothing was written.

    *index* is its place in a batch.
    """

    def __init__(self, field: str, problem: str, *, index: int | None = None) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.index = index


class InvalidDisplay(OutfeedError, ValueError):
    """The display of a type is outside the limits; nothing was written."""


class EventConflict(OutfeedError):
    """The id is already in the log with different content.

    Nothing was written. *index* is the event's place in a batch.
    """

    index: int | None = None


class InvalidRequest(OutfeedError):
    """A client's request can't be honoured.

    *code* is stable. The message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InvalidForm(OutfeedError):
    """Fields of a page's form are invalid; nothing was written.

    *problems* has a sentence for each invalid field, by name.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = problems


class Overtaken(OutfeedError):
    """Events after a cursor were pruned, or the epoch changed.

    It happened while the cursor was being served.
    """


class Refused(OutfeedError):
    """The server will not serve this client. A retry has the same result."""


class ConsumerSuperseded(Refused):
    """Another connection has taken over this client's consumer.

    It is also raised if the consumer was reset, removed or given away.
    """


class Unreachable(OutfeedError):
    """The server has not answered in time.

    It may have written the events. Sending the same events again is safe.
    """


class ClientGone(OutfeedError, OSError):
    """A connected client has ended the connection."""


class ClientStalled(OutfeedError, OSError):
    """A connected client has accepted no byte for too long."""


class NoInput(OutfeedError):
    """All input of a client is processed.

    It is not an OSError, which would mean the end of the connection.
    """


class Superseded(OutfeedError):
    """A newer connection of the same consumer is active.

    It is also raised if the consumer was removed.
    """


class InvalidTransition(OutfeedError):
    """An agent or task is in a state that forbids the call.

    Nothing was written. *state* is that state.
    """

    def __init__(self, state: str, problem: str) -> None:
        super().__init__(problem)
        self.state = state


class UndeclaredRoute(OutfeedError):
    """A route declares no permission, so it can't be registered."""


class Forbidden(OutfeedError):
    """The principal may not do that; nothing was written."""


class ForbiddenConsumer(Forbidden):
    """The consumer belongs to another principal.

    Nothing was changed, and the consumer's connection stays open.
    """

    code = "forbidden_consumer"


class TooManyChecks(OutfeedError):
    """Too many passwords are being checked at once; try again."""


class QueryCancelled(OutfeedError):
    """A query exceeded its deadline, or its client disconnected."""


class BadArchive(OutfeedError):
    """An archive is damaged, or can't be imported there.

    It has no checksum or a wrong one, or the target is not a new database.
    """


class BadBackup(OutfeedError):
    """A file is not a complete backup of a feed.

    It is also raised if the target of a backup can't be overwritten. Nothing was changed.
    """


class BadTrace(OutfeedError):
    """A file is not the trace of a server."""


class AlreadyRunning(OutfeedError):
    """The same job is running, in this process or in another one."""


class TargetForbidden(OutfeedError):
    """A target of a webhook or of alerts has no allowed address.

    OUTFEED_WEBHOOK_ALLOW can allow it.
    """


class TargetUnresolvable(OutfeedError):
    """The host name of a target could not be resolved.

    It has no address, or the name server did not answer.
    """


class DeliveryCancelled(OutfeedError):
    """A post or a notice was cancelled.

    Its webhook was changed, paused or removed, or the server stops.
    """


class InvalidWatch(OutfeedError):
    """A table can't be watched at all, or not so; nothing was changed."""


class InvalidTarget(OutfeedError, ValueError):
    """A setting of a target of alerts can't be used; nothing was changed.

    *problem* follows the name of the setting, and has no secret.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class TargetInUse(OutfeedError):
    """Rules send to the target; it was not removed."""


class NotBlocked(OutfeedError):
    """No event blocks the webhook, or another one does now.

    Nothing was skipped.
    """


class RpcError(OutfeedError):
    """A JSON-RPC message can't be served.

    *code* and *data* are those of the JSON-RPC error.
    """

    def __init__(self, code: int, problem: str, data: object = None) -> None:
        super().__init__(problem)
        self.code = code
        self.data = data


class InvalidMapping(OutfeedError, ValueError):
    """A mapping of incoming webhooks can't be used.

    The message names its table and field.
    """


class InvalidSignature(OutfeedError):
    """A request is not signed, or not by the expected secret, or not now.

    Nothing was written.
    """


class NameTaken(OutfeedError):
    """The name is already in use; nothing was written."""


class InvalidUserChange(OutfeedError):
    """A user can't be changed in that way; nothing was written."""


class UnknownName(OutfeedError):
    """The name or id does not exist."""


class SourceError(OutfeedError):
    """The history cannot be read now.

    *in_short* is the message without paths and addresses.
    """

    in_short = "the feed can't be read right now"
    code: str


class EngineDown(SourceError):
    """The engine cannot be used now; try again.

    It cannot be reached, refuses the call, or does not hold the events or grants yet.
    """

    in_short = "the engine can't be used right now"
    code = "engine_unavailable"


class EngineFull(EngineDown):
    """The engine has no memory left for a write; nothing was written."""

    in_short = "the engine has no memory left"


class DatabaseError(SourceError):
    """The database could not complete the operation.

    *in_short* is the message without the path of the file.
    """

    in_short = "the database can't be used right now"
    code = "database_unavailable"


class DatabaseMissing(DatabaseError):
    """There is no database at the path.

    Only `serve` and `upgrade` create one.
    """

    in_short = "the database is missing"


class DatabaseBusy(DatabaseError):
    """The write lock was not free in time.

    Nothing was written; try again.
    """

    in_short = "the database is locked by another writer; nothing was written, try again"


class DatabaseChanged(DatabaseBusy):
    """Another process changed the file while it was read.

    Nothing was written; try again.
    """


class DatabaseFull(DatabaseBusy):
    """No space is left to write.

    Nothing was written; free some space and try again.
    """

    in_short = "no space is left for the database; nothing was written, try again"


class DatabaseReadOnly(DatabaseError):
    """The file, its folder or its filesystem is read-only.

    Nothing was written.
    """

    in_short = "the database is read-only; nothing was written"


class SchemaMismatch(DatabaseError):
    """The database has another schema than this code.

    It is not upgraded yet, was made by newer code, or holds tables that do not fit.
    """

    in_short = "the database has another schema than this version of Outfeed"


class AdoptionNeeded(SchemaMismatch):
    """The file holds tables that Outfeed did not make.

    Nothing was changed.
    """


class DatabaseUnreadable(DatabaseError):
    """SQLite can't read the file.

    It is not a database, it is damaged, or an I/O error occurred.
    """

    in_short = "the database can't be read right now"


class DatabaseDamaged(DatabaseUnreadable):
    """The file is not a database, or its pages contradict each other.

    Nothing is written to it until it is repaired.
    """

    in_short = "the database is damaged; nothing is written until it is restored"
