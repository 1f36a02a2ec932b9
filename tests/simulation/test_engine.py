"""The simulated engine answers as a real one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outfeed.edge import scripts
from outfeed.edge.engine import EVENTS, HEAD, Engine
from outfeed.edge.scripts import Script
from outfeed.errors import EngineFull
from tests.engines import RedisServer
from tests.simulation.actors import Actors
from tests.simulation.engine import NODE_EVENTS, SimulatedEngine

KEYS = (HEAD, EVENTS)
LEASE_MS = 60_000
# The first one of each is the one in force.
WHO = st.sampled_from([0] * 9 + [1, 2, 3])
OWNERS = ("a.1", "a.2", "b.1")
EPOCHS = ("E", "F")
SHIFT = st.sampled_from([0] * 9 + [-1, 1])


class BothEngines:
    """A real engine and a simulated one, which get the same calls.

    Each move interprets its numbers for the present state. The replies must be equal, apart from times.
    """

    def __init__(self, engine: Engine, redis_server: RedisServer) -> None:
        self._engine = engine
        self._client = redis_server.client
        self._client.flushall()
        self._actors = Actors()
        self._simulated = SimulatedEngine(self._actors)
        self._owner, self._epoch, self._written = OWNERS[0], EPOCHS[0], 0

    # --- moves --------------------------------------------------------------------------------------------------------

    def claim(self, who: int, origin: str, is_held: bool) -> None:
        owner = self._owner_of(who)
        kind = self._run(scripts.CLAIM, origin, owner, LEASE_MS * is_held)[0]
        self._owner = self._owner if kind == b"owned" else owner

    def begin(self, who: int, epoch: int, seq: int, more: int) -> None:
        owner, epoch_ = self._owner_of(who), self._epoch_of(epoch)
        if self._run(scripts.BEGIN, owner, epoch_, seq, seq + more, f"rules-{more}", str(more)):
            self._epoch = epoch_

    def append(
        self, who: int, epoch: int, shift: int, steps: list[int], rest: int, most: int, kept: int, shortages: int
    ) -> None:
        before = max(0, self._position + shift)
        parts, seq = list[Any](), before
        for step in steps:
            seq += step
            self._written += 1
            written_at = f"2026-01-{self._written % 28 + 1:02}" if step > 1 else ""
            parts += [seq, b"x" * (self._written % 7), written_at, f"c{self._written}"]
        bounds = [seq + rest, most, max(0, seq - kept), LEASE_MS, shortages]
        self._run(scripts.APPEND, self._owner_of(who), self._epoch_of(epoch), before, *bounds, *parts)

    def erase(self, who: int, epoch: int, distances: list[int]) -> None:
        seqs = [max(1, self._position - each) for each in distances]
        self._run(scripts.ERASE, self._owner_of(who), self._epoch_of(epoch), str(len(seqs)), *seqs)

    def read(self, direction: str, distance: int, limit: int, max_bytes: int) -> None:
        self._run(scripts.READ, direction, max(int(direction == "before"), self._position - distance), limit, max_bytes)

    def wait(self, distance: int) -> None:
        """Wait for an entry. Both engines are asked only if there is one."""
        stream = self._simulated.stream
        after = max(0, self._position - distance)
        if stream is not None and max(stream.entries, default=0) > after:
            assert self._engine.wait_for_entry(after)
            assert self._simulated.wait_for_entry(after)

    def count(self) -> None:
        real, simulated = (each.call(lambda client: client.xlen(EVENTS)) for each in (self._engine, self._simulated))
        assert real == simulated

    def end_lease(self) -> None:
        self.free()
        if self._client.exists(HEAD):
            self._client.hset(HEAD, "until", 0)
        self._actors.pass_time(LEASE_MS / 1000 + 1)

    def flush(self) -> None:
        self._client.flushall()
        self._simulated.flush()

    def evict(self) -> None:
        self._client.delete(EVENTS)
        self._simulated.evict()

    def fill(self) -> None:
        """Have no memory left for what a call adds."""
        self._client.config_set("maxmemory", 1)
        self._simulated.max_bytes = -1

    def free(self) -> None:
        self._client.config_set("maxmemory", 0)
        self._simulated.max_bytes = 1_000_000

    # --- comparison ---------------------------------------------------------------------------------------------------

    def compare_content(self) -> None:
        """Require equal fields of the head, and equal streams."""
        fields = self._client.hgetall(HEAD)
        assert {name: fields[name] for name in fields if name not in ("until", "appended_at")} == self._simulated.head
        stream = self._simulated.stream
        assert bool(self._client.exists(EVENTS)) is (stream is not None)
        if stream is not None:
            assert self._client.xinfo_stream(EVENTS)["last-generated-id"] == f"{stream.position}-0"
            assert self._client.xrange(EVENTS) == [
                (f"{seq}-0", {"e": entry.body.decode(), "t": entry.written_at, "c": entry.checksum})
                for seq, entry in sorted(stream.entries.items())
            ]

    def _run(self, script: Script, *arguments: Any) -> Any:
        real, simulated = (_outcome(each, script, arguments) for each in (self._engine, self._simulated))
        assert _without_times(real) == _without_times(simulated)
        return simulated

    def _owner_of(self, who: int) -> str:
        return (self._owner, *OWNERS)[who]

    def _epoch_of(self, number: int) -> str:
        return (self._epoch, *EPOCHS, "G")[number]

    @property
    def _position(self) -> int:
        return self._simulated.stream.position if self._simulated.stream else 0


def _outcome(engine: Any, script: Script, arguments: tuple[Any, ...]) -> Any:
    try:
        return engine.run(script, KEYS, arguments)
    except EngineFull:
        return [b"full"]


def _without_times(reply: Any) -> Any:
    """Return *reply* without the end of a lease and the age of a read."""
    match reply:
        case [b"owned", owner, ends, epoch]:
            return owner, ends > 0, epoch
        case [*before, age, has_more, written, seqs, sizes, raws] if len(before) == 8:
            return *before, age >= 0, has_more, written, seqs, sizes, raws
    return reply


# The arguments of each move, and its weight.
MOVES: dict[Callable[..., None], tuple[int, tuple[st.SearchStrategy[Any], ...]]] = {
    BothEngines.append: (10, (
        WHO, WHO, SHIFT, st.lists(st.integers(1, 2), max_size=7), st.integers(0, 2), st.integers(1, 20),
        st.integers(0, 20), st.integers(0, 1),
    )),
    BothEngines.read: (6, (
        st.sampled_from(["after", "before"]), st.integers(-2, 20), st.integers(0, 12), st.integers(0, 30)
    )),
    BothEngines.erase: (4, (WHO, WHO, st.lists(st.integers(0, 9), max_size=4))),
    BothEngines.claim: (3, (WHO, st.sampled_from(["a", "b", ""]), st.booleans())),
    BothEngines.begin: (3, (WHO, WHO, st.integers(0, 5), st.integers(0, 3))),
    BothEngines.wait: (2, (st.integers(0, 3),)),
    BothEngines.fill: (2, ()), BothEngines.free: (1, ()), BothEngines.count: (1, ()), BothEngines.end_lease: (1, ()),
    BothEngines.flush: (1, ()), BothEngines.evict: (1, ()),
}  # fmt: skip
MOVE = st.sampled_from([move for move, (weight, _) in MOVES.items() for _ in range(weight)]).flatmap(
    lambda move: st.tuples(st.just(move), st.tuples(*MOVES[move][1]))
)


@pytest.fixture
def small_nodes(redis_server: RedisServer) -> Iterator[RedisServer]:
    """An engine whose streams have nodes of a few entries."""
    before = redis_server.client.config_get("stream-node-max-entries")["stream-node-max-entries"]
    redis_server.client.config_set("stream-node-max-entries", NODE_EVENTS)
    yield redis_server
    redis_server.client.config_set("maxmemory", 0)
    redis_server.client.config_set("stream-node-max-entries", before)


@settings(
    max_examples=100, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(moves=st.lists(MOVE, min_size=10, max_size=40))
def test_the_simulated_engine_replies_as_redis_does(
    engine: Engine, small_nodes: RedisServer, moves: list[tuple[Callable[..., None], tuple[Any, ...]]]
) -> None:
    both = BothEngines(engine, small_nodes)
    both.free()
    both.claim(0, "a", True)
    both.begin(0, 0, 0, 0)
    for move, numbers in moves:
        move(both, *numbers)
        both.compare_content()
