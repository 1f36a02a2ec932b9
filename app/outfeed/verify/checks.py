"""Checks: one function each, with the sentences that it checks.

Every check runs over each transport that it names. A check writes few events and expects no quiet server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from outfeed import clock
from outfeed.verify.model import Breach, StartAt
from outfeed.verify.server import EVENT_TYPE, ProbeEvent, Reader, VerifiedServer
from outfeed.verify.transports import TRANSPORTS, Batched, LongPoll, Poll, StreamClient, TransportClient, WebSocket

FOREIGN_EPOCH = "0" * 32
FAR_AHEAD = 2**62
RATE = 5
QUIET_SECS = 0.5
MAX_MESSAGE_BYTES = 64 * 1024

Transport = type[TransportClient]
Run = Callable[[VerifiedServer, Transport], None]


class Check(NamedTuple):
    """One check, and the transports that it runs over."""

    run: Run
    title: str
    sentences: tuple[str, ...]
    transports: Sequence[Transport]
    needs_origin: bool


CHECKS: list[Check] = []


def check(
    title: str, *sentences: str, over: Sequence[Transport] = TRANSPORTS, needs_origin: bool = False
) -> Callable[[Run], Run]:
    """Register a check of *sentences*.

    An edge does not serve what *needs_origin*.
    """

    def registered(run: Run) -> Run:
        CHECKS.append(Check(run, title, sentences, over, needs_origin))
        return run

    return registered


def require(is_so: bool, sentence: str, what: str) -> None:
    """Raise Breach unless *is_so*."""
    if not is_so:
        raise Breach(sentence, what)


def require_exactly(reader: Reader, probes: Sequence[ProbeEvent], sentence: str = "E1") -> None:
    """Raise Breach unless *reader* receives exactly *probes*."""
    reader.settle()
    expected = [probe.seq for probe in probes]
    require(reader.seqs == expected, sentence, f"received {reader.seqs} instead of {expected}")


def await_arrival(target: VerifiedServer, transport: Transport, probe: ProbeEvent) -> None:
    """Wait until the server has *probe*: an edge may be behind the origin."""
    with target.reader(transport, after=probe.seq - 1, epoch=probe.epoch) as reader:
        reader.until(probe.seq)


# --- verdicts ---------------------------------------------------------------------------------------------------------


@check("A new client is live", "V1", "V2", "V8", "E1", "E12")
def live(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport) as reader:
        probes = target.write(3, task_id="verify-task", agent_id="verify-agent")
        reader.until(probes[-1].seq)
        require_exactly(reader, probes)
    for probe, event in zip(probes, reader.events, strict=True):
        differing = {name for name, value in probe.fields.items() if event[name] != value}
        require(not differing and event["id"] == probe.id, "E12", f"event {probe.seq} has other {sorted(differing)}")


@check("A client behind is resumed", "V5", "V8", "E1")
def resumed(target: VerifiedServer, transport: Transport) -> None:
    first, *rest = target.write(3)
    with target.reader(transport, after=first.seq, epoch=first.epoch) as reader:
        reader.until(rest[-1].seq)
        require_exactly(reader, rest)


@check("All stored events can be replayed", "V4", "V6", "E1")
def everything(target: VerifiedServer, transport: Transport) -> None:
    last = target.write(1)[0]
    with target.reader(transport, after=0) as reader:
        reader.until(last.seq)
        require(last.seq in reader.seqs, "E1", f"event {last.seq} is missing")


@check("A cursor of another history is a reset", "V3", "E1")
def foreign(target: VerifiedServer, transport: Transport) -> None:
    before = target.write(1)[0]
    await_arrival(target, transport, before)
    with target.reader(transport, after=before.seq, epoch=FOREIGN_EPOCH) as reader:
        probes = target.write(1)
        reader.until(probes[-1].seq)
        require_exactly(reader, probes)


@check("A cursor above the head is a reset", "V3", "V10")
def above_the_head(target: VerifiedServer, transport: Transport) -> None:
    epoch = target.write(1)[0].epoch
    with target.reader(transport, after=FAR_AHEAD, epoch=epoch):
        pass  # the model has compared the verdict with the start


@check("A cursor without an epoch is rejected", "V6")
def without_epoch(target: VerifiedServer, transport: Transport) -> None:
    target.require_rejected(transport, "V6", "epoch_required", after=1)


@check("The newest events come first", "V7")
def newest(target: VerifiedServer, transport: Transport) -> None:
    probes = target.write(3)
    await_arrival(target, transport, probes[-1])
    starts: list[dict[str, Any]] = [{}, {"after": probes[0].seq, "epoch": FOREIGN_EPOCH}]
    for start in starts:
        with target.reader(transport, last=2, **start) as reader:
            reader.until(probes[-1].seq)
            require_exactly(reader, probes[-2:], "V7")
    with target.reader(transport, last=1, after=probes[0].seq, epoch=probes[0].epoch) as reader:
        reader.until(probes[-1].seq)
        require_exactly(reader, probes[1:], "V7")


# --- events -----------------------------------------------------------------------------------------------------------


@check("A burst arrives complete and in order", "E1", "E2", "E3", "E4", "E7")
def burst(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport) as reader:
        probes = target.write(6) + target.write(1)
        reader.until(probes[-1].seq)
        require_exactly(reader, probes)
        if transport is WebSocket:
            most = max(len(message.events) for message in reader.messages)
            require(most == 1, "E3", f"a message has {most} events although batch was not requested")


@check("A filter without matches moves the cursor", "E4", "E5", "F3")
def no_match(target: VerifiedServer, transport: Transport) -> None:
    first, last = target.write(2)
    start: dict[str, Any] = {"after": first.seq, "epoch": first.epoch}
    with target.reader(transport, types=["verify.nothing"], matches=lambda _: False, **start) as reader:
        reader.until(last.seq)
        require_exactly(reader, [], "F3")


@check("Types and fields filter", "F1", "F2")
def filters(target: VerifiedServer, transport: Transport) -> None:
    ours, other = target.write(1, task_id="verify-a"), target.write(1, task_id="verify-b")
    start: dict[str, Any] = {"after": ours[0].seq - 1, "epoch": ours[0].epoch}
    wanted: list[tuple[dict[str, Any], list[ProbeEvent]]] = [
        ({"types": ["verify.*"]}, ours + other),
        ({"types": [EVENT_TYPE, "verify.nothing"]}, ours + other),
        ({"types": ["verif.*"]}, []),
        ({"task_id": "verify-a"}, ours),
        ({"task_id": "verify-a", "agent_id": "verify-other"}, []),
    ]
    for fields, expected in wanted:
        with target.reader(transport, matches=expected.__contains__, **start, **fields) as reader:
            reader.until(other[-1].seq)
            require_exactly(reader, expected, "F2" if "task_id" in fields else "F1")


@check("The pace is kept and drops nothing", "P1", "P2", "P3", over=(WebSocket, StreamClient))
def pace(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport, rate=RATE) as reader:
        began = clock.monotonic()
        probes = target.write(RATE)
        reader.until(probes[-1].seq)
        require_exactly(reader, probes, "P2")
        arrived = [message.arrived for message in reader.messages if message.events]
    require(arrived[0] - began < 1, "P3", f"the first event arrived after {arrived[0] - began:.1f} s")
    took, least = arrived[-1] - arrived[0], (RATE - 1) / RATE * 0.8
    require(took >= least, "P1", f"{RATE} messages arrived within {took:.2f} s at a rate of {RATE}")


@check("A new subscription replaces the old one", "E11", over=(WebSocket, Batched))
def replaced(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport, matches=lambda _: False) as reader:  # none matches the second subscription
        socket = cast(WebSocket, reader.connection)
        socket.subscribe(source=target.source, types=["verify.nothing"])
        reader.answer("verdict", "E11")
        target.write(1)
        reader.quiet(QUIET_SECS, "E11")
        socket.send(action="unsubscribe", channel="events")
        reader.answer("unsubscribed", "E11")
        target.write(1)
        reader.quiet(QUIET_SECS, "E11")


@check("The id of an event resumes the stream", "E6", over=(StreamClient,))
def last_event_id(target: VerifiedServer, transport: Transport) -> None:
    first, last = target.write(2)
    header = {"Last-Event-ID": f"{first.epoch}:{first.seq}"}
    start = StartAt(first.seq, first.epoch)
    with target.reader(transport, start, headers=header, after=0) as reader:
        reader.until(last.seq)
        require_exactly(reader, [last], "E6")


@check("Pages are complete up to their cursors", "E7", over=(Poll, LongPoll))
def pages(target: VerifiedServer, transport: Transport) -> None:
    probes = target.write(5)
    with target.reader(transport, after=probes[0].seq - 1, epoch=probes[0].epoch, limit=2) as reader:
        reader.until(probes[-1].seq)
        require_exactly(reader, probes, "E7")
        for message in reader.messages:
            require(len(message.events) <= 2, "E7", f"a page has {len(message.events)} events of at most 2")


@check("A long poll answers with the first event", "E8", over=(LongPoll,))
def long_poll(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport) as reader:
        began = clock.monotonic()
        probe = target.write(1)[0]
        reader.until(probe.seq)
        took = clock.monotonic() - began
        require(took < cast(LongPoll, reader.connection).wait - 1, "E8", f"the answer came after {took:.1f} s")


# --- consumers --------------------------------------------------------------------------------------------------------


@check("A consumer resumes at its checkpoint", "K1", "K2", "K3", "K4", over=(WebSocket, Batched), needs_origin=True)
def consumer(target: VerifiedServer, transport: Transport) -> None:
    start = target.create_consumer()
    probes = target.write(3)
    with target.reader(transport, start, consumer=target.consumer) as reader:
        socket = cast(WebSocket, reader.connection)
        reader.until(probes[-1].seq)
        require_exactly(reader, probes, "K1")
        socket.send(action="ack", seq=FAR_AHEAD)
        require(reader.answer("error", "K3").fields["code"] == "ack_beyond", "K3", "an ack beyond was accepted")
        socket.send(action="ack", seq=probes[0].seq)
        reader.answer("acked", "K3")
    again = StartAt(probes[0].seq, probes[0].epoch)
    with target.reader(transport, again, consumer=target.consumer) as reader:
        reader.until(probes[-1].seq)
        require_exactly(reader, probes[1:], "K4")


@check("A newer connection of a consumer ends the older one", "K5", over=(WebSocket,), needs_origin=True)
def superseded(target: VerifiedServer, transport: Transport) -> None:
    start = target.create_consumer()
    with (
        target.reader(transport, start, consumer=target.consumer) as older,
        target.reader(transport, start, consumer=target.consumer) as newer,
    ):
        older.until_ended(4009, "K5")
        probe = target.write(1)[0]
        newer.until(probe.seq)


@check("A consumer takes no position of its own", "K2", over=(WebSocket, StreamClient, Poll), needs_origin=True)
def two_starts(target: VerifiedServer, transport: Transport) -> None:
    target.create_consumer()
    target.require_rejected(transport, "K2", "invalid_field", consumer=target.consumer, after=0)


@check("A consumer over HTTP gets events until it acknowledges", "K3", "K4", over=(Poll,), needs_origin=True)
def consumer_over_http(target: VerifiedServer, _: Transport) -> None:
    start = target.create_consumer()
    probes = target.write(2)
    for acknowledged in (0, 1):
        page = target.page(consumer=target.consumer, source=target.source)
        seqs = [event["seq"] for event in page["events"]]
        expected = [probe.seq for probe in probes[acknowledged:]]
        require(seqs == expected, "K4", f"received {seqs} instead of {expected} after {start}")
        ack = {"seq": probes[0].seq, "epoch": page["epoch"]}
        require(target.acknowledge(ack | {"seq": FAR_AHEAD}) == 422, "K3", "an ack beyond the head was accepted")
        require(target.acknowledge(ack) == 200, "K3", "an ack was rejected")


# --- messages ---------------------------------------------------------------------------------------------------------

BAD_MESSAGES = (
    "not JSON",
    "[]",
    '{"action": "fly"}',
    '{"action": "subscribe", "channel": "news"}',
    '{"action": "subscribe", "channel": "events", "colour": 1}',
    '{"action": "subscribe", "channel": "events", "after": -1}',
    b"\x00\x01",
)


@check("A bad message is an error, and the subscription stays", "M1", "M2", over=(WebSocket, Batched))
def bad_messages(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport) as reader:
        for text in BAD_MESSAGES:
            cast(WebSocket, reader.connection).send_text(text)
            reader.answer("error", "M1")
            reader.messages.clear()
        probes = target.write(1)
        reader.until(probes[-1].seq)
        require_exactly(reader, probes, "M1")


@check("An unknown parameter is rejected", "M2", over=(StreamClient, LongPoll, Poll))
def unknown_parameter(target: VerifiedServer, transport: Transport) -> None:
    target.require_rejected(transport, "M2", "invalid_field", colour="red")


@check("A message that is too large ends the connection", "M3", over=(WebSocket,))
def too_large(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport) as reader:
        cast(WebSocket, reader.connection).send_text(f'"{"x" * MAX_MESSAGE_BYTES}"')
        reader.until_ended(1009, "M3")


@check("Too many messages end the connection", "M3", over=(WebSocket,))
def too_many(target: VerifiedServer, transport: Transport) -> None:
    with target.reader(transport) as reader:
        for _ in range(150):
            cast(WebSocket, reader.connection).send(action="ping")
        reader.until_ended(1008, "M3")
