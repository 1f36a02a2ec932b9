"""Uplink: the origin's thread that copies the outbox to the engine.

Events keep their epoch and seq. The engine may lose anything at any time. `settle` finds the position of the engine
after a start and after every failure, and `step` appends the missing events.
"""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Any, NamedTuple

from outfeed.config import Settings
from outfeed.edge import scripts, store
from outfeed.edge.comparison import Held, needs_new_epoch
from outfeed.edge.engine import EVENTS, HEAD, Engine
from outfeed.edge.owner import OwnerFile, Ownership
from outfeed.edge.rules import fingerprint
from outfeed.edge.single import SingleThread
from outfeed.edge.stream import read
from outfeed.errors import EngineFull
from outfeed.feature import Process
from outfeed.feed.subscription import Filter
from outfeed.history import Page, Window
from outfeed.log_message import LogMessage
from outfeed.principal import EVERYTHING

LEASE_MS = 5000
HEARTBEAT_SECS = 2.0
APPEND_EVENTS = 500
# After more erased events than this, the engine is filled again, which is as quick.
MAX_ERASED = 1000
# Bytes that are appended between two measurements of the memory of the stream.
MEASURE_BYTES = 8 * 2**20
MIN_EVENTS = 1000
KEYS = (HEAD, EVENTS)
_ALL = Filter(EVERYTHING)
log = logging.getLogger(__name__)


class EnginePlace(NamedTuple):
    """The position of the engine while this uplink owns it."""

    epoch: str
    position: int
    erasures: str


