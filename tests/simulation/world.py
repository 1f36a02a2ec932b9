"""Two workers, their file and their viewers, on one clock.

The core is the real one. Its threads take turns at seams, and time, sockets and the file are simulated, so one schedule
always gives the same run. Every message of every viewer is compared with the model of the protocol.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from outfeed import clock
from outfeed.config import Settings
from outfeed.edge import comparison, single, uplink
from outfeed.edge.rules import fingerprint
from outfeed.edge.stream import StreamWaker
from outfeed.edge.uplink import Uplink
from outfeed.errors import SourceError
from outfeed.feed import page_cache, relay, socket_writer, subscriber, tail
from outfeed.feed.core import Core
from outfeed.feed.stats import FeedStats
from outfeed.feed.trace import Trace
from outfeed.history import Item
from outfeed.metrics import Metrics
from outfeed.principal import Principal
from outfeed.store.high_water_mark import Position
from outfeed.verify.model import Breach, StartAt
from tests.feed.fake_source import MemoryCheckpoints
from tests.simulation.actors import Actors, Poller, replace_threads
from tests.simulation.engine import SimulatedEngine, SimulatedLease, SimulatedOwnerFile, SimulatedStore
from tests.simulation.history import TYPES, Disk, ProcessSource
from tests.simulation.viewer import FOREIGN, REQUESTS, Claims, Viewer
from tests.simulation.workers import HEARTBEAT_SECS, EdgeSource, Worker

WORKERS = 2
MAX_VIEWERS = 6
# Enough for every paced viewer to come to the head.
FINISH_SECS = 180
# More than the clock loses in a sum.
LATE_SECS = 1e-4
START = datetime(2026, 1, 1, tzinfo=UTC)
# Small, so that short runs turn pages and leave the tail.
LIMITS = (
    (tail, "TAIL_EVENTS", 20), (relay, "TAIL_EVENTS", 20), (relay, "PAGE_EVENTS", 16), (page_cache, "PAGE_EVENTS", 16),
    (subscriber, "PAGE_EVENTS", 16), (subscriber, "JOIN_EVENTS", 8), (uplink, "MIN_EVENTS", 8),
)  # fmt: skip
# The library's counters cost more than a whole run. They decide nothing.
METRICS = Metrics()


def _report(where: str, error: BaseException) -> None:
    raise Breach("M1", f"{where} failed: {type(error).__name__}: {error}")


METRICS.report_errors_to(_report)
ENGINE_EVENTS = 60
SETTINGS = Settings().model_copy(update={"engine_events": ENGINE_EVENTS})
# Enough for what the uplink keeps at the least.
ENGINE_BYTES = 40_000


class World:
    """The state that the steps of a schedule change.

    Every step takes two numbers, which it interprets for the present state. A schedule is therefore valid without any
    of its steps. Each process writes a trace to the folder *traces*, if there is one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, traces: Path | None = None) -> None:
        self.actors = Actors()
        self._replace(monkeypatch)
        self.disk = Disk()
        self.checkpoints = MemoryCheckpoints(self.disk)
        self._folder = traces
        self._traces: list[Trace] = []
        self.checkpoints.claim(FOREIGN, Principal("another", ("read",), "token:another"))
        self.viewers: list[Viewer] = []
        self._claims: Claims = defaultdict(set)
        self._is_noticed = False
        self.engine = SimulatedEngine(self.actors)
        self.edges: list[Worker] = []
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Start two workers, then an edge.

        The file has events before, and the backup lacks some of them.
        """
        self.disk.commit(3, TYPES[0], 0)
        self.disk.back_up()
        self.disk.commit(3, TYPES[1], 0)
        self.workers = [self._make_worker() for _ in range(WORKERS)]
        self.run(random.Random(0), 1000)
        source = EdgeSource(self.engine, fingerprint(SETTINGS), self._last_missing_at_edges)
        edge = Worker(self.actors, source, self._make_edge, self._make_waker, is_copy=True)
        source.on_erasure = edge.core.forget
        self.edges.append(edge)
        self.run(random.Random(0), 1000)

    def _last_missing_at_edges(self) -> float:
        """Return the last seq that a filled engine may lack.

        After a shortage of memory it may lack any.
        """
        if self.engine.was_full:
            return math.inf
        start = self.disk.last_seq - ENGINE_EVENTS
        return min((each.seq for each in self.disk.items if each.seq > start), default=self.disk.last_seq + 1) - 1

    def _replace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        actors = self.actors
        replace_threads(monkeypatch, actors)
        monkeypatch.setattr(socket_writer.select, "poll", lambda: Poller(actors))
        monkeypatch.setattr(clock, "monotonic", actors.monotonic)
        monkeypatch.setattr(clock, "now", lambda: START + timedelta(seconds=actors.now))
        for module, name, limit in LIMITS:
            monkeypatch.setattr(module, name, limit)
        for module in (uplink, comparison):
            monkeypatch.setattr(module, "store", SimulatedStore)
        monkeypatch.setattr(uplink, "OwnerFile", SimulatedOwnerFile)
        monkeypatch.setattr(single, "lease", SimulatedLease())
        numbers = itertools.count(1)
        monkeypatch.setattr(uplink, "secrets", SimpleNamespace(token_hex=lambda _: str(next(numbers))))

    def _make_worker(self) -> Worker:
        """Start a worker. One of them feeds the engine."""
        return Worker(self.actors, ProcessSource(self.disk, self.actors), self._make_core, self._make_uplink)

    def _make_uplink(self, worker: Worker) -> Uplink:
        process = SimpleNamespace(
            database=self.disk, metrics=METRICS, outbox=worker.source, core=worker.core, settings=SETTINGS
        )  # fmt: skip
        return Uplink(process, self.engine)  # type: ignore[arg-type]

    def _make_waker(self, edge: Worker) -> StreamWaker:
        core = edge.core
        return StreamWaker(self.engine, core.hub, core.relay.poll_if_wanted, core.wanted, METRICS)  # type: ignore[arg-type]

    def _make_edge(self, source: EdgeSource) -> Core:
        stats, trace = FeedStats(METRICS), self._make_trace()
        checkpoints = MemoryCheckpoints(self.disk)
        return Core(
            source, checkpoints, lambda *_: None, heartbeat_secs=HEARTBEAT_SECS, workers=1, stats=stats, trace=trace
        )  # type: ignore[arg-type] # fmt: skip

    def _make_core(self, source: ProcessSource) -> Core:
        stats, trace = FeedStats(METRICS), self._make_trace()
        return Core(
            source, self.checkpoints, self._record, heartbeat_secs=HEARTBEAT_SECS, workers=WORKERS,
            stats=stats, trace=trace,
        )  # fmt: skip

    def _make_trace(self) -> Trace | None:
        if self._folder is None:
            return None
        self._traces.append(Trace(self._folder / str(len(self._traces))))
        return self._traces[-1]

    def _record(self, epoch: str, seq: int, items: list[Item]) -> None:
        self.actors.seam()
        self.disk.record(epoch, Position.at(seq, items))
        self.actors.seam()

    def run(self, dice: random.Random, seams: float, turns: int | None = None) -> None:
        """Let the actors run, then have the viewers read."""
        self.actors.run(dice, seams, turns)
        for viewer in self.viewers:
            if viewer.connection is not None:
                viewer.connection.require_one_ending()
            viewer.read()
        for worker in [*self.workers, *self.edges]:
            self._require_working(worker)
        if self.actors.is_at_rest and not self.actors.is_late:
            if self._is_noticed:
                self._require_promptness()
            for worker in [*self.workers, *self.edges]:
                if worker.is_ready and worker.core.relay.failure is None and not worker.source.is_failing:
                    self._require_pace(worker)

    def _require_pace(self, worker: Worker) -> None:
        """Require that each cohort is at the position when its events are due.

        Its clients have been told the head of their verdicts.
        """
        position = worker.core.hub.position
        viewers = {each.connection.subscriber: each for each in self.viewers if each.connection}
        for cohort, members in worker.core.cohorts.live():
            if cohort.due >= self.actors.now - LATE_SECS:
                continue
            if cohort.position < position:
                raise Breach("P3", f"events up to {position} are due to clients at {cohort.position}")
            for viewer in [viewers[member.client] for member in members if member.client in viewers]:
                if viewer.is_behind_verdict and viewer.told_head <= position:
                    raise Breach("E5", f"a client at {position} was not told the head {viewer.told_head}")

    def _require_promptness(self) -> None:
        """Require that a commit that was noticed is sent at once."""
        self._is_noticed = False
        for viewer in self.viewers:
            if viewer.is_connected and viewer.lacks:
                raise Breach("P1", f"events {viewer.lacks} were not sent at once")

    def _require_working(self, worker: Worker) -> None:
        failure = worker.core.relay.failure
        if failure is not None and not failure.startswith((SourceError.__name__, "EngineDown", "EngineFull")):
            raise Breach("M1", f"a poll failed: {failure}")

    def close(self) -> None:
        """End all actors."""
        for worker in [*self.workers, *self.edges]:
            self.actors.kill(worker)
        for trace in self._traces:
            trace.close()

    # --- steps --------------------------------------------------------------------------------------------------------

    def write(self, a: int, b: int) -> None:
        """Commit events, and have the notifiers see it."""
        self.write_unnoticed(a, b)
        self._notice()
        self._is_noticed = all(worker.is_ready and not worker.source.is_failing for worker in self.workers)

    def _notice(self) -> None:
        """Have the commit notifiers see a commit."""
        for worker in self.workers:
            worker.notice()

    def write_unnoticed(self, a: int, b: int) -> None:
        """Commit events, which the next poll finds."""
        self._is_noticed = False
        self.disk.commit((1, 1, 2, 5, 40)[a % 5], TYPES[b % 2], (0, 10, 3000)[b % 3])

    def flow(self, a: int, b: int) -> None:
        """Commit single events at short intervals."""
        for _ in range(40):
            self.write(0, a)
            self.actors.pass_time((0.02, 0.05, 0.1)[b % 3])
            self.run(random.Random(a), 50)

    def tick(self, a: int, b: int) -> None:
        """Let time pass."""
        self.actors.pass_time((0.005, 0.02, 0.1, 0.6, 1.0, 15.0)[a % 6] * (1 + b % 3))

    def hold(self, a: int, b: int) -> None:
        """Let one thread make no progress for a while."""
        self.actors.hold(random.Random(a), 10 + b % 300)

    def join(self, a: int, b: int) -> None:
        """Connect a new viewer: at the head, from the beginning or behind."""
        is_stream = b % 4 == 0
        consumer = f"c{a % 2}" if a % 7 == 0 and not is_stream else None
        if len(self.viewers) < MAX_VIEWERS and (worker := self._worker(b, consumer)):
            viewer = Viewer(self.disk, REQUESTS[a % len(REQUESTS)], is_stream, consumer, self._claims)
            self.viewers.append(viewer)
            start = (StartAt(), StartAt(0), StartAt(max(1, self.disk.last_seq - b % 50), self.disk.epoch))[b % 3]
            viewer.connect(worker, start)

    def resubscribe(self, a: int, b: int) -> None:
        """Subscribe again on the same connection."""
        for viewer in self._pick(a, lambda each: each.is_connected and not each.is_stream):
            viewer.subscribe(self._some_start(viewer, b))

    def unsubscribe(self, a: int, _: int) -> None:
        """End a subscription and stay connected."""
        for viewer in self._pick(a, lambda each: each.is_connected and not each.is_stream):
            viewer.unsubscribe()

    def ping(self, a: int, _: int) -> None:
        """Have a client send a message that is answered at once."""
        for viewer in self._pick(a, lambda each: each.is_connected and not each.is_stream):
            viewer.ping()

    def acknowledge(self, a: int, b: int) -> None:
        """Acknowledge what a consumer has received, or more than was sent."""
        for viewer in self._pick(a, lambda each: each.is_connected and each.consumer is not None):
            viewer.acknowledge(0 if b % 3 else 10_000)

    def claim_foreign(self, a: int, _: int) -> None:
        """Have a consumer claim one that it may not have."""
        for viewer in self._pick(a, lambda each: each.is_connected and each.consumer is not None):
            viewer.claim_foreign()

    def leave(self, a: int, b: int) -> None:
        """Cut a connection after some more bytes."""
        for viewer in self._pick(a, lambda each: each.is_connected):
            viewer.cut(b % 500 if b % 3 else 0)

    def come_back(self, a: int, b: int) -> None:
        """Reconnect a viewer with its cursor, to any worker."""
        for viewer in self._pick(a, lambda each: not each.is_connected):
            if worker := self._worker(b, viewer.consumer):
                viewer.connect(worker, self._some_start(viewer, b))

    def reconnect_all(self, a: int, b: int) -> None:
        """Cut all connections. All viewers return to one process at once.

        Some begin at seq 0.
        """
        for number, viewer in enumerate(self.viewers):
            if viewer.is_connected:
                viewer.cut(0)
                viewer.read()
            if worker := self._worker(b, viewer.consumer):
                viewer.connect(worker, StartAt(0) if (a + number) % 3 else viewer.position)

    def stall(self, a: int, b: int) -> None:
        """Have a viewer's socket accept only some more bytes, or few at once."""
        for viewer in self._pick(a, lambda each: each.is_connected):
            viewer.stall((0, b % 400, b % 400, None)[b % 4], 200 + b % 400 if b % 4 > 1 else None)

    def drain(self, a: int, b: int) -> None:
        """Have a stalled viewer read again, all or some bytes."""
        for viewer in self._pick(a, lambda each: each.is_stalled):
            viewer.stall(None if b % 3 else b % 100)

    def prune(self, a: int, _: int) -> None:
        """Remove old events, and sometimes new ones."""
        self.disk.prune(self.disk.last_seq - (0, 5, 30, 100)[a % 4])
        self._notice()

    def erase(self, a: int, b: int) -> None:
        """Erase one event or some, which the processes are told."""
        last = self.disk.last_seq - a % (30 if b % 2 else self.disk.last_seq + 1)
        for seq in range(last - (a % 3) * 4, last + 1):
            self.disk.erase(seq)
        for worker in self.workers:
            worker.forget(dict(self.disk.gone), self.disk.erasures)
        self._notice()

    def back_up(self, _: int, __: int) -> None:
        """Copy the file."""
        self.disk.back_up()

    def restore(self, _: int, __: int) -> None:
        """Restore the backup under the running workers."""
        self._is_noticed = False
        self.disk.restore()
        self._notice()

    def replace(self, _: int, __: int) -> None:
        """Copy the backup over the file, which the source notices."""
        if self.disk.may_replace and all(worker.source.is_current for worker in self.workers):
            self._is_noticed = False
            self.disk.replace()

    def rewind(self, a: int, _: int) -> None:
        """Copy the backup into the same file, where a poll notices it."""
        if self.actors.is_at_rest and self._is_served and self.disk.is_backup_older:
            self.disk.rewind()
            self.actors.pass_time(1.0)
            self.run(random.Random(a), 3)

    @property
    def _is_served(self) -> bool:
        """Whether each worker is at the head of this file."""
        return all(
            worker.source.is_current and not worker.source.is_failing and worker.core.hub.position == self.disk.last_seq
            for worker in self.workers
        )  # fmt: skip

    def lose_engine(self, _: int, __: int) -> None:
        """Have no call of the engine succeed."""
        self.engine.is_down = True

    def revive_engine(self, _: int, __: int) -> None:
        """Have the engine answer again."""
        self.engine.is_down = False

    def flush_engine(self, _: int, __: int) -> None:
        """Have the engine lose all its content."""
        self.engine.flush()

    def evict(self, _: int, __: int) -> None:
        """Have the engine lose its stream and keep the rest."""
        self.engine.evict()

    def fill_engine(self, a: int, _: int) -> None:
        """Have the engine run out of memory, or give it more."""
        self.engine.max_bytes = ENGINE_BYTES if a % 2 else math.inf

    def replicate(self, _: int, __: int) -> None:
        """Bring the engine's replica up to date."""
        self.engine.replicate()

    def fail_over(self, _: int, __: int) -> None:
        """Promote the engine's replica, without the newest events."""
        self.engine.fail_over()

    def drop_replies(self, a: int, _: int) -> None:
        """Lose the next replies of the engine."""
        self.engine.drops = 1 + a % 3

    def fail(self, a: int, b: int) -> None:
        """Have some reads of one worker fail."""
        self._is_noticed = False
        source = self.workers[a % WORKERS].source
        if b % 2:
            source.fails = b % 40
        else:
            source.page_fails = b % 40

    def crash(self, a: int, b: int) -> None:
        """Kill a worker. With an odd *b* all, and the backup is in place then."""
        self._is_noticed = False
        dead = range(WORKERS) if b % 2 else [a % WORKERS]
        self._kill(dead)
        if b % 2:
            self.disk.replace()
        self.disk.compare_with_mark()
        self._start_again(dead)

    def lose_mark(self, a: int, b: int) -> None:
        """Start all workers on the backup without a mark.

        The engine has the newest events, and its content is compared instead. The backup is not used again, because
        only its mark would show that.
        """
        self.actors.pass_time(uplink.HEARTBEAT_SECS)
        self.run(random.Random(a), 1000)
        if not (self.actors.is_at_rest and self._is_served and self._is_engine_current and self.disk.may_replace):
            return
        self._is_noticed = False
        self._kill(range(WORKERS))
        self.disk.rewind() if a % 2 else self.disk.replace()
        if b % 2:
            self.disk.commit(b % 9, TYPES[0], 0)
        self.disk.lose_mark()
        self._compare_with_engine()
        self.disk.compare_with_mark()
        self.disk.back_up()
        self._start_again(range(WORKERS))

    @property
    def _is_engine_current(self) -> bool:
        """Whether the engine has the event at the head.

        Without an event there, the comparison shows nothing.
        """
        stream, is_same = self.engine.stream, self.engine.head.get("epoch") == self.disk.epoch
        return is_same and not self.engine.is_down and stream is not None and self.disk.last_seq in stream.entries

    def _compare_with_engine(self) -> None:
        """Do what a start does before it opens a port."""
        stream, head = self.engine.stream, self.engine.head
        assert stream is not None
        seq = max(stream.entries, default=0)
        checksum = stream.entries[seq].checksum if seq else ""
        held = comparison.Held(head["epoch"], stream.position, int(head["target"]), seq, checksum)
        owned = SimulatedOwnerFile(self.disk).load().epoch
        if comparison.needs_new_epoch(self.disk, self.disk.window(), owned, held):  # type: ignore[arg-type]
            self.disk.renew_epoch(self.disk.epoch)

    def _kill(self, indices: Iterable[int]) -> None:
        for index in indices:
            for viewer in self.viewers:
                if viewer.connection is not None and viewer.connection.worker is self.workers[index]:
                    viewer.connection = None
            self.actors.kill(self.workers[index])

    def _start_again(self, indices: Iterable[int]) -> None:
        for index in indices:
            self.workers[index] = self._make_worker()

    # --- checks -------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Require that every viewer comes to the head.

        Each consumer has one connection then.
        """
        end, dice = self.actors.now + FINISH_SECS, random.Random(0)
        self.engine.is_down, self.engine.drops = False, 0
        for worker in self.workers:
            worker.source.fails = worker.source.page_fails = 0
        while self.actors.now < end:
            for viewer in [each for each in self.viewers if not each.is_superseded]:
                viewer.stall(None)
                if not viewer.is_connected or viewer.model is None:
                    self._follow_again(viewer)
            self.actors.pass_time(0.25)
            self.run(dice, 1000)
            behind = [each for each in self.viewers if not (each.is_superseded or self._is_at_head(each))]
            if not behind and not (rivals := self._rivals()):
                return
        if behind:
            positions = [each.position for each in self.viewers]
            head = f"the head is {self.disk.last_seq} of {self.disk.epoch}"
            raise Breach("E1", f"viewers are at {positions}, and {head}")
        raise Breach("K5", f"several connections of the consumers {rivals} are active")

    def _is_at_head(self, viewer: Viewer) -> bool:
        return viewer.position == (self.disk.last_seq, self.disk.epoch)

    def _rivals(self) -> list[str]:
        """Return the consumers that have several connections."""
        active = [each for each in self.viewers if each.is_connected and each.model and not each.is_superseded]
        counts = Counter(each.consumer for each in active if each.consumer)
        return [name for name, count in counts.items() if count > 1]

    def _follow_again(self, viewer: Viewer) -> None:
        if not viewer.is_connected:
            if worker := self._worker(0, viewer.consumer):
                viewer.connect(worker, viewer.position)
        elif not viewer.is_waiting:
            viewer.subscribe(viewer.position)

    def _some_start(self, viewer: Viewer, b: int) -> StartAt:
        """Return the viewer's position, or one that is foreign or beyond."""
        if b % 11 == 0:
            return StartAt(5, "another")
        if b % 13 == 0:
            return StartAt(self.disk.last_seq + 10, self.disk.epoch)
        return viewer.position

    def _worker(self, number: int, consumer: str | None = None) -> Worker | None:
        """Return a process that has started. An edge serves no consumer."""
        ready = [worker for worker in [*self.workers, *(() if consumer else self.edges)] if worker.is_ready]
        return ready[number % len(ready)] if ready else None

    def _pick(self, a: int, fits: Callable[[Viewer], bool]) -> list[Viewer]:
        """Return one of the viewers that fit, or none."""
        found = [viewer for viewer in self.viewers if fits(viewer)]
        return [found[a % len(found)]] if found else []
