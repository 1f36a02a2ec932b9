"""Viewers: clients that keep their cursor over connections.

Each is compared with a model.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import Collection
from typing import Any, NamedTuple

from outfeed.feed import frames
from outfeed.feed.client import ClientState
from outfeed.feed.subscription import Filter
from outfeed.verify.model import Breach, Model, StartAt, ToldVerdict
from tests.feed.fake_source import VIEWER
from tests.protocol import CLOSE, FrameReader
from tests.simulation.history import Disk
from tests.simulation.sockets import Socket
from tests.simulation.workers import Connection, Worker
from tests.transports import SseParser

# The requests of clients.
REQUESTS: tuple[dict[str, Any], ...] = (
    {"rate": 0},
    {"rate": 0, "batch": True},
    {"rate": 50, "batch": True},
    {"rate": 200},
    {"rate": 0, "types": ["a.*"]},
    {"rate": 0, "batch": True, "types": ["nothing.*"]},
    {"rate": 20, "types": ["x.y"]},
    {"rate": 5},
    {"rate": 5, "batch": True},
    {"rate": 1, "batch": True},
    {"rate": 1, "batch": True, "types": ["x.y"]},
    {"rate": 2, "batch": True},
    {"rate": 5, "types": ["nothing.*"]},
)


class Asked(NamedTuple):
    """A subscription that was sent, and the state of the history then.

    *before* is the position that the client had. *forgotten* are the events that may not come any more.
    """

    start: StartAt
    is_consumer: bool
    before: StartAt
    history: tuple[str, int]
    head: int
    forgotten: dict[str, int]


class Ack(NamedTuple):
    """An ack that was sent: it may be rejected, or it is beyond what was sent."""

    may_fail: bool
    is_beyond: bool


# Of each consumer: the connections that have claimed it.
Claims = defaultdict[str, set[Connection]]
# A consumer of another principal.
FOREIGN = "foreign"


class Viewer:
    """A client. It reads what has arrived when a step says so."""

    def __init__(
        self, disk: Disk, request: dict[str, Any], is_stream: bool, consumer: str | None, claims: Claims
    ) -> None:
        self._disk = disk
        self._claims = claims
        self._request = request
        self.is_stream = is_stream
        self.consumer = consumer
        self._filter = Filter(VIEWER.visible, tuple(request.get("types", ())))
        self.position = StartAt()
        self._seen: dict[str, dict[int, str]] = {}
        self.model: Model | None = None
        self.connection: Connection | None = None
        self.is_superseded = False

    @property
    def is_connected(self) -> bool:
        return self.connection is not None

    @property
    def is_stalled(self) -> bool:
        return self.connection is not None and self.connection.socket.is_slow

    # --- what it does -------------------------------------------------------------------------------------------------

    def connect(self, worker: Worker, start: StartAt) -> None:
        """Connect to *worker* and subscribe from *start*."""
        self._frames, self._parser, self._read = FrameReader(), SseParser(), 0
        self.model, self._asked = None, deque[Asked | None]()
        self._acks, self._foreign_claims = deque[Ack](), 0
        self._in_force: Asked | None = None
        self._rate, self._times = 0.0, deque[float]()
        self.told_head = 0
        self._epochs, self.is_superseded = self._disk.epochs, False
        self._first_position = self.position
        if self.is_stream:
            self._note(worker, start)
            self.connection = Connection(worker, self._fields(start))
        else:
            self.connection = Connection(worker, None)
            self.subscribe(start)

    def subscribe(self, start: StartAt) -> None:
        """Replace the subscription."""
        assert self.connection is not None
        self._note(self.connection.worker, start)
        self._say(action="subscribe", channel="events", **self._fields(start))

    def unsubscribe(self) -> None:
        """Leave the feed and stay connected."""
        self._asked.append(None)
        self._say(action="unsubscribe", channel="events")

    def ping(self) -> None:
        """Send a message that is answered at once."""
        self._say(action="ping")

    def acknowledge(self, beyond: int = 0) -> None:
        """Acknowledge what it has received, as a consumer, or *beyond* more."""
        if self.consumer is not None and self.model is not None and self.model.verdict is not None:
            self._acks.append(Ack(bool(self._asked), beyond > 0))
            self._say(action="ack", seq=self.model.cursor + beyond)

    def claim_foreign(self) -> None:
        """Claim a consumer of another principal, which is rejected."""
        self._foreign_claims += 1
        self._say(action="subscribe", channel="events", **self._request, consumer=FOREIGN)

    def _note(self, worker: Worker, start: StartAt) -> None:
        is_consumer = self.consumer is not None
        if self.consumer is not None and self.connection is not None:
            self._claims[self.consumer].add(self.connection)
        forgotten = {event_id: number for event_id, (number, _) in worker.forgotten.items()}
        self._asked.append(
            Asked(start, is_consumer, self.position, self._disk.history, self._disk.last_seq, forgotten)
        )  # fmt: skip

    def _fields(self, start: StartAt) -> dict[str, Any]:
        if self.consumer is not None:
            return self._request | {"consumer": self.consumer}
        return self._request | {name: value for name, value in start._asdict().items() if value is not None}

    def _say(self, **message: Any) -> None:
        assert self.connection is not None
        self.connection.inbox.append(json.dumps(message))

    @property
    def lacks(self) -> Collection[int]:
        """The events that a live client without a pace has not received."""
        if self.model is None or self.is_waiting or self._rate or self._socket.was_stalled or self._worker.is_copy:
            return ()
        if self._connected.subscriber.state is not ClientState.LIVE or self.model.epoch != self._disk.epoch:
            return ()
        return self._known(self.model.epoch, self.model.cursor, self._disk.last_seq)

    def cut(self, life: int) -> None:
        """Have the connection break after *life* more bytes."""
        self._socket.life = life
        self._socket.is_broken = not life

    def stall(self, room: int | None, most: int | None = None) -> None:
        """Have the socket accept *room* more bytes and *most* with one call."""
        if self.connection is not None:
            self.connection.socket.stall(room, most)

    @property
    def is_behind_verdict(self) -> bool:
        """Whether it has not been told the head of its verdict, or what follows.

        A process that could not read up to this head begins behind it. The source of a copy counts as such a one.
        """
        is_sure = not (self.is_waiting or self._socket.was_stalled or self._worker.source.has_failed)
        return is_sure and self.model is not None and self.model.cursor < self.told_head

    @property
    def is_waiting(self) -> bool:
        """Whether a subscription was sent and has no answer yet."""
        return bool(self._asked)

    # --- what it receives ---------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read what has arrived, and compare it with the model."""
        if self.connection is None:
            return
        socket = self._socket
        fresh, self._read = bytes(socket.sent[self._read :]), len(socket.sent)
        if fresh:
            self._take_stream(fresh) if self.is_stream else self._take_frames(fresh)
        if socket.is_broken:
            self.connection = None

    def _take_frames(self, data: bytes) -> None:
        self._frames.feed(data)
        for opcode, body in self._frames:
            self._sent_at = self._socket.sent_at(self._frames.taken_bytes)
            if opcode == CLOSE:
                self._take_end(int.from_bytes(body[:2], "big"), body[2:].decode())
            else:
                self._take_frame(json.loads(body))

    def _take_stream(self, data: bytes) -> None:
        for kind, text, id_ in self._parser.feed(data):
            payload = json.loads(text)
            match kind:
                case "subscribed":
                    self._take_verdict(payload)
                case "closed":
                    self._take_end(payload["code"], payload["reason"])
                case "stale":
                    pass
                case _:
                    self._take_events([{"seq": int(id_.rpartition(":")[2]), **payload}], None)
        if self.model is not None:
            self._take_cursor(int(self._parser.last_event_id.rpartition(":")[2]))

    def _take_frame(self, frame: dict[str, Any]) -> None:
        payload = frame.get("payload")
        match frame["type"]:
            case "subscribed":
                self._take_verdict(payload)
            case "unsubscribed":
                self._asked.popleft()
                self.model = self._in_force = None
            case "heartbeat":
                self._take_cursor(payload["cursor"])
            case "event":
                self._take_events([{"seq": frame["seq"], **payload}], frame["prev"])
                self._check_pace()
            case "events":
                self._take_events(payload, frame["prev"])
                self._check_pace()
            case "acked":
                if self._acks.popleft().is_beyond:
                    raise Breach("K3", "an ack of events that were not sent is accepted")
            case "error":
                self._take_error(payload)

    def _take_error(self, payload: dict[str, Any]) -> None:
        match payload["code"]:
            case "forbidden_consumer" if self._foreign_claims:
                self._foreign_claims -= 1
            case "no_consumer" | "ack_beyond" if self._acks:
                ack = self._acks.popleft()
                if self._is_alone and not (ack.may_fail or ack.is_beyond):
                    raise Breach("K7", f"the only connection of {self.consumer} can't acknowledge: {payload}")
            case _:
                raise Breach("M1", f"the server answers {payload}")

    @property
    def _is_alone(self) -> bool:
        """Whether no other connection has ever claimed the consumer."""
        return self._claims[str(self.consumer)] == {self.connection}

    @property
    def _followed(self) -> Model:
        if self.model is None:
            raise Breach("V1", "a message came before the verdict or after the end of the subscription")
        return self.model

    def _take_verdict(self, payload: dict[str, Any]) -> None:
        asked = self._asked.popleft()
        if asked is None:
            raise Breach("V1", "a verdict came without a subscription")
        missing = payload.get("missing")
        told = (missing["from"], missing["to"]) if missing else None
        verdict = ToldVerdict(payload["verdict"], payload["epoch"], payload["after"], payload["head"], told)
        self._check_verdict(asked, verdict)
        self._in_force = asked
        self.told_head = verdict.head
        self.model = Model(asked.start, self._known, is_copy=self._worker.is_copy)
        if asked.is_consumer:
            self.model.start = self._start_of_consumer(verdict)
        self.model.take_verdict(verdict, payload["after"])
        self._require_same_history(verdict)
        self._keep_position()
        if payload["rate"] != self._rate:
            self._rate, self._times = payload["rate"], deque()

    def _require_same_history(self, verdict: ToldVerdict) -> None:
        """Require that a resumed client knows no other events."""
        committed = self._disk.committed[verdict.epoch]
        for seq, event_id in self._seen.get(verdict.epoch, {}).items():
            if verdict.kind in ("resumed", "gap") and committed.get(seq, ("", ""))[0] != event_id:
                raise Breach("S2", f"event {seq} of {verdict.epoch} was {event_id} and is {committed.get(seq)}")

    def _start_of_consumer(self, verdict: ToldVerdict) -> StartAt:
        """Return the start that the verdict must belong to."""
        if verdict.kind == "reset":
            return StartAt(1, "another")
        return StartAt(verdict.missing[0] - 1 if verdict.missing else verdict.after, verdict.epoch)

    def _check_verdict(self, asked: Asked, verdict: ToldVerdict) -> None:
        disk, told = self._disk, verdict.missing
        is_behind = self._worker.is_copy and (disk.is_replaced or verdict.epoch != disk.epoch)
        if is_behind or disk.history != asked.history:
            return
        if told and told[1] > self._worker.source.last_missing:
            raise Breach("V4", f"events {told} are said to be missing, and some are not")
        if self._worker.is_copy:
            return
        if verdict.epoch != disk.epoch or verdict.head < asked.head:
            raise Breach("V9", f"the verdict is at {verdict.head} of {verdict.epoch}, not {asked.head} of {disk.epoch}")

    def _take_events(self, events: list[dict[str, Any]], prev: int | None) -> None:
        model = self._followed
        model.take_events([event["seq"] for event in events], prev)
        committed = self._disk.committed[model.epoch]
        for event in events:
            event_id, event_type = committed.get(event["seq"], ("", ""))
            if event_id != event["id"]:
                raise Breach("S2", f"event {event['seq']} of {model.epoch} is {event['id']}, not {event_id}")
            self._seen.setdefault(model.epoch, {})[event["seq"]] = event_id
            if not self._wants(event_type):
                raise Breach("F1", f"event {event['seq']} of the type {event_type} does not match")
            if event_id in self._disk.gone and self._is_forgotten(event_id, self._disk.gone[event_id]):
                raise Breach("S5", f"event {event['seq']} was erased before")
        self._keep_position()

    def _is_forgotten(self, event_id: str, erasure: int) -> bool:
        """Return whether the process had forgotten the event in time."""
        if self._in_force and self._in_force.forgotten.get(event_id) == erasure:
            return True
        is_sure = not (self.is_stream or self._worker.actors.is_late or self._socket.was_stalled)
        number, at = self._worker.forgotten.get(event_id, (0, math.inf))
        return is_sure and number == erasure and at < self._sent_at

    def _check_pace(self) -> None:
        """Count the messages with events of the last second."""
        self._times.append(self._sent_at)
        while self._times[0] <= self._sent_at - 1 + 1e-6:
            self._times.popleft()
        is_sure = not (self._worker.actors.is_late or self._socket.was_stalled)
        if self._rate and len(self._times) > self._rate and is_sure:
            raise Breach("P1", f"{len(self._times)} messages came in a second at the rate {self._rate}")

    def _take_cursor(self, cursor: int) -> None:
        self._followed.take_cursor(cursor)
        self._keep_position()

    def _keep_position(self) -> None:
        self.position = StartAt(self._followed.cursor, self._followed.epoch)

    def _take_end(self, code: int, reason: str) -> None:
        if code == frames.SUPERSEDED and self.consumer is not None:
            if self._is_alone:
                raise Breach("K5", f"the only connection of {self.consumer} is superseded")
            self.is_superseded = True
            return
        if self._worker.is_copy and code in (frames.RESTARTING, frames.OVERTAKEN):
            return
        if code == frames.INTERNAL_ERROR and self._worker.source.has_failed:
            return
        if code == frames.POLICY and self.model is None:
            return
        if code == frames.OVERTAKEN and self._worker.source.has_failed:
            return
        if code != frames.OVERTAKEN:
            raise Breach("M1", f"the server closed with {code}: {reason}")
        starts = [self.position, self._first_position, *(each.before for each in self._asked if each)]
        if self._in_force is not None:
            starts.append(self._in_force.before)
        if self._epochs == self._disk.epochs and not any(
            self._disk.is_lost(epoch or "", after or 0) for after, epoch in starts
        ):
            raise Breach("E9", f"closed at {self.position} although nothing is lost: {reason}")

    @property
    def _connected(self) -> Connection:
        assert self.connection is not None
        return self.connection

    @property
    def _socket(self) -> Socket:
        return self._connected.socket

    @property
    def _worker(self) -> Worker:
        return self._connected.worker

    def _wants(self, event_type: str) -> bool:
        return not self._filter.types or any(
            event_type == each or (each.endswith(".*") and event_type.startswith(each[:-1]))
            for each in self._filter.types
        )

    def _known(self, epoch: str, after: int, up_to: int) -> Collection[int]:
        committed, erased = self._disk.committed.get(epoch, {}), self._disk.erased
        return [
            seq
            for seq in range(after + 1, min(up_to, after + 10_000) + 1)
            if (found := committed.get(seq)) and found[0] not in erased and self._wants(found[1])
        ]
