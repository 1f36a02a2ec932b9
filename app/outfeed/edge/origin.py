"""The origin: its uplink, its grants, and the state of engine and edges."""

from __future__ import annotations

import functools
from typing import NamedTuple

from outfeed.config import Settings
from outfeed.edge.comparison import Held, needs_new_epoch
from outfeed.edge.engine import EVENTS, HEAD, Engine
from outfeed.edge.grants import EngineTickets, GrantWriter
from outfeed.edge.owner import OwnerFile
from outfeed.edge.report import EdgeReport, list_edges
from outfeed.edge.stream import Head, read
from outfeed.edge.uplink import Uplink
from outfeed.errors import EngineDown
from outfeed.feature import Part, Process, Samples
from outfeed.feed.subscription import MAX_SEQ
from outfeed.store import database as db
from outfeed.store.outbox import Outbox

# A working uplink renews its lease every 2 s.
STALE_SECS = 10.0


@functools.cache
def engine_at(url: str) -> Engine:
    """Return this process's Engine for *url*, the same one each time."""
    return Engine(url)


def engine_of(settings: Settings) -> Engine:
    """Return this process's Engine for OUTFEED_ENGINE."""
    assert settings.engine is not None
    return engine_at(settings.engine.get_secret_value())


def tickets(settings: Settings) -> EngineTickets:
    """Return the grants and tickets that edges use."""
    return EngineTickets(engine_of(settings), settings)


class OriginPart(Part):
    """The uplink and the writer of grants. One worker of a host runs each."""

    def __init__(self, process: Process) -> None:
        self._engine = engine_of(process.settings)
        self._threads = (Uplink(process, self._engine), GrantWriter(process, self._engine))

    def start(self) -> None:
        """Start to fill the engine."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and give up the lease."""
        for thread in self._threads:
            thread.stop()

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()


def renew_epoch_if_published(settings: Settings) -> None:
    """Renew the epoch if edges may know other events under it.

    An engine that cannot be reached changes nothing: the uplink compares again.
    """
    engine = Engine(engine_of(settings).url)
    try:
        reply = read(engine, "before", MAX_SEQ, 1)
        newest = engine.call(lambda client: client.xrevrange(EVENTS, count=1))
    except EngineDown:
        return
    finally:
        engine.close()
    database = db.at(settings.database)
    outbox = Outbox(database, settings.max_event_bytes)
    window = outbox.window()
    held = _held(reply.head, newest) if reply else None
    if needs_new_epoch(database, window, OwnerFile(settings.database).load().epoch, held):
        outbox.renew_epoch(window.epoch)


def _held(head: Head, newest: list[tuple[bytes, dict[bytes, bytes]]]) -> Held:
    for id_, fields in newest:
        seq, checksum = int(id_.partition(b"-")[0]), fields.get(b"c", b"").decode()
        return Held(head.epoch, head.position, head.target, seq, checksum)
    return Held(head.epoch, head.position, head.target, 0, "")


# --- state of the engine ----------------------------------------------------------------------------------------------


class EngineState(NamedTuple):
    """The state of the engine, for operators.

    *failure* is the reason if it can't be used. Then the other fields have no meaning.
    """

    address: str
    failure: str | None
    position: int = 0
    lag: int = 0
    target: int = 0
    age: float | None = None
    is_owner: bool = False
    shortages: int = 0
    edges: tuple[EdgeReport, ...] = ()
    head: int = 0

    @property
    def is_filling(self) -> bool:
        """Whether edges wait until the engine is filled."""
        return self.position < self.target

    @property
    def is_stale(self) -> bool:
        """Whether the uplink has written nothing for STALE_SECS."""
        return self.age is None or self.age > STALE_SECS


def state_of(process: Process) -> EngineState:
    """Return the state of the engine and the edges. Raises DatabaseError."""
    engine = engine_of(process.settings)
    try:
        reply = read(engine, "after", 0, 0)
        owner, shortages = engine.call(lambda client: client.hmget(HEAD, ["owner", "shortages"]))
        edges = tuple(list_edges(engine))
    except EngineDown as error:
        return EngineState(engine.address, str(error))
    head = process.outbox.window().last_seq
    found: Head | None = reply.head if reply else None
    is_owner = owner is not None and owner.decode().partition(".")[0] == OwnerFile(process.database.path).load().origin
    if found is None:
        return EngineState(engine.address, None, lag=head, is_owner=is_owner, edges=edges, head=head)
    return EngineState(
        engine.address, None, found.position, max(0, head - found.position), found.target,
        None if found.age_ms < 0 else found.age_ms / 1000, is_owner, int(shortages or 0), edges, head,
    )  # fmt: skip


def samples_of(process: Process) -> dict[str, Samples]:
    """Return the current values of the metrics. Raises DatabaseError."""
    state = state_of(process)
    if state.failure is not None:
        return {"engine_up": [([], 0)]}
    return {
        "engine_up": [([], 1)],
        "engine_position": [([], state.position)],
        "engine_lag": [([], state.lag)],
        "engine_owner": [([], state.is_owner)],
        "engine_oom": [([], state.shortages)],
        "origin_age_seconds": [([], state.age)],
        "edge_clients": [([_label(each)], each.clients) for each in state.edges if not each.is_silent],
        "edge_lag": [
            ([_label(each)], max(0, state.head - each.position)) for each in state.edges if not each.is_silent
        ],
    }


def _label(edge: EdgeReport) -> str:
    return f"{edge.name} {edge.address}"
