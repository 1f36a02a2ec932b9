"""Grants in the engine: tokens and sessions, each with its principal.

The origin writes them and edges look them up. The field `_` marks the hash as complete. Without it the grants are lost,
not revoked, and an edge answers 503 until the origin has written them again.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from redis.exceptions import WatchError

from outfeed import clock
from outfeed.access.rights import Rights
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.edge import displays, scripts
from outfeed.edge.engine import GRANTS, HEAD, TICKET, Engine
from outfeed.edge.single import SingleThread
from outfeed.edge.stream import Head
from outfeed.errors import EngineDown, EngineFull
from outfeed.feature import Process
from outfeed.feed.core import Core
from outfeed.log_message import LogMessage
from outfeed.principal import Principal
from outfeed.store.database import Database

MARK = "_"
CHECK_SECS = 0.25
RENEW_SECS = 10.0
MAX_TRIES = 20
log = logging.getLogger(__name__)


def _encode(principal: Principal) -> bytes:
    expires_at = clock.isoformat(principal.expires_at) if principal.expires_at else None
    return orjson.dumps([principal.name, principal.scopes, principal.types, expires_at])


def _decode(grant: str, raw: bytes | None) -> Principal | None:
    """Return the principal in *raw*.

    The result is None without a grant, or if it has expired. Raises EngineDown if *raw* cannot be read.
    """
    if raw is None:
        return None
    try:
        name, scopes, types, expires_at = orjson.loads(raw)
        moment = datetime.fromisoformat(expires_at) if expires_at else None
        found = Principal(name, tuple(scopes), grant, tuple(types), moment)
    except (ValueError, TypeError) as error:
        raise EngineDown("the engine holds a grant that can't be read") from error
    return None if found.has_expired(clock.now()) else found


# --- at the origin ----------------------------------------------------------------------------------------------------


class Published(dict[str, bytes]):
    """The grants as they were written, each with its principal.

    *mark* is the value of `_` that was written with them.
    """

    mark = ""


def publish(engine: Engine, database: Database, secs: int, before: Published | None = None) -> Published:
    """Write all grants, or only the changes since *before*.

    All are written in one transaction of the engine. The database is read after WATCH, so of two writers the one with
    the older rows tries again. Raises SourceError.
    """
    try:
        return engine.call(lambda client: _publish(client, database, secs, before))
    except EngineFull:
        # Without grants, edges refuse new viewers. With the old ones, they would admit revoked tokens.
        engine.call(lambda client: client.unlink(GRANTS))
        raise


def _publish(client: Any, database: Database, secs: int, before: Published | None) -> Published:
    for _ in range(MAX_TRIES):
        with client.pipeline() as pipeline:
            pipeline.watch(GRANTS)
            mark = pipeline.hget(GRANTS, MARK)
            present = {key.decode() for key in pipeline.hkeys(GRANTS)} - {MARK}
            found = Published({each.grant: _encode(each) for each in account.every_principal(database)})
            found.mark = secrets.token_hex(8)
            pipeline.multi()
            is_known = before is not None and mark == before.mark.encode()
            _write(pipeline, found, before if is_known else None, present)
            pipeline.expire(GRANTS, secs)
            try:
                pipeline.execute()
            except WatchError:
                continue
            return found
    raise EngineDown("the grants are being written by other programs")


def _write(pipeline: Any, found: Published, before: Published | None, present: set[str]) -> None:
    """Queue the commands that make the engine hold *found*.

    `rights` changes if a permission may have been revoked. *present* are the grants in the engine. `EngineTickets.add`
    may have added some since *before*.
    """
    known: Mapping[str, bytes] = before or {}
    if before is None:
        pipeline.delete(GRANTS)
    changed = {grant: raw for grant, raw in found.items() if known.get(grant) != raw}
    gone = sorted(present - found.keys())
    pipeline.hset(GRANTS, mapping={**changed, MARK: found.mark})
    if gone:
        pipeline.hdel(GRANTS, *gone)
    if before is None or gone or any(grant in known for grant in changed):
        pipeline.hset(HEAD, "rights", found.mark)


class GrantWriter(SingleThread):
    """Writes changed grants and displays, and all if the engine lost them.

    It runs in one worker of a host. Only its own thread uses its attributes.
    """

    def __init__(self, process: Process, engine: Engine) -> None:
        super().__init__("grants", process.database, process.metrics)
        self._engine = engine
        self._displays = process.displays
        self._secs = int(process.settings.grant_minutes * 60)
        self._published: Published | None = None
        self._version: tuple[int, ...] = ()
        self._renew_at = 0.0

    def restart(self) -> None:
        """Write all grants at the next step."""
        self._published = None

    def step(self) -> None:
        """Write the changes, then wait CHECK_SECS."""
        self._write_grants()
        with contextlib.suppress(EngineFull):  # the uplink trims the stream, and the next step writes them
            displays.publish(self._engine, self._displays.current())
        self.stopping.wait(CHECK_SECS)

    def _write_grants(self) -> None:
        mark = self._engine.call(lambda client: client.hget(GRANTS, MARK))
        version = account.grants_version(self._database)
        if self._published is None or mark != self._published.mark.encode():
            self._write(version, None)
        elif version != self._version:
            self._write(version, self._published)
        elif clock.monotonic() >= self._renew_at:
            self._engine.call(lambda client: client.expire(GRANTS, self._secs))
            self._note_renewal()

    def _write(self, version: tuple[int, ...], before: Published | None) -> None:
        self._published = publish(self._engine, self._database, self._secs, before)
        self._version = version
        self._note_renewal()

    def _note_renewal(self) -> None:
        self._renew_at = clock.monotonic() + min(RENEW_SECS, self._secs / 3)


class EngineTickets:
    """Grants and tickets that all hosts of this feed share.

    Any thread may call any method.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._secs = int(settings.grant_minutes * 60)

    def create_ticket(self, principal: Principal) -> str:
        """Return a ticket in *principal*'s name, which any host accepts once.

        Raises EngineDown.
        """
        ticket, lifetime = secrets.token_urlsafe(32), int(account.TICKET_LIFETIME.total_seconds())
        self._add(principal)
        self._engine.call(lambda client: client.set(_ticket_key(ticket), principal.grant, ex=lifetime))
        return ticket

    def take_ticket(self, ticket: str) -> str | None:
        """Redeem *ticket* and return its grant.

        The result is None if the ticket is unknown, expired or was used. Raises EngineDown.
        """
        found = self._engine.call(lambda client: client.getdel(_ticket_key(ticket)))
        return found.decode() if isinstance(found, bytes) else None

    def add(self, principal: Principal) -> None:
        """Write a new grant at once. An error is logged, not raised."""
        try:
            self._add(principal)
        except EngineDown as error:
            log.warning(LogMessage("edges learn of a new grant later", error=error))

    def _add(self, principal: Principal) -> None:
        self._engine.run(scripts.GRANT, [GRANTS], [principal.grant, _encode(principal)])

    def publish(self, database: Database) -> None:
        """Publish every grant, and remove the revoked ones. Raises SourceError."""
        publish(self._engine, database, self._secs)


