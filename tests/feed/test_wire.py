"""The wire: what was begun is finished first, whoever writes next; nobody waits but the client's own thread."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.feed import frames, wire
from outfeed.feed.wire import Stalled, Wire
from tests.feed.cast import Peer
from tests.waits import wait_until

# Smaller ones have the kernel wait a fifth of a second for each window (RFC 1122 section 4.2.3.3).
SMALL_BUFFER_BYTES = 65_536
# More than a loopback connection swallows unread.
LARGE = frames.text(b"L" * 8_000_000)
NEXT = frames.text(b"next")


def always() -> bool:
    return True


def never(_: bytes) -> bool:
    return False


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


def cut(wire: Wire, frame: bytes = LARGE) -> None:
    """Offer one frame that the socket can't take, and keep its end, as a subscriber does."""
    with wire.lock:
        sent = wire.offer(frame)
        wire.keep(frame[sent:])
    assert 0 < sent < len(frame)


@contextlib.contextmanager
def read_frames(peer: Peer, count: int) -> Iterator[list[tuple[int, bytes]]]:
    """Read *count* frames on a thread meanwhile; they are all there at the end of the block."""
    taken: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: taken.extend(peer.take_frame() for _ in range(count)))
    thread.start()
    yield taken
    thread.join()


def test_an_offer_sends_what_the_socket_takes_and_never_waits(peer: Peer) -> None:
    with peer.wire.lock:
        sent = peer.wire.offer(LARGE)
        assert 0 < sent < len(LARGE)
        assert peer.wire.offer(LARGE[sent:]) < len(LARGE) - sent


def test_nothing_goes_while_the_rest_of_an_earlier_frame_is_in_the_way(peer: Peer) -> None:
    cut(peer.wire)
    with peer.wire.lock:
        assert peer.wire.offer(NEXT) == 0


WRITERS: dict[str, Callable[[Wire], object]] = {
    "the own thread": lambda wire: wire.write(NEXT, always),
    "a batch": lambda wire: offered(wire, NEXT),
}


def offered(wire: Wire, frame: bytes) -> int:
    with wire.lock:
        return wire.offer(frame)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_cut_frame_is_finished_first_by_whoever_writes_next(peer: Peer, write: Callable[[Wire], object]) -> None:
    # given a frame of which only the beginning went
    frame = frames.text(b"x" * 20_000)
    with peer.wire.lock:
        assert peer.wire.offer(frame[:10]) == 10
        peer.wire.keep(frame[10:])
    # when anyone writes
    with read_frames(peer, 2) as taken:
        write(peer.wire)
    # then both frames are whole
    assert taken == [(1, b"x" * 20_000), (1, b"next")]


class OfferedBetween:
    """A lock that *offer* takes first, once: just before its owner takes it for the second time."""

    def __init__(self, lock: threading.Lock, offer: Callable[[], None]) -> None:
        self._lock = lock
        self._offer = offer
        self._entries = 0

    def __enter__(self) -> None:
        self._entries += 1
        if self._entries == 2:
            self._offer()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_frame_that_a_batch_cuts_between_the_own_threads_look_and_its_write_stays_whole(peer: Peer) -> None:
    # given a batch that is cut after the own thread saw that nothing is unsent, and before it writes
    peer.wire.lock = OfferedBetween(peer.wire.lock, lambda: cut(peer.wire))  # type: ignore[assignment]
    taken: list[tuple[int, bytes]] = []
    reader = threading.Thread(target=lambda: taken.extend(peer.take_frame() for _ in range(2)))

    def read_from_now_on() -> bool:
        if reader.ident is None:
            reader.start()
        return True

    # when it writes, to a peer that reads nothing before
    assert peer.wire.write(NEXT, read_from_now_on)
    reader.join()
    # then both frames are whole
    assert [(opcode, len(body)) for opcode, body in taken] == [(1, 8_000_000), (1, 4)]


def test_a_goodbye_finishes_the_cut_frame_first(peer: Peer) -> None:
    frame = frames.text(b"begun")
    with peer.wire.lock:
        peer.wire.offer(frame[:3])
        peer.wire.keep(frame[3:])
    assert peer.wire.say_goodbye(frames.close(1001, "bye"))
    assert [peer.take_frame(), peer.take_frame()] == [(1, b"begun"), (8, b"\x03\xe9bye")]


def test_nothing_follows_a_goodbye(peer: Peer) -> None:
    assert peer.wire.say_goodbye(frames.close(1012, "retry_ms=1"))
    assert offered(peer.wire, NEXT) == 0
    peer.wire.write(NEXT, always)
    peer.wire.hang_up(0, never)
    assert peer.take_frame() == (8, struct.pack("!H", 1012) + b"retry_ms=1")
    assert peer.socket.recv(1) == b""


def test_a_goodbye_that_does_not_fit_is_left_out(peer: Peer) -> None:
    cut(peer.wire)
    assert not peer.wire.say_goodbye(frames.close(1012, ""))


