"""Socket writer: a cut frame is completed before the next one.

Only the client's own thread waits.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.errors import ClientStalled
from outfeed.feed import frames, socket_writer
from outfeed.feed.socket_writer import SocketWriter
from tests.feed.socket_harness import Peer
from tests.waits import wait_until

# With smaller frames the kernel waits a fifth of a second for each window (RFC 1122 section 4.2.3.3).
SMALL_BUFFER_BYTES = 65_536
# More than a loopback connection buffers unread.
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


def cut(writer: SocketWriter, frame: bytes = LARGE) -> None:
    """Try to send one frame that is too large, and stash its remainder.

    A subscriber does the same.
    """
    with writer.lock:
        sent = writer.try_send(frame)
        writer.stash_remainder(frame[sent:])
    assert 0 < sent < len(frame)


@contextlib.contextmanager
def read_frames(peer: Peer, count: int) -> Iterator[list[tuple[int, bytes]]]:
    """Read *count* frames on a thread during the block.

    All of them have arrived at the end of the block.
    """
    taken: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: taken.extend(peer.take_frame() for _ in range(count)))
    thread.start()
    yield taken
    thread.join()


def test_try_send_sends_what_the_socket_accepts_and_never_waits(peer: Peer) -> None:
    with peer.writer.lock:
        sent = peer.writer.try_send(LARGE)
        assert 0 < sent < len(LARGE)
        assert peer.writer.try_send(LARGE[sent:]) < len(LARGE) - sent


def test_nothing_is_sent_before_the_remainder_of_an_earlier_frame(peer: Peer) -> None:
    cut(peer.writer)
    with peer.writer.lock:
        assert peer.writer.try_send(NEXT) == 0


WRITERS: dict[str, Callable[[SocketWriter], object]] = {
    "the own thread": lambda writer: writer.write(NEXT, always),
    "a batch": lambda writer: sent_of(writer, NEXT),
}


def sent_of(writer: SocketWriter, frame: bytes) -> int:
    with writer.lock:
        return writer.try_send(frame)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_the_next_writer_completes_a_cut_frame_first(peer: Peer, write: Callable[[SocketWriter], object]) -> None:
    # given a frame of which only the beginning was sent
    frame = frames.text(b"x" * 20_000)
    with peer.writer.lock:
        assert peer.writer.try_send(frame[:10]) == 10
        peer.writer.stash_remainder(frame[10:])
    # when any thread writes
    with read_frames(peer, 2) as taken:
        write(peer.writer)
    # then both frames are whole
    assert taken == [(1, b"x" * 20_000), (1, b"next")]


class SentBetween:
    """A lock that another sender takes once, before its second owner."""

    def __init__(self, lock: threading.Lock, send: Callable[[], None]) -> None:
        self._lock = lock
        self._send = send
        self._entries = 0

    def __enter__(self) -> None:
        self._entries += 1
        if self._entries == 2:
            self._send()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_frame_that_is_cut_between_the_own_threads_check_and_its_write_stays_whole(peer: Peer) -> None:
    # given a batch that is cut after the own thread found no remainder, and before that thread writes
    peer.writer.lock = SentBetween(peer.writer.lock, lambda: cut(peer.writer))  # type: ignore[assignment]
    taken: list[tuple[int, bytes]] = []
    reader = threading.Thread(target=lambda: taken.extend(peer.take_frame() for _ in range(2)))

    def read_from_now_on() -> bool:
        if reader.ident is None:
            reader.start()
        return True

    # when that thread writes, to a peer that reads nothing before
    assert peer.writer.write(NEXT, read_from_now_on)
    reader.join()
    # then both frames are whole
    assert [(opcode, len(body)) for opcode, body in taken] == [(1, 8_000_000), (1, 4)]


def test_a_close_frame_follows_the_remainder_of_a_cut_frame(peer: Peer) -> None:
    frame = frames.text(b"begun")
    with peer.writer.lock:
        peer.writer.try_send(frame[:3])
        peer.writer.stash_remainder(frame[3:])
    peer.writer.send_close(frames.close(1001, "bye"))
    assert [peer.take_frame(), peer.take_frame()] == [(1, b"begun"), (8, b"\x03\xe9bye")]


def test_nothing_follows_a_close_frame(peer: Peer) -> None:
    peer.writer.send_close(frames.close(1012, "retry_ms=1"))
    assert sent_of(peer.writer, NEXT) == 0
    peer.writer.write(NEXT, always)
    peer.writer.close(0, never)
    assert peer.take_frame() == (8, struct.pack("!H", 1012) + b"retry_ms=1")
    assert peer.socket.recv(1) == b""


def test_a_close_frame_that_the_socket_does_not_accept_is_dropped(peer: Peer) -> None:
    cut(peer.writer)
    peer.writer.send_close(frames.close(1012, ""))
    peer.writer.close(0, never)
    received = b""
    while chunk := peer.socket.recv(1 << 20):
        received += chunk
    assert received == LARGE[: len(received)]


def test_a_close_frame_to_a_disconnected_client_raises_nothing() -> None:
    with Peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        peer.writer.send_close(frames.close(1012, ""))
        peer.writer.close(0, never)


def test_a_peer_that_accepts_no_byte_within_the_limit_has_stalled(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(peer.writer)
    monkeypatch.setattr(socket_writer, "STALL_SECS", 0.05)
    with pytest.raises(ClientStalled):
        peer.writer.flush(always)


def test_a_peer_that_reads_slowly_has_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a peer that takes longer for all bytes than the limit for one byte
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    with Peer(SMALL_BUFFER_BYTES) as peer:
        cut(peer.writer, frames.text(b"x" * 3_000_000))
        received = bytearray()

        def read_slowly() -> bool:
            received.extend(peer.socket.recv(1 << 20))
            now[0] += socket_writer.STALL_SECS / 4
            return True

        # when the writer waits for it, then the peer gets everything
        assert peer.writer.flush(read_slowly)
        assert now[0] > 1000 + socket_writer.STALL_SECS, "it was too fast to show anything"
        while received.count(b"x") < 3_000_000:
            received.extend(peer.socket.recv(1 << 20))


def test_the_own_thread_stops_waiting_when_it_is_no_longer_wanted(peer: Peer) -> None:
    cut(peer.writer)
    assert not peer.writer.flush(lambda: False)
    assert not peer.writer.write(NEXT, lambda: False)


def test_the_next_write_to_a_lost_connection_raises() -> None:
    with Peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        with pytest.raises(OSError):  # noqa: PT011 - the kernel chooses the error
            wait_until(lambda: peer.writer.write(NEXT, always) and False, "an error")


def test_close_waits_for_the_client_to_end_the_connection_and_ignores_its_data() -> None:
    with Peer() as peer:
        peer.socket.sendall(b"x" * 10_000)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.writer.close(10, never)  # returns at once
        assert peer.socket.recv(1) == b""


def test_close_returns_after_the_clients_close_frame() -> None:
    with Peer() as peer:
        peer.socket.sendall(b"clo")
        peer.socket.sendall(b"se")
        received = bytearray()
        peer.writer.close(10, lambda data: received.extend(data) or received == b"close")  # type: ignore[func-returns-value]
        assert received == b"close"
        assert peer.socket.recv(1) == b""


def test_close_ends_the_connection_if_the_client_does_not() -> None:
    with Peer() as peer:
        peer.writer.close(0.01, never)
        assert peer.socket.recv(1) == b""


# --- any mixture of writers -------------------------------------------------------------------------------------------

_batches = st.tuples(st.just("batch"), st.lists(st.integers(0, 90_000), min_size=1, max_size=5))
_reads = st.tuples(st.just("read"), st.integers(1, 400_000))
_writes = st.tuples(st.just("write"), st.integers(0, 300_000))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.one_of(_batches, _reads, _writes), max_size=40))
def test_the_peer_reads_whole_frames_in_order_after_any_cut(steps: list[tuple[str, int | list[int]]]) -> None:
    with Peer(SMALL_BUFFER_BYTES) as peer:
        simulation = _Mixture(peer)
        for kind, argument in steps:
            getattr(simulation, kind)(argument)
        while not (simulation.read(1 << 20), peer.writer.flush(lambda: simulation.read(1 << 20)))[1]:
            pass
        peer.writer.close(0, never)
        received = list(simulation.frames_to_the_end())
    assert received == simulation.expected


class _Mixture:
    """Plays relay and own thread in turn, and knows the expected frames."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.expected: list[tuple[int, bytes]] = []
        self._count = 0

    def _frame(self, size: int) -> bytes:
        self._count += 1
        return b"%d:" % self._count + b"x" * size

    def batch(self, sizes: list[int]) -> None:
        """Write as the relay does.

        Send all frames at once, stash the remainder of the cut frame, and drop those after it.
        """
        bodies = [self._frame(size) for size in sizes]
        with self.peer.writer.lock:
            left = self.peer.writer.try_send(b"".join(map(frames.text, bodies)))
            for body in bodies:
                frame = frames.text(body)
                if left <= 0:
                    break
                self.expected.append((1, body))
                if left < len(frame):
                    self.peer.writer.stash_remainder(frame[left:])
                left -= len(frame)

    def write(self, size: int) -> None:
        """Write as the own thread does, while the peer reads."""
        body = self._frame(size)
        assert self.peer.writer.write(frames.text(body), lambda: self.read(1 << 20))
        self.expected.append((1, body))

    def read(self, size: int) -> bool:
        self.peer.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.peer.frames.feed(self.peer.socket.recv(size))
        self.peer.socket.settimeout(10)
        return True

    def frames_to_the_end(self) -> Iterator[tuple[int, bytes]]:
        while chunk := self.peer.socket.recv(1 << 20):
            self.peer.frames.feed(chunk)
        while self.peer.frames.unread_bytes:
            yield self.peer.take_frame()


def test_a_flush_waits_for_room_also_if_a_whole_frame_filled_the_socket() -> None:
    with Peer(SMALL_BUFFER_BYTES) as peer:
        with peer.writer.lock:
            for size in (SMALL_BUFFER_BYTES, 1):
                while peer.writer.try_send(b"x" * size):
                    pass
        assert not peer.writer.flush(lambda: False), "the client's thread would try the next frame again and again"