def _ticket_key(ticket: str) -> str:
    return TICKET + account.hash_of(ticket)


# --- at an edge -------------------------------------------------------------------------------------------------------


class EngineGrants:
    """Looks up grants that the origin wrote.

    Any thread may call any method. Each raises EngineDown if the mark is missing.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find_token(self, secret: str) -> Principal | None:
        """Return the principal of a token.

        The result is None if the token is unknown, revoked or expired.
        """
        return self.principal_of(f"token:{account.hash_of(secret)}")

    def find_session(self, key: str) -> Principal | None:
        """Return the principal of a session.

        The result is None if the session has ended or expired, or its user is disabled.
        """
        return self.principal_of(f"session:{account.hash_of(key)}")

    def redeem_ticket(self, ticket: str) -> Principal | None:
        """Redeem *ticket* and return its principal, None if it is not valid."""
        found = self._engine.call(lambda client: client.getdel(_ticket_key(ticket)))
        return self.principal_of(f"ticket:{found.decode()}") if isinstance(found, bytes) else None

    def principal_of(self, grant: str) -> Principal | None:
        """Return the principal of *grant*, None if it was revoked or expired."""
        return self.principals_of([grant])[grant]

    def principals_of(self, grants: Iterable[str]) -> dict[str, Principal | None]:
        """Return the principal of each of *grants*, read in one command."""
        wanted = list(dict.fromkeys(grants))
        fields = [grant.removeprefix("ticket:") for grant in wanted]
        mark, *found = self._engine.call(lambda client: client.hmget(GRANTS, [MARK, *fields]))
        if mark is None:
            raise EngineDown("the engine holds no permissions yet; the origin writes them")
        return {grant: _principal(grant, raw) for grant, raw in zip(wanted, found, strict=True)}

    def counters(self) -> tuple[str, int]:
        """Return the counter of revocations, and the number of erased events.

        The first one changes when a permission may have been revoked.
        """
        rights, erasures = self._engine.call(lambda client: client.hmget(HEAD, ["rights", "erasures"]))
        if not rights or not erasures:
            raise EngineDown("the engine holds no permissions yet; the origin writes them")
        return rights.decode(), int(erasures)


def _principal(grant: str, raw: bytes | None) -> Principal | None:
    if not grant.startswith("ticket:"):
        return _decode(grant, raw)
    owner = _decode(grant.removeprefix("ticket:"), raw)
    return account.bearer_of_ticket(owner) if owner else None


class EdgeRights(Rights):
    """Rights in a process of an edge.

    After a revocation, all clients are checked before the next event is pushed.
    """

    grants: EngineGrants

    def __init__(self, grants: EngineGrants, core: Core) -> None:
        super().__init__(grants, core)
        self._rules: str | None = None

    def prepare(self) -> None:
        """Read no counters.

        The engine may be unreachable, and no client is connected yet.
        """

    def take_head(self, head: Head) -> None:
        """Check clients and drop cached events if *head* has other counters.

        Without `rights` the engine has lost the grants, which revokes no permission. Raises EngineDown.
        """
        if head.rules != self._rules and self._rules is not None:
            self._core.forget()
        self._rules = head.rules
        self.take((head.rights or self.last_rights, head.erasures))

    def _principals(self, grants: Iterable[str]) -> dict[str, Principal | None]:
        return self.grants.principals_of(grants)
