"""Pace, measured at the client: granted rate, no loss, no needless wait.

tests/feed/test_pace.py and test_cohorts.py check the limit to the millisecond, on a clock that they move. Here frames
also travel through a busy machine, which may bring two of them closer together: JITTER_SECS allows for that. A frame
that is found after the reader was delayed may have come at any time since its last read, so it counts as in time.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from tests.clients import FeedClient, RawClient
from tests.database_file import head_of, write_events
from tests.server import Server, writer
from tests.transports import Batch, Singles, Stream, Transport, Verdict
from tests.waits import PATIENCE_SECS, shortest, wait_until

JITTER_SECS = 0.15
RATE = 10  # the default


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("pace"), heartbeat_secs=0.5) as server:
        yield server


class BareSingles(Singles):
    """The same transport on a bare socket.

    A library's thread would delay frames that it has not parsed yet.
    """

    def begin(self) -> Verdict:
        self._raw = RawClient(self.server)
        self._raw.subscribe(**self.fields | self.query)
        payload = json.loads(self._raw.take_frame()[1])["payload"]
        self.granted = payload["rate"]
        self.begin_at(payload["after"], payload["epoch"])
        return Verdict.of(payload, payload["after"])

    def pump(self, timeout: float = 0.2) -> None:
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0 and self._raw.has_more(left):
            self.take(json.loads(self._raw.take_frame()[1]))

    def close(self) -> None:
        self._raw.socket.close()


class BareBatch(BareSingles):
    fields = Batch.fields


class Watched:
    """A transport, its reading thread, and the times of its frames.

    It polls every *glance* seconds, which must be less than the time between two frames.
    """

    def __init__(self, way: Transport, glance: float = 0.02) -> None:
        self.way = way
        self.times: list[tuple[float, float]] = []  # of each frame: the last read before it, and the read that found it
        self._glance = glance
        self._nothing_at = time.monotonic()
        self.arrivals: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        take, keep = way.take, way.keep  # type: ignore[attr-defined]

        def take_and_record(frame: Any) -> None:
            before = len(way.events)
            take(frame)
            if len(way.events) > before:
                found = (self._nothing_at, time.monotonic())
                self.times += [found] * (1 if isinstance(frame, dict) else len(frame))

        def keep_and_record(seq: int, event: dict[str, Any]) -> None:
            keep(seq, event)
            self.arrivals[seq] = time.monotonic()

        way.take, way.keep = take_and_record, keep_and_record  # type: ignore[attr-defined, method-assign]

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.way.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            frames, began = len(self.times), time.monotonic()
            self.way.pump(self._glance)
            if len(self.times) == frames:
                self._nothing_at = began

    def busiest(self) -> int:
        """Return the most frames that certainly came within one second."""
        begin, most = 0, 0
        for end, (_, at) in enumerate(self.times):
            while begin <= end and self.times[begin][0] <= at - 1 + JITTER_SECS:
                begin += 1
            most = max(most, end - begin + 1)
        return most


# Events a second, their number, and a rate at which single-event clients catch up within the test.
@pytest.mark.parametrize(("load", "count", "rate"), [(1, 3, 10), (50, 75, 20), (2000, 1500, 400)])
def test_no_second_has_more_frames_than_granted_and_no_event_is_lost(
    shared: Server, load: int, count: int, rate: int
) -> None:
    write_events(shared.database)
    before = head_of(shared.database)
    with contextlib.ExitStack() as stack:

        def watch(way: type[Transport], **query: Any) -> Watched:
            return stack.enter_context(Watched(way(shared, **query), glance=0.2 / query["rate"]))

        singles, stream = watch(BareSingles, rate=rate), watch(Stream, rate=rate)
        batch = watch(BareBatch, rate=RATE)
        lags, behind = [], []
        with writer(shared.database, rate=load, source=f"load-{load}", bulk=20 if load > 1000 else 1):
            while (now := head_of(shared.database)) < before + count:
                began = time.monotonic()
                wait_until(lambda now=now: batch.way.cursor >= now, "the batched client is at the head")
                lags.append(time.monotonic() - began)
                behind.append(now - singles.way.cursor)
            # all may have been written while this thread was delayed
            behind.append(head_of(shared.database) - singles.way.cursor)
        last = head_of(shared.database)
        if load > rate:
            assert max(behind) > count / 4, "single events must lag at this load"
        for each in (batch, singles, stream):
            patience = PATIENCE_SECS + 2 * (last - each.way.cursor) / rate
            wait_until(lambda each=each: each.way.cursor >= last, "caught up", timeout=patience)
    for each, most in ((singles, rate), (stream, rate), (batch, RATE)):
        assert [seq for seq, _ in each.way.events] == list(range(before + 1, last + 1))
        assert each.busiest() <= most, type(each.way)
    assert median(lags) < 0.4, lags


def quiet_waits(server: Server, arrived: Callable[[int], float | None]) -> list[float]:
    """Return the seconds from a commit to its arrival, after quiet times."""
    waits = []
    for _ in range(5):
        quiet_since = time.monotonic()
        wait_until(lambda since=quiet_since: time.monotonic() > since + 0.55, "half a second without an event")
        began = time.monotonic()
        write_events(server.database)
        seq = head_of(server.database)
        waits.append(wait_until(lambda seq=seq: arrived(seq), "the event") - began)
    return waits


@pytest.mark.parametrize("way", [Singles, Batch, Stream])
def test_the_first_event_after_a_quiet_time_is_sent_at_once(shared: Server, way: type[Transport]) -> None:
    write_events(shared.database)
    with Watched(way(shared, rate=2)) as watched:
        waits = quiet_waits(shared, watched.arrivals.get)
    # At two frames a second the next interval would end a quarter of a second later, on average.
    assert min(waits) < 0.05, waits


@pytest.fixture
def session(shared: Server) -> str:
    """The cookie of a signed-in browser."""
    with httpx.Client(verify=False) as browser:
        assert shared.sign_in_by_link(browser).status_code == 303
        return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


def test_a_browser_is_limited_to_the_rate_and_a_token_is_not(shared: Server, session: str) -> None:
    class ByCookie(FeedClient):
        """A socket with the cookie in place of the token."""

        def __init__(self) -> None:
            super().__init__(shared.url, "", headers={"Cookie": session})

    class CookieStream(Stream):
        headers = {"Cookie": session, "Authorization": ""}  # noqa: RUF012

    write_events(shared.database)
    with ByCookie() as socket, CookieStream(shared, rate=0) as stream, Singles(shared, rate=0) as program:
        for wanted, granted in ((0, RATE), (1000, RATE), (None, RATE), (4, 4), (0, RATE)):
            assert socket.subscribe(rate=wanted)["rate"] == granted
        assert (stream.granted, program.granted) == (RATE, 0)

        def secs_for_a_program() -> float:
            began = time.monotonic()
            write_events(shared.database, 25)
            program.follow(head_of(shared.database))
            return time.monotonic() - began

        began = time.monotonic()
        assert shortest(secs_for_a_program, 24 / RATE) < 24 / RATE
        last = head_of(shared.database)
        socket.follow(last)
        stream.follow(last)
        assert time.monotonic() - began > 24 / RATE


def secs_until(server: Server, arrive: Callable[[int], Any]) -> float:
    """Return how long *arrive* takes for an event that was just written.

    It is called with the event's seq.
    """
    began = time.monotonic()
    write_events(server.database)
    arrive(head_of(server.database))
    return time.monotonic() - began


def test_paced_clients_delay_no_other_client_and_need_no_scheduler(tmp_path: Path) -> None:
    with Server(tmp_path, poll_interval=60) as server, Watched(Batch(server, rate=0.5)) as slow:
        # given a viewer whose next frame is due in two seconds
        write_events(server.database)
        wait_until(lambda: slow.way.cursor == 1, "the first event is sent at once")
        write_events(server.database)
        # when another viewer comes, then it gets its events at once
        with FeedClient(server.url, server.token) as fast:
            assert fast.subscribe()["after"] == 2
            assert shortest(lambda: secs_until(server, fast.follow), 0.5) < 0.5
        wait_until(lambda: count_of_live(server) == 1, "only the slow client is connected")
        # and a poll is answered as soon as there is an event
        with server.http() as http, ThreadPoolExecutor(1) as pool:

            def take_answer(seq: int) -> None:
                page = asked.result(PATIENCE_SECS).json()
                assert [event["seq"] for event in page["events"]] == [seq]

            def secs_of_a_long_poll() -> float:
                nonlocal asked
                query = {"after": head_of(server.database), "epoch": fast.epoch, "wait": 60}
                asked = pool.submit(http.get, "/api/feed", params=query, timeout=90)
                wait_until(lambda: count_of_live(server) == 2, "the poll waits")
                return secs_until(server, take_answer)

            asked: Future[httpx.Response]
            assert shortest(secs_of_a_long_poll, 0.5) < 0.5
        # and the slow viewer misses no event
        wait_until(lambda: slow.way.cursor == head_of(server.database), "the next frame")
        assert [seq for seq, _ in slow.way.events] == list(range(1, head_of(server.database) + 1))


def count_of_live(server: Server) -> int:
    """Return the number of live clients and waiting polls."""
    with server.http() as http:
        samples = http.get("/metrics").text.splitlines()
    return sum(int(float(each.split()[-1])) for each in samples if each.startswith("outfeed_clients{"))
