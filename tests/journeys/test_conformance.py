"""The feed has one cursor, verdict and sequence by every transport.

That holds at the origin and at an edge.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.database_file import epoch_of, head_of, write_events
from tests.engines import Edge, cluster
from tests.server import Server, writer
from tests.transports import TRANSPORTS, Follower, Stream, Tail, Transport, Verdict
from tests.waits import PATIENCE_SECS, wait_until

# Fast enough for a test, but still paced.
EVENT_RATE = 100
MAX_EVENT_BYTES = 4096
FOREIGN = "0" * 32
_numbers = itertools.count(1)


# `outfeed tail` is a process for each case, and has no transport of its own.
AT_AN_EDGE = tuple(way for way in TRANSPORTS if way is not Tail)


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[Server]:
    """Run a server of that *kind*; its database is the origin's."""
    settings = {"event_rate": EVENT_RATE, "heartbeat_secs": 0.3, "max_event_bytes": MAX_EVENT_BYTES}
    if kind == "origin":
        with Server(folder, **settings) as server:
            yield server
        return
    with cluster(folder, 1, **settings) as (_, _, edges):
        yield edges[0]


@contextlib.contextmanager
def filled(kind: str, folder: Path) -> Iterator[Server]:
    """Run a server of that *kind* with 12 events."""
    with serving(kind, folder) as server:
        write_events(server.database, 12, each_alone=True)
        settle(server)
        yield server


@pytest.fixture(scope="module")
def standing_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with filled("edge", tmp_path_factory.mktemp("edge")) as server:
        assert isinstance(server, Edge)
        yield server