def test_a_goodbye_to_one_who_is_gone_is_no_error() -> None:
    with Peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        peer.wire.say_goodbye(frames.close(1012, ""))
        peer.wire.hang_up(0, never)


def test_a_peer_that_takes_no_byte_for_a_while_has_stalled(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(peer.wire)
    monkeypatch.setattr(wire, "STALL_SECS", 0.05)
    with pytest.raises(Stalled):
        peer.wire.drain(always)


def test_a_peer_that_reads_slowly_has_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a peer that takes longer for the whole than one may take for a byte
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    with Peer(SMALL_BUFFER_BYTES) as peer:
        cut(peer.wire, frames.text(b"x" * 3_000_000))
        received = bytearray()

        def read_slowly() -> bool:
            received.extend(peer.socket.recv(1 << 20))
            now[0] += wire.STALL_SECS / 4
            return True

        # when it is waited for, then it gets all
        assert peer.wire.drain(read_slowly)
        assert now[0] > 1000 + wire.STALL_SECS, "it was too fast to show anything"
        while received.count(b"x") < 3_000_000:
            received.extend(peer.socket.recv(1 << 20))


def test_the_own_thread_stops_waiting_when_it_is_not_wanted_any_more(peer: Peer) -> None:
    cut(peer.wire)
    assert not peer.wire.drain(lambda: False)
    assert not peer.wire.write(NEXT, lambda: False)


def test_a_connection_that_is_gone_raises_at_the_next_write() -> None:
    with Peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        with pytest.raises(OSError):  # noqa: PT011 - whichever the kernel says
            wait_until(lambda: peer.wire.write(NEXT, always) and False, "an error")


def test_hanging_up_waits_for_the_peer_to_end_whatever_it_still_says() -> None:
    with Peer() as peer:
        peer.socket.sendall(b"x" * 10_000)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.wire.hang_up(10, never)  # returns at once
        assert peer.socket.recv(1) == b""


def test_hanging_up_waits_no_longer_than_for_a_farewell() -> None:
    with Peer() as peer:
        peer.socket.sendall(b"fare")
        peer.socket.sendall(b"well")
        said = bytearray()
        peer.wire.hang_up(10, lambda data: said.extend(data) or said == b"farewell")  # type: ignore[func-returns-value]
        assert said == b"farewell"
        assert peer.socket.recv(1) == b""


def test_hanging_up_ends_a_peer_that_does_not() -> None:
    with Peer() as peer:
        peer.wire.hang_up(0.01, never)
        assert peer.socket.recv(1) == b""


# --- any mixture of writers -------------------------------------------------------------------------------------------

_batches = st.tuples(st.just("batch"), st.lists(st.integers(0, 90_000), min_size=1, max_size=5))
_reads = st.tuples(st.just("read"), st.integers(1, 400_000))
_writes = st.tuples(st.just("write"), st.integers(0, 300_000))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.one_of(_batches, _reads, _writes), max_size=40))
def test_the_peer_reads_whole_frames_in_order_whatever_is_cut_where(steps: list[tuple[str, int | list[int]]]) -> None:
    with Peer(SMALL_BUFFER_BYTES) as peer:
        stage = _Mixture(peer)
        for kind, argument in steps:
            getattr(stage, kind)(argument)
        while not (stage.read(1 << 20), peer.wire.drain(lambda: stage.read(1 << 20)))[1]:
            pass
        peer.wire.hang_up(0, never)
        received = list(stage.frames_to_the_end())
    assert received == stage.expected


class _Mixture:
    """Plays relay and own thread in turn, and knows which frames must arrive."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.expected: list[tuple[int, bytes]] = []
        self._count = 0

    def _frame(self, size: int) -> bytes:
        self._count += 1
        return b"%d:" % self._count + b"x" * size

    def batch(self, sizes: list[int]) -> None:
        """As the relay does: offer all in one, keep the end of the frame that was cut, drop those behind it."""
        bodies = [self._frame(size) for size in sizes]
        with self.peer.wire.lock:
            left = self.peer.wire.offer(b"".join(map(frames.text, bodies)))
            for body in bodies:
                frame = frames.text(body)
                if left <= 0:
                    break
                self.expected.append((1, body))
                if left < len(frame):
                    self.peer.wire.keep(frame[left:])
                left -= len(frame)

    def write(self, size: int) -> None:
        """As the own thread does, while the peer reads on."""
        body = self._frame(size)
        assert self.peer.wire.write(frames.text(body), lambda: self.read(1 << 20))
        self.expected.append((1, body))

    def read(self, size: int) -> bool:
        self.peer.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.peer._buffer += self.peer.socket.recv(size)
        self.peer.socket.settimeout(10)
        return True

    def frames_to_the_end(self) -> Iterator[tuple[int, bytes]]:
        while chunk := self.peer.socket.recv(1 << 20):
            self.peer._buffer += chunk
        while self.peer._buffer:
            yield self.peer.take_frame()
