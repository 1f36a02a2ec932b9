"""Two workers, their disk and their viewers, on one thread and one clock.

The core is the real one. Time, sockets and the disk are simulated, so one schedule always gives the same run. Every
message of every viewer is compared with the model of the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

import pytest

from outfeed.errors import Overtaken
from outfeed.feed import frames, subscriber
from outfeed.feed.core import Core
from outfeed.feed.sse import SSE
from outfeed.feed.subscription import Filter
from outfeed.history import Item
from outfeed.verify.model import Breach, Model, StartAt, ToldVerdict
from tests.feed.fake_source import VIEWER, MemoryCheckpoints
from tests.feed.simulated import Clock, SimulatedClient
from tests.protocol import FrameReader
from tests.simulation.history import TYPES, Disk
from tests.transports import SseParser

WORKERS = 2
HEARTBEAT_SECS = 15.0
MAX_VIEWERS = 6
# Enough for every paced viewer to come to the head.
FINISH_SECS = 120
REQUESTS: tuple[dict[str, Any], ...] = (
    {"rate": 0},
    {"rate": 0, "batch": True},
    {"rate": 50, "batch": True},
    {"rate": 200},
    {"rate": 0, "types": ["a.*"]},
    {"rate": 0, "batch": True, "types": ["nothing.*"]},
)


class Worker:
    """One process: its core, and the commit notifier's rest."""

    def __init__(self, world: World) -> None:
        self.time = world.time
        self.core = Core(
            world.disk, world.checkpoints, world.record, heartbeat_secs=HEARTBEAT_SECS, workers=WORKERS
        )  # fmt: skip
        self._rests_until = 0.0
        self.core.relay.start()
        self.core.relay.poll()

    def notice(self) -> None:
        """Do the commit notifier's work."""
        if self._rests_until <= self.time.now or self.core.wanted.is_set():
            self.core.wanted.clear()
            self._rests_until = self.time.now + self.core.relay.poll_if_wanted()

    def tick(self) -> None:
        """Do the work of the scheduler and the pacer."""
        self.core.pacer.take_due()
        self.core.relay.poll()


class Viewer:
    """A client that keeps its cursor over connections, and its model."""

    def __init__(self, world: World, request: dict[str, Any], is_stream: bool) -> None:
        self._world = world
        self._request = request
        self._is_stream = is_stream
        self._filter = Filter(VIEWER.visible, tuple(request.get("types", ())))
        self.model: Model | None = None
        self.client: SimulatedClient | None = None
        self.worker: Worker | None = None
        self.position = StartAt()
        self._start = StartAt()
        self._before: StartAt | None = None
        self._read = 0

    @property
    def is_connected(self) -> bool:
        return self.client is not None

    def connect(self, worker: Worker, start: StartAt) -> None:
        """Connect to *worker* and subscribe from *start*."""
        self.client = SimulatedClient(worker, SSE if self._is_stream else frames.WEBSOCKET, (10, 0))  # type: ignore[arg-type]
        self.worker = worker
        self._epochs = self._world.disk.epochs
        self._frames, self._parser, self._read, self.model = FrameReader(), SseParser(), 0, None
        worker.core.hub.add(self.client.subscriber)
        self.subscribe(start)

    def subscribe(self, start: StartAt) -> None:
        """Replace the subscription."""
        assert self.client is not None
        # Events that were lost before the new verdict may still end the connection.
        self._start, self._before = start, self.position
        self.client.subscribe(after=start.after, epoch=start.epoch, **self._request)
        self.read()

    def disconnect(self) -> None:
        """End the connection. The client keeps what it has read."""
        assert self.client is not None
        assert self.worker is not None
        self.worker.core.hub.remove(self.client.subscriber)
        self.client = None

    def step(self) -> None:
        """Do the work of the connection's own thread, and read."""
        if self.client is None:
            return
        try:
            self.client.step()
            ending = self.client.subscriber.ending
        except Overtaken as error:
            ending = (frames.OVERTAKEN, str(error))
        self.read()
        if ending is not None:
            self._require_reason(*ending)
            self.disconnect()
        self._before = None

    def _require_reason(self, code: int, reason: str) -> None:
        if code != frames.OVERTAKEN:
            raise Breach("M1", f"the server closed with {code}: {reason}")
        disk, (after, epoch) = self._world.disk, self._before or self.position
        if self._epochs == disk.epochs and not disk.is_lost(epoch or "", after or 0):
            raise Breach("E9", f"closed at {self.position} although nothing is lost: {reason}")

    def read(self) -> None:
        """Read what has arrived, and compare it with the model."""
        assert self.client is not None
        received = self.client.socket.received
        fresh, self._read = received[self._read :], len(received)
        if self._is_stream:
            for kind, data, id_ in self._parser.feed(fresh):
                self._take_event(kind, json.loads(data), int(id_.rpartition(":")[2]))
            if self.model is not None:
                self.model.take_cursor(int(self._parser.last_event_id.rpartition(":")[2]))
                self._keep_position()
        else:
            self._frames.feed(fresh)
            for _, body in self._frames:
                self._take_frame(json.loads(body))

    def _take_frame(self, frame: dict[str, Any]) -> None:
        payload = frame["payload"]
        match frame["type"]:
            case "subscribed":
                self._take_verdict(payload)
            case "heartbeat":
                self._model.take_cursor(payload["cursor"])
            case "event":
                self._take([{"seq": frame["seq"], **payload}], frame["prev"])
            case "events":
                self._take(payload, frame["prev"])
        self._keep_position()

    def _take_event(self, kind: str, payload: dict[str, Any], seq: int) -> None:
        if kind == "subscribed":
            self._take_verdict(payload)
        else:
            self._take([{"seq": seq, **payload}], None)
        self._keep_position()

    @property
    def _model(self) -> Model:
        if self.model is None:
            raise Breach("V1", "a message came before the verdict")
        return self.model

    def _take_verdict(self, payload: dict[str, Any]) -> None:
        missing = payload.get("missing")
        told = (missing["from"], missing["to"]) if missing else None
        if told and told[1] >= self._world.disk.window().first_seq:
            raise Breach("V4", f"events {told} are said to be missing, and some are not")
        self.model = Model(self._start, self._known)
        self.model.take_verdict(
            ToldVerdict(payload["verdict"], payload["epoch"], payload["after"], payload["head"], told), payload["after"]
        )

    def _take(self, events: list[dict[str, Any]], prev: int | None) -> None:
        self._model.take_events([event["seq"] for event in events], prev)
        committed = self._world.disk.committed[self._model.epoch]
        for event in events:
            event_id, event_type = committed.get(event["seq"], ("", ""))
            if event_id != event["id"]:
                raise Breach("S2", f"event {event['seq']} of {self._model.epoch} is {event['id']}, not {event_id}")
            if not self._wants(event_type):
                raise Breach("F1", f"event {event['seq']} of the type {event_type} does not match")

    def _keep_position(self) -> None:
        if self._model.verdict is not None:
            self.position = StartAt(self._model.cursor, self._model.epoch)

    def _wants(self, event_type: str) -> bool:
        return not self._filter.types or any(event_type.startswith(each[:-1]) for each in self._filter.types)

    def _known(self, epoch: str, after: int, up_to: int) -> Collection[int]:
        committed = self._world.disk.committed.get(epoch, {})
        return [seq for seq, (_, kind) in committed.items() if after < seq <= up_to and self._wants(kind)]