@pytest.fixture(scope="module", params=["origin", "edge"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the cases that only append events to its history."""
    if request.param == "edge":
        yield request.getfixturevalue("standing_edge")
        return
    with filled("origin", tmp_path_factory.mktemp("origin")) as server:
        yield server


@pytest.fixture(params=["origin", "edge"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server for a case that prunes, stops or kills it."""
    with serving(request.param, tmp_path) as server:
        yield server


def settle(server: Server) -> None:
    """Wait until *server* holds what the outbox does."""
    if isinstance(server, Edge):
        with contextlib.closing(sqlite3.connect(server.database)) as raw:
            (first,) = raw.execute("SELECT min(seq) FROM outbox").fetchone()
        head = head_of(server.database)
        wait_until(lambda: server.store.position >= head and server.store.seqs()[0] >= first, "edge is current")


def ways_of(server: Server) -> tuple[type[Transport], ...]:
    return AT_AN_EDGE if isinstance(server, Edge) else TRANSPORTS


def rows(server: Server, after: int = 0, like: str = "%") -> list[tuple[int, str]]:
    """Return (seq, id) of the outbox rows after a seq, with plain sqlite3."""
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        return raw.execute(
            "SELECT o.seq, o.event_id FROM outbox o JOIN event_log e ON e.id = o.event_id"
            " WHERE o.seq > ? AND e.event_type LIKE ? ORDER BY o.seq",
            (after, like),
        ).fetchall()


@contextlib.contextmanager
def by_every_transport(server: Server, **query: Any) -> Iterator[list[Transport]]:
    """Connect by every transport, one after the other, with the same query."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(way(server, **query)) for way in ways_of(server)]


def verdicts(transports: list[Transport]) -> dict[str, Verdict]:
    return {type(way).__name__: way.verdict for way in transports}


def sequences(transports: list[Transport], until: int) -> dict[str, list[tuple[int, str]]]:
    return {type(way).__name__: way.follow(until) for way in transports}


class ByAll:
    """Equals what every way has said, if each has said *value*."""

    def __init__(self, value: Any) -> None:
        self.value = value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"by all {self.value!r}"

    def __eq__(self, found: object) -> bool:
        is_complete = isinstance(found, dict) and set(found) >= {way.__name__ for way in AT_AN_EDGE}
        return is_complete and all(each == self.value for each in found.values())  # type: ignore[attr-defined]


def by_all(value: Any) -> ByAll:
    return ByAll(value)


def test_a_new_client_is_live(shared: Server) -> None:
    settle(shared)
    before = head_of(shared.database)
    with by_every_transport(shared) as transports:
        assert verdicts(transports) == by_all(Verdict("live", before))
        write_events(shared.database, 15, each_alone=True)
        assert sequences(transports, head_of(shared.database)) == by_all(rows(shared, after=before))


@pytest.mark.parametrize("behind", [0, 10])
def test_a_client_behind_is_resumed(shared: Server, behind: int) -> None:
    settle(shared)
    after = head_of(shared.database) - behind
    with by_every_transport(shared, after=after, epoch=epoch_of(shared.database)) as transports:
        assert verdicts(transports) == by_all(Verdict("resumed", after))
        write_events(shared.database, 5, each_alone=True)
        assert sequences(transports, head_of(shared.database)) == by_all(rows(shared, after=after))


def test_a_client_can_replay_all_kept_events(shared: Server) -> None:
    with by_every_transport(shared, after=0) as transports:
        assert verdicts(transports) == by_all(Verdict("resumed", 0))
        write_events(shared.database, 5, each_alone=True)
        assert sequences(transports, head_of(shared.database)) == by_all(rows(shared))


@pytest.mark.parametrize("cursor", ["of another epoch", "from the future"])
def test_a_foreign_or_future_cursor_is_reset(shared: Server, cursor: str) -> None:
    if isinstance(shared, Edge) and cursor == "from the future":
        return  # an edge waits for that: tests/journeys/test_edges.py
    settle(shared)
    before = head_of(shared.database)
    query = (
        {"after": 5, "epoch": FOREIGN}
        if cursor == "of another epoch"
        else {"after": before + 1000, "epoch": epoch_of(shared.database)}
    )
    with by_every_transport(shared, **query) as transports:
        assert verdicts(transports) == by_all(Verdict("reset", before))
        write_events(shared.database, 5, each_alone=True)
        assert sequences(transports, head_of(shared.database)) == by_all(rows(shared, after=before))


def test_a_filter_without_matches_moves_the_cursor(shared: Server) -> None:
    settle(shared)
    before = head_of(shared.database)
    with by_every_transport(shared, after=before - 3, epoch=epoch_of(shared.database), types="none.*") as transports:
        assert verdicts(transports) == by_all(Verdict("resumed", before - 3))
        write_events(shared.database, 20, each_alone=True)
        assert sequences(transports, head_of(shared.database)) == by_all([])


def test_a_filter_by_type_gives_the_same_events(shared: Server) -> None:
    settle(shared)
    before = head_of(shared.database)
    with by_every_transport(
        shared, after=before, epoch=epoch_of(shared.database), types="agent.*,system.error"
    ) as transports:
        for event_type in ("agent.joined", "task.created", "system.error", "system.info", "agent.left") * 3:
            write_events(shared.database, event_type=event_type)
        expected = [*rows(shared, before, "agent.%"), *rows(shared, before, "system.error")]
        assert sequences(transports, head_of(shared.database)) == by_all(sorted(expected))


def test_a_pruned_cursor_gets_a_gap(own: Server) -> None:
    write_events(own.database, 12, each_alone=True)
    settle(own)
    with contextlib.closing(sqlite3.connect(own.database)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq <= 7")
    settle(own)
    for after in (0, 3):
        with by_every_transport(own, after=after, epoch=epoch_of(own.database)) as transports:
            assert verdicts(transports) == by_all(Verdict("gap", 7, (after + 1, 7)))
            write_events(own.database, 5, each_alone=True)
            assert sequences(transports, head_of(own.database)) == by_all(rows(own, after=7))
    if isinstance(own, Edge):
        settle(own)
        with beside(own, {"after": 0, "epoch": epoch_of(own.database)}) as recordings:
            assert_same_bytes(recordings, head_of(own.database))


def stop_and_start(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE_SECS) == 0
    server.start()


def kill_and_start(server: Server) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("bring_down", [stop_and_start, kill_and_start])
def test_followers_miss_nothing_across_a_restart(own: Server, bring_down: Callable[[Server], None]) -> None:
    readers = {way.__name__: Follower(own, way) for way in ways_of(own)}
    goal: list[int] = []
    stop = threading.Event()

    def is_done(reader: Follower) -> bool:
        return stop.is_set() or (bool(goal) and reader.cursor >= goal[0])

    def all_have(count: int) -> Callable[[], bool]:
        return lambda: all(len(reader.events) >= count for reader in readers.values())

    assert own.token
    threads = [threading.Thread(target=reader.run, args=(is_done,)) for reader in readers.values()]
    try:
        with writer(own.database, rate=40):
            for thread in threads:
                thread.start()
            wait_until(all_have(20), "all transports follow")
            bring_down(own)
            furthest = max(len(reader.events) for reader in readers.values())
            wait_until(
                all_have(furthest + 10), "all transports follow again", timeout=60
            )  # a client's pause may be long
        goal.append(head_of(own.database))
        wait_until(lambda: not any(thread.is_alive() for thread in threads), f"all at {goal[0]}", timeout=60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {name: reader.events for name, reader in readers.items()} == by_all(rows(own))
    assert {name: set(reader.verdicts) for name, reader in readers.items()} == by_all({"resumed"})


# --- the bytes of an edge and of its origin ---------------------------------------------------------------------------


class Recording(ABC):
    """The bytes of one answer of the feed, without what differs at an edge.

    That is `origin` in a verdict and `origin_age` in a heartbeat. Heartbeats are omitted, as they depend on the time.
    """

    def __init__(self, server: Server, query: dict[str, Any]) -> None:
        self.server = server
        self.query = query
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Connect."""

    @abstractmethod
    def collect(self, until: int) -> list[str]:
        """Return what was received, up to the seq *until*."""

    def close(self) -> None:  # noqa: B027 - a request is complete
        """Disconnect."""


class Frames(Recording):
    """Frames of a WebSocket, an event a frame."""

    options: ClassVar[dict[str, Any]] = {"rate": 0}

    def begin(self) -> None:
        self.client = self.server.connect(open_timeout=5)
        self.client.send(action="subscribe", channel="events", **self.options, **self.query)

    def collect(self, until: int) -> list[str]:
        found: list[str] = []
        while self.client.cursor < until:
            text = str(self.client.socket.recv(timeout=PATIENCE_SECS))
            frame = json.loads(text)
            self.client.check.take(frame)
            if frame["type"] != "heartbeat":
                found.append(text)
        return found

    def close(self) -> None:
        self.client.__exit__()


class BatchFrames(Frames):
    """Frames of a WebSocket, several events a frame."""

    options: ClassVar[dict[str, Any]] = {"rate": 0, "batch": True}


class StreamBytes(Recording):
    """The head and the messages of server-sent events."""

    def begin(self) -> None:
        self.stream = Stream(self.server, **self.query)

    def collect(self, until: int) -> list[str]:
        self.stream.follow(until)
        body = re.sub(rb": heartbeat\nid: [^\n]*\n(?:data: [^\n]*\n)?\n", b"", self.stream.raw)
        return [self.stream.head.decode(), *body.decode().split("\n\n")]

    def close(self) -> None:
        self.stream.close()


class Body(Recording):
    """The headers and the body of one request."""

    options: ClassVar[dict[str, Any]] = {}

    def begin(self) -> None:
        with self.server.http() as http:
            self.answer = http.get("/api/feed", params=self.query | self.options)

    def collect(self, until: int) -> list[str]:
        headers = [f"{name}: {value}" for name, value in self.answer.headers.items()]
        own = ("date", "x-request-id", "etag", "content-length")  # the last two follow from `origin`
        return [*(each for each in headers if not each.startswith(own)), self.answer.text]


class WaitingBody(Body):
    """The same of a long poll."""

    options: ClassVar[dict[str, Any]] = {"wait": 0.1}


RECORDINGS: tuple[type[Recording], ...] = (Frames, BatchFrames, StreamBytes, Body, WaitingBody)


@contextlib.contextmanager
def beside(edge: Edge, query: dict[str, Any]) -> Iterator[list[tuple[Recording, Recording]]]:
    """Connect by every transport to the edge's origin and to the edge."""
    with contextlib.ExitStack() as stack:
        found = [(kind(edge.origin, query), kind(edge, query)) for kind in RECORDINGS]
        for pair in found:
            for each in pair:
                stack.callback(each.close)
        yield found


def assert_same_bytes(recordings: list[tuple[Recording, Recording]], until: int) -> None:
    for at_origin, at_edge in recordings:
        expected, found = at_origin.collect(until), at_edge.collect(until)
        assert expected
        assert [re.sub(r',"origin":"[^"]*"', "", text) for text in found] == expected


ODD_DATA = [
    "not JSON", '{"password": "planted", "n": 1}', json.dumps("x" * 2 * MAX_EVENT_BYTES), '{"n": 12345678901234567890}',
    json.dumps({"text": "é\u2028🟢"}), "[1,2.50,1e3]", None, '{"a":1,"a":2}',
]  # fmt: skip


@pytest.mark.parametrize("verdict", ["resumed", "reset"])
def test_an_edge_sends_the_bytes_of_its_origin(standing_edge: Edge, verdict: str) -> None:
    before = head_of(standing_edge.database)
    write_events(standing_edge.database, len(ODD_DATA), data=ODD_DATA, event_type="odd.data")
    settle(standing_edge)
    head = head_of(standing_edge.database)
    epoch = epoch_of(standing_edge.database) if verdict == "resumed" else FOREIGN
    with beside(standing_edge, {"after": before, "epoch": epoch}) as recordings:
        assert_same_bytes(recordings, head)
        write_events(standing_edge.database, len(ODD_DATA), data=ODD_DATA, event_type="odd.data")
        live = [pair for pair in recordings if not isinstance(pair[0], Body | BatchFrames)]
        assert_same_bytes(live, head_of(standing_edge.database))


def test_a_heartbeat_of_an_edge_differs_by_the_age_of_its_origin_only(standing_edge: Edge) -> None:
    found = []
    for server in (standing_edge.origin, standing_edge):
        with server.connect() as client:
            client.subscribe()
            found.append(next(frame for frame in iter(client.receive, None) if frame["type"] == "heartbeat"))
    assert 0 <= found[1]["payload"].pop("origin_age") < 5
    assert found[0] == found[1]
