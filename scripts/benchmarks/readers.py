"""Two ways to read a chunk. Both check the number of every event.

The careful way reads frame by frame, records the latency of each event and answers pings. It parses once no more bytes
are ready: the latency is that of the bytes' arrival, without the time for the bytes of earlier clients.
The fast way is for bursts. Events of one server have one size while their numbers have as many digits. So a digit of
all events in a chunk is at one stride, and six strided slices check them all: about 20 ns an event. An irregular chunk
is searched with a regular expression. Frame borders, and pings among events, are not seen.
"""

from __future__ import annotations

import time
from array import array

from scripts.benchmarks import websocket
from scripts.benchmarks.client import Client
from scripts.benchmarks.errors import LoadError, SequenceError
from scripts.benchmarks.event import ANCHOR, ITEM, ITEM_BYTES, digits
from tests.protocol import frame_spans

CHUNK_BYTES = 262_144
MAX_UNPARSED = 1000
_RESERVE = 64
_DIGIT_AT = len(ANCHOR)
_TAIL = ITEM_BYTES - 1


class Reader:
    """Reads the chunks of one phase.

    Each client must get events 1 to *events*. *finished* is the number of clients that have them all. *unparsed* holds
    carefully read chunks until `parse`.
    """

    def __init__(self, events: int) -> None:
        self.events = events
        self.latencies_ns = array("q")
        self.first_ns = 0
        self.finished = 0
        self.unparsed: list[tuple[Client, bytes, int]] = []
        self._digits = digits(events) if events else []
        self._buffer = bytearray(_RESERVE + CHUNK_BYTES)
        self._target = memoryview(self._buffer)[_RESERVE:]

    def read(self, client: Client) -> None:
        """Read one chunk from the socket of *client*, which is ready."""
        size = client.sock.recv_into(self._target)
        if not size:
            raise LoadError(f"the server closed the connection after event {client.seen}")
        if client.is_careful:
            self.unparsed.append((client, bytes(self._target[:size]), time.time_ns()))
            if len(self.unparsed) >= MAX_UNPARSED:
                self.parse()
        else:
            before = client.seen
            self._read_fast(client, _RESERVE + size)
            self._record_progress(client, before)

    def parse(self) -> None:
        """Parse the chunks that were read carefully."""
        unparsed, self.unparsed = self.unparsed, []
        for client, chunk, clock_ns in unparsed:
            before = client.seen
            parse = self._parse_frames if client.has_frames else self._parse_bytes
            parse(client, client.rest + chunk, clock_ns)
            self._record_progress(client, before)

    def _record_progress(self, client: Client, before: int) -> None:
        if client.seen > self.events:
            raise SequenceError(f"event {client.seen} came, but only {self.events} were written")
        self.finished += before < client.seen == self.events

    def _parse_bytes(self, client: Client, data: bytes, clock_ns: int) -> None:
        """Find the events in *data*, between any other bytes."""
        self._take_events(client, data, 0, len(data), clock_ns)
        last = data.rfind(ANCHOR)
        is_whole = last < 0 or len(data) - last >= ITEM_BYTES
        client.rest = data[1 - len(ANCHOR) :] if is_whole else data[last:]

    def _parse_frames(self, client: Client, data: bytes, clock_ns: int) -> None:
        stop = 0
        for opcode, start, stop in frame_spans(data):
            if opcode == websocket.TEXT:
                self._take_events(client, data, start, stop, clock_ns)
            elif opcode == websocket.PING:
                client.sock.send(websocket.masked(websocket.PONG, data[start:stop]))
            elif opcode == websocket.CLOSE:
                raise LoadError(f"the server closed with {data[start:stop]!r} after event {client.seen}")
        client.rest = data[stop:]

    def _take_events(self, client: Client, data: bytes, start: int, stop: int, clock_ns: int) -> None:
        for number, t_ns in ITEM.findall(data, start, stop):
            if int(number) != client.seen + 1:
                raise SequenceError(f"event {int(number)} came after event {client.seen}")
            client.seen += 1
            born_ns = int(t_ns)
            self.latencies_ns.append(clock_ns - born_ns)
            if client.seen == 1:
                self.first_ns = born_ns

    def _read_fast(self, client: Client, end: int) -> None:
        buffer = self._buffer
        begin = _RESERVE - len(client.rest)
        buffer[begin:_RESERVE] = client.rest
        whole = end - _TAIL + _DIGIT_AT - 1
        first = buffer.find(ANCHOR, begin, whole)
        after = begin
        if first >= 0:
            last = buffer.rfind(ANCHOR, begin, whole)
            self._check(client, first, last)
            after = last + ITEM_BYTES
        client.rest = bytes(buffer[max(after, end - _TAIL) : end])

    def _check(self, client: Client, first: int, last: int) -> None:
        digit = last + _DIGIT_AT
        number = int(self._buffer[digit : digit + 6])
        if not self._is_regular(client.seen, number - client.seen, first, last):
            found = [int(item[0]) for item in ITEM.findall(self._buffer, first, last + ITEM_BYTES)]
            if found != list(range(client.seen + 1, number + 1)):
                raise SequenceError(f"after event {client.seen} came {found[:20]} … {number}")
        client.seen = number

    def _is_regular(self, seen: int, count: int, first: int, last: int) -> bool:
        """Return whether the six digits of *count* events are at one stride.

        They must be seen + 1, seen + 2 …
        """
        if count < 2:
            return count == 1 and first == last
        stride, odd = divmod(last - first, count - 1)
        if odd or self._buffer.find(ANCHOR, first + 1, last + _DIGIT_AT) != first + stride:
            return False  # the second match: at twice the stride, duplicates would be skipped
        at, stop = first + _DIGIT_AT, last + _DIGIT_AT + 1
        return all(
            self._buffer[at + k : stop + k : stride] == column[seen : seen + count]
            for k, column in enumerate(self._digits)
        )