class World:
    """The state that the steps of a schedule change.

    Every step takes two numbers, which it interprets for the present state. A schedule is therefore valid without any
    of its steps.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = Clock(monkeypatch)
        monkeypatch.setattr(subscriber.time, "sleep", self._sleep)
        self.disk = Disk()
        self.checkpoints = MemoryCheckpoints(self.disk)
        self._mark: tuple[str, int, str | None] = ("", 0, None)
        self.workers = [Worker(self) for _ in range(WORKERS)]
        self.viewers: list[Viewer] = []

    def _sleep(self, secs: float) -> None:
        self.time.now += secs

    def record(self, epoch: str, item: Item) -> None:
        """Keep the high-water mark, as its file does."""
        self._mark = (epoch, item.seq, item.id)

    # --- steps --------------------------------------------------------------------------------------------------------

    def write(self, a: int, b: int) -> None:
        """Commit events, which every worker notices."""
        self.write_unnoticed(a, b)
        for worker in self.workers:
            worker.notice()

    def write_unnoticed(self, a: int, b: int) -> None:
        """Commit events that wait for the next poll."""
        self.disk.commit((1, 1, 2, 5, 40)[a % 5], TYPES[b % 2], (0, 10, 3000)[b % 3])

    def tick(self, a: int, b: int) -> None:
        """Let time pass, in steps of 5 ms or of a second."""
        for _ in range(1 + a % 10):
            self.time.now += 0.005 if b % 3 else 1.0
            for worker in self.workers:
                worker.tick()
            self._step_viewers()

    def poll_one(self, a: int, _: int) -> None:
        """Have one worker poll, and not the other."""
        self.workers[a % WORKERS].core.relay.poll()

    def join(self, a: int, b: int) -> None:
        """Connect a new viewer: at the head, from the beginning or behind."""
        if len(self.viewers) < MAX_VIEWERS:
            viewer = Viewer(self, REQUESTS[a % len(REQUESTS)], is_stream=b % 4 == 0)
            self.viewers.append(viewer)
            start = (StartAt(), StartAt(0), StartAt(max(1, self.disk.last_seq - b % 50), self.disk.epoch))[b % 3]
            viewer.connect(self.workers[b % WORKERS], start)

    def resubscribe(self, a: int, b: int) -> None:
        """Subscribe again on the same connection."""
        for viewer in self._pick(a, lambda each: each.is_connected and self._can_write(each)):
            viewer.subscribe(self._some_start(viewer, b))

    def leave(self, a: int, _: int) -> None:
        """Disconnect a viewer at any byte."""
        for viewer in self._pick(a, lambda each: each.is_connected):
            viewer.disconnect()

    def come_back(self, a: int, b: int) -> None:
        """Reconnect a viewer with its cursor, to any worker."""
        for viewer in self._pick(a, lambda each: not each.is_connected):
            viewer.connect(self.workers[b % WORKERS], self._some_start(viewer, b))

    def stall(self, a: int, b: int) -> None:
        """Have a viewer's socket accept only some more bytes."""
        for viewer in self._pick(a, lambda each: each.is_connected and self._can_write(each)):
            viewer.client.socket.room = b % 400  # type: ignore[union-attr]

    def drain(self, a: int, _: int) -> None:
        """Have a stalled viewer read again."""
        for viewer in self._pick(a, lambda each: each.is_connected and not self._can_write(each)):
            viewer.client.socket.room = None  # type: ignore[union-attr]
            viewer.step()

    def step_one(self, a: int, _: int) -> None:
        """Let the thread of one connection run."""
        for viewer in self._pick(a, lambda each: each.is_connected):
            viewer.step()

    def prune(self, a: int, _: int) -> None:
        """Remove old events, and sometimes new ones."""
        self.disk.prune(self.disk.last_seq - (0, 5, 30, 100)[a % 4])

    def back_up(self, _: int, __: int) -> None:
        """Copy the file."""
        self.disk.back_up()

    def restore(self, _: int, __: int) -> None:
        """Restore the backup under the running workers."""
        self.disk.restore()

    def replace(self, _: int, __: int) -> None:
        """Copy the backup over the file, which the source notices."""
        if not self.disk.holds(*self._mark[1:]):
            self.disk.replace()
            for worker in self.workers:
                worker.core.relay.poll()

    def crash(self, a: int, b: int) -> None:
        """Kill a worker. With an odd *b* the backup is in place after it."""
        for index in range(WORKERS) if b % 2 else [a % WORKERS]:
            for viewer in self.viewers:
                if viewer.is_connected and viewer.worker is self.workers[index]:
                    viewer.read()
                    viewer.client = None
            self.workers[index] = None  # type: ignore[call-overload]
        if b % 2:
            self.disk.replace()
        self._start_workers()

    def _start_workers(self) -> None:
        """Start what was killed; the mark is compared first."""
        epoch, seq, event_id = self._mark
        if epoch == self.disk.epoch and not self.disk.holds(seq, event_id):
            self.disk.renew_epoch(epoch)
        self.workers = [worker or Worker(self) for worker in self.workers]

    # --- checks -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Do what runs at once after any step."""
        self._step_viewers()

    def finish(self) -> None:
        """Require that every viewer comes to the head."""
        for viewer in self.viewers:
            if not viewer.is_connected:
                viewer.connect(self.workers[0], viewer.position)
            viewer.client.socket.room = None  # type: ignore[union-attr]
        end = self.time.now + FINISH_SECS
        while self.time.now < end:
            self.time.now += 0.25
            for worker in self.workers:
                worker.tick()
            self._step_viewers()
            for viewer in self._pick_all(lambda each: not each.is_connected):
                viewer.connect(self.workers[0], viewer.position)
            if all(each.position == (self.disk.last_seq, self.disk.epoch) for each in self.viewers):
                return
        behind = [each.position for each in self.viewers]
        raise Breach("E1", f"viewers are at {behind}, and the head is {self.disk.last_seq} of {self.disk.epoch}")

    def _step_viewers(self) -> None:
        for viewer in self.viewers:
            viewer.step()

    def _some_start(self, viewer: Viewer, b: int) -> StartAt:
        """Return the viewer's position, or one that is foreign or beyond."""
        if b % 11 == 0:
            return StartAt(5, "another")
        if b % 13 == 0:
            return StartAt(self.disk.last_seq + 10, self.disk.epoch)
        return viewer.position

    def _can_write(self, viewer: Viewer) -> bool:
        return viewer.client is not None and viewer.client.socket.room is None

    def _pick(self, a: int, fits: Callable[[Viewer], bool]) -> list[Viewer]:
        """Return one of the viewers that fit, or none."""
        found = self._pick_all(fits)
        return [found[a % len(found)]] if found else []

    def _pick_all(self, fits: Callable[[Viewer], bool]) -> list[Viewer]:
        return [viewer for viewer in self.viewers if fits(viewer)]