class Uplink(SingleThread):
    """Appends to the engine in one worker of the origin.

    Only its own thread uses its attributes.
    """

    def __init__(self, process: Process, engine: Engine) -> None:
        super().__init__("uplink", process.database, process.metrics)
        self._database = process.database
        self._outbox = process.outbox
        self._core = process.core
        self._engine = engine
        self._settings: Settings = process.settings
        self._file = OwnerFile(process.database.path)
        self._own: Ownership | None = None
        self._nonce = ""  # `origin.random`: fences a former uplink of the same origin
        self._rules = fingerprint(process.settings)
        self._place: EnginePlace | None = None
        self._floor = 0  # events below are trimmed, so that the rest fits in OUTFEED_ENGINE_BYTES
        self._unmeasured = 0
        self._refused_until: int | None = None  # end of another owner's lease, in ms of the engine's clock
        self._woken = threading.Event()

    def restart(self) -> None:
        """Settle again before the next append."""
        self._place = None

    def stop(self) -> None:
        """End the thread and give up the lease.

        Then a successor does not have to wait until the lease expires.
        """
        self.stopping.set()
        self._woken.set()
        super().stop()

    def finish(self) -> None:
        """Give up the lease."""
        if self._place is not None:
            self._engine.run(scripts.CLAIM, KEYS, [self._nonce, self._nonce, 0])

    def step(self) -> None:
        """Settle, or append missing events and wait for more.

        Raises SourceError, OSError.
        """
        if self._place is None:
            self._place = self.settle()
        else:
            self._catch_up(self._place)

    # --- position of the engine --------------------------------------------------------------------------------------

    def settle(self) -> EnginePlace | None:
        """Take the lease and compare the engine with the outbox.

        The result is None if the position is not known yet.

        The claim comes first. In the other order, events that a predecessor appends in between look like a database
        that was restored.
        """
        own = self._own = self._own or self._file.load()
        self._nonce = self._nonce or f"{own.origin}.{secrets.token_hex(8)}"
        lease_of = own.origin if own.is_since_boot else ""
        kind, *found = self._engine.run(scripts.CLAIM, KEYS, [lease_of, self._nonce, LEASE_MS])
        window = self._outbox.window()
        if kind == b"owned":
            self._note_refusal(own, window, *found)
            return None
        self._refused_until = None
        held, rules, erasures = _decoded(found) if found else (None, "", "")
        if needs_new_epoch(self._database, window, own.epoch, held):
            log.warning(LogMessage("edges may know other events under the epoch of this database, renewing it"))
            self._outbox.renew_epoch(window.epoch)
            return None
        self._note_published(own, window.epoch)
        self._core.reader.catch_up_to(window.epoch, window.last_seq)
        if held and (held.epoch, rules) == (window.epoch, self._rules) and held.position >= window.first_seq - 1:
            return EnginePlace(held.epoch, held.position, erasures)
        return self._begin(window)

    def _note_published(self, own: Ownership, epoch: str) -> None:
        """Record that this database alone publishes *epoch*.

        It is called before edges can read the epoch.
        """
        if own.epoch != epoch or not own.is_since_boot:
            self._own = self._file.save(own._replace(epoch=epoch))
        store.note_published(self._database, epoch)

    def _note_refusal(self, own: Ownership, window: Window, owner: bytes, ends: int, epoch: bytes) -> None:
        """Wait for the end of the owner's lease.

        After a reboot, the owner may be this database's own uplink from before, and its lease runs out. If the lease
        is renewed, the owner runs on a clone of this disk, and this database becomes another origin.
        """
        is_clone = owner.decode().partition(".")[0] == own.origin
        if self._refused_until is None and not is_clone:
            log.warning(LogMessage("another origin owns the engine, trying again"))
        if is_clone and self._refused_until is not None and ends > self._refused_until:
            self._own, self._nonce = self._file.save(Ownership(secrets.token_hex(16))), ""
        elif epoch.decode() == window.epoch and own.epoch != window.epoch:
            store.note_published(self._database, window.epoch)
        self._refused_until = ends
        self.stopping.wait(1.0)

    def _begin(self, window: Window) -> EnginePlace | None:
        """Empty the engine, and start it where both limits allow.

        The newest events within both limits follow.
        """
        settings = self._settings
        newest = store.start_of_newest(self._database, window.last_seq, settings.engine_events, settings.engine_bytes)
        start = max(window.first_seq - 1, newest)
        erasures = str(store.read_facts(self._database, 0, 0).erasures)
        log.info(LogMessage("engine is filled", after=start, until=window.last_seq))
        arguments: list[Any] = [self._nonce, window.epoch, start, window.last_seq, self._rules, erasures]
        is_ours = self._engine.run(scripts.BEGIN, KEYS, arguments)
        self._floor = 0
        return EnginePlace(window.epoch, start, erasures) if is_ours else None

    # --- missing events -----------------------------------------------------------------------------------------------

    def _catch_up(self, place: EnginePlace) -> None:
        self._woken.clear()
        if not self.stopping.is_set():
            self._core.reader.wait(_ALL, place.epoch, place.position, HEARTBEAT_SECS, self._woken)
        page = self._outbox.read_after(place.position, APPEND_EVENTS)
        self._core.reader.catch_up_to(page.window.epoch, page.through)
        facts = store.read_facts(self._database, place.position, page.through)
        window = facts.window  # newer than the page: a row of the page that is not in the facts was pruned or erased
        if window.first_seq > place.position + 1 or {page.window.epoch, window.epoch} != {place.epoch}:
            self._place = None
        elif str(facts.erasures) != place.erasures:
            self._place = self._erase(place, window, str(facts.erasures))
        else:
            self._place = self._append(place, page, facts)

    def _append(self, place: EnginePlace, page: Page, facts: store.Facts, shortages: int = 0) -> EnginePlace | None:
        """Append *page*, or send a heartbeat.

        The result is the new place, or None if another one has changed the engine.
        """
        events = [item for item in page.items if item.seq in facts.rows]  # the others were erased since the read
        arguments: list[Any] = [
            self._nonce, place.epoch, place.position, page.through, self._settings.engine_events,
            max(facts.window.first_seq, self._floor), LEASE_MS, shortages,
        ]  # fmt: skip
        for item in events:
            checksum, written_at = facts.rows[item.seq]
            arguments += [item.seq, item.json, written_at, checksum]
        try:
            kind, *_ = self._engine.run(scripts.APPEND, KEYS, arguments)
        except EngineFull:
            self._make_room(place)
            raise
        if kind != b"ok":
            log.warning(LogMessage("engine has changed, settling again", answer=kind.decode()))
            return None
        self._unmeasured += sum(len(item.json) for item in events)
        if self._unmeasured >= MEASURE_BYTES:
            self._measure(page.through)
        return place._replace(position=page.through)

    def _erase(self, place: EnginePlace, window: Window, erasures: str) -> EnginePlace | None:
        """Remove events from the engine that the outbox does not have any more.

        Then edges drop their cached events.
        """
        reply = read(self._engine, "after", 0, 0)
        if reply is None:
            return None
        first = reply.head.first_seq
        gone = store.missing_between(self._database, first, place.position, MAX_ERASED + 1)
        if len(gone) > MAX_ERASED:
            return self._begin(window)
        kind, *_ = self._engine.run(scripts.ERASE, KEYS, [self._nonce, place.epoch, erasures, *gone])
        return place._replace(erasures=erasures) if kind == b"ok" else None

    # --- memory -------------------------------------------------------------------------------------------------------

    def _measure(self, position: int) -> None:
        """Raise the floor if the stream exceeds OUTFEED_ENGINE_BYTES."""
        self._unmeasured = 0
        used = self._engine.call(lambda client: client.memory_usage(EVENTS)) or 0
        reply = read(self._engine, "after", 0, 0)
        if reply is not None and used > (most := self._settings.engine_bytes):
            first = reply.head.first_seq
            self._floor = position - (position - first) * most // int(used)

    def _make_room(self, place: EnginePlace) -> None:
        """Trim the stream to half, and count the shortage."""
        count = int(self._engine.call(lambda client: client.xlen(EVENTS)))
        keep = max(MIN_EVENTS, count // 2)
        self._engine.run(
            scripts.APPEND,
            KEYS,
            [self._nonce, place.epoch, place.position, place.position, keep, self._floor, LEASE_MS, 1],
        )
        log.error(LogMessage("engine has no memory left, its stream is trimmed", events=count, kept=keep))
        self.stopping.wait(1.0)


def _decoded(found: list[Any]) -> tuple[Held, str, str]:
    epoch, position, target, seq, checksum, rules, erasures = found
    held = Held(epoch.decode(), position, int(target), int(seq), checksum.decode())
    return held, rules.decode(), erasures.decode()
