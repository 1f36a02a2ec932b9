"""Polls with and without waiting: fast with new events, cheap without."""

from __future__ import annotations

import asyncio
import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from outfeed.access.store import account
from outfeed.feed.tail import TAIL_EVENTS
from outfeed.http.server.serve import GRACE_SECS
from outfeed.http.transports.feed import MAX_SCANNED_ROWS
from outfeed.process import REQUESTS_AT_ONCE
from outfeed.store import database as db
from tests.database_file import write_events
from tests.event_loop import run_in_loop
from tests.page import change
from tests.server import Server, writer
from tests.waits import PATIENCE_SECS, shortest, wait_until

WAITING = 200
MAX_SHARE = 0.2
MAX_MORE_THREADS = 3 * REQUESTS_AT_ONCE  # the threads of requests stay, and those of the jobs
SOON_SECS = 15  # half of the wait: a faster answer was not caused by the timeout


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("long_poll"), max_connections=300) as server:
        write_events(server.database, 5, each_alone=True)
        yield server


def get(server: Server, **query: Any) -> dict[str, Any]:
    with server.http() as http:
        answer = http.get("/api/feed", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@contextlib.contextmanager
def asking(server: Server, **query: Any) -> Iterator[Future[dict[str, Any]]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(get, server, **query)


def cursor_at_head(server: Server) -> dict[str, Any]:
    """Return the cursor at the head."""
    page = get(server)
    return {"after": page["cursor"], "epoch": page["epoch"]}


def wait_for_waiting(server: Server, count: int) -> None:
    """Return once *count* polls wait.

    A probe for a free place takes the place of the last of them.
    """

    def waiting() -> float:
        return sum(server.counted("outfeed_clients", transport="poll", state="waiting").values())

    wait_until(lambda: waiting() == count, f"{count} wait")


@contextlib.contextmanager
def sent(server: Server, *paths: str) -> Iterator[socket.socket]:
    """Yield a connection that has sent a request for each of *paths*."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECS) as sock:
        send(sock, server, *paths)
        yield sock


def send(sock: socket.socket, server: Server, *paths: str) -> None:
    head = f"HTTP/1.1\r\nHost: feed\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    sock.sendall("".join(f"GET {path} {head}" for path in paths).encode())


def read_until(sock: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        try:
            chunk = sock.recv(1 << 16)
        except TimeoutError:
            raise AssertionError(received) from None
        assert chunk, received
        received += chunk
    return received


def poll_path(at: dict[str, Any], wait: float = 2 * SOON_SECS) -> str:
    return f"/api/feed?after={at['after']}&epoch={at['epoch']}&wait={wait}"


def cpu_secs(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class TestWaiting:
    def test_a_poll_returns_at_once_if_there_is_an_event(self, shared: Server) -> None:
        began = time.monotonic()
        assert len(get(shared, after=0, wait=30)["events"]) >= 5
        assert time.monotonic() - began < SOON_SECS

    def test_a_poll_returns_as_soon_as_there_is_an_event(self, shared: Server) -> None:
        at = cursor_at_head(shared)
        with asking(shared, **at, wait=30) as answer:
            assert not answer.done()
            write_events(shared.database)
            began = time.monotonic()
            page = answer.result()
            assert time.monotonic() - began < SOON_SECS
        assert [event["seq"] for event in page["events"]] == [at["after"] + 1] == [page["cursor"]]

    def test_a_poll_without_events_returns_empty_after_its_time(self, shared: Server) -> None:
        began, at = time.monotonic(), cursor_at_head(shared)
        page = get(shared, **at, wait=0.5)
        assert 0.5 <= time.monotonic() - began < SOON_SECS
        assert (page["events"], page["cursor"], page["verdict"]) == ([], at["after"], "resumed")

    def test_an_event_without_a_match_moves_the_cursor_and_ends_no_poll(self, shared: Server) -> None:
        at = cursor_at_head(shared)
        with asking(shared, **at, wait=30, types="wanted.*") as answer:
            write_events(shared.database, 20, each_alone=True)
            write_events(shared.database, event_type="wanted.one")
            page = answer.result()
        assert [event["seq"] for event in page["events"]] == [at["after"] + 21] == [page["cursor"]]
        page = get(shared, **at, wait=0.5, types="none.*")
        assert (page["events"], page["cursor"]) == ([], at["after"] + 21)

    @pytest.mark.parametrize("query", [{}, {"after": 10**9}, {"after": 3, "epoch": "0" * 32}])
    def test_a_gap_or_reset_does_not_wait(self, shared: Server, query: dict[str, Any]) -> None:
        if query.get("after") == 10**9:
            query = query | {"epoch": cursor_at_head(shared)["epoch"]}
        began = time.monotonic()
        page = get(shared, **query, wait=30)
        assert time.monotonic() - began < SOON_SECS
        assert page["verdict"] in ("live", "reset")
        assert page["events"] == []

    def test_answers_respect_the_rate_and_miss_nothing(self, shared: Server) -> None:
        at = cursor_at_head(shared)
        seqs: list[int] = []
        answers: list[float] = []
        with writer(shared.database, rate=200), shared.http() as http:
            while len(answers) < 25:
                page = http.get("/api/feed", params={**at, "wait": 10}).json()
                answers.append(time.monotonic())
                seqs += [event["seq"] for event in page["events"]]
                at["after"] = page["cursor"]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert answers[10] - answers[0] > 1
        assert answers[20] - answers[10] > 1

    @pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x", ""])
    def test_an_invalid_wait_is_rejected(self, shared: Server, wait: str) -> None:
        with shared.http() as http:
            assert http.get(f"/api/feed?after=0&wait={wait}").status_code == 422

    def test_sigterm_ends_polls_at_once(self, tmp_path: Path) -> None:
        server = Server(tmp_path)

        def secs_to_end() -> float:
            with server, ThreadPoolExecutor(5) as pool:
                at = cursor_at_head(server) | {"after": 0}
                answers = [pool.submit(get, server, **at, wait=60) for _ in range(5)]
                wait_for_waiting(server, 5)
                assert server.process is not None
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                for answer in answers:
                    assert answer.result()["events"] == []
                assert server.process.wait(timeout=PATIENCE_SECS) == 0
                return time.monotonic() - began

        assert shortest(secs_to_end, GRACE_SECS) < GRACE_SECS  # the time that running requests get

    def test_the_pause_that_keeps_the_rate_holds_no_thread_and_ends_at_sigterm(self, tmp_path: Path) -> None:
        with Server(tmp_path, event_rate=0.05) as server, contextlib.ExitStack() as stack:
            write_events(server.database)
            before = server.threads()
            clients = [stack.enter_context(sent(server, "/api/feed?after=0&wait=60")) for _ in range(MAX_MORE_THREADS)]
            get(server)  # it is served after them
            assert server.threads() - before < MAX_MORE_THREADS
            assert select.select(clients, [], [], 0)[0] == []
            server.stop()
            assert all(b'"seq":1,' in read_until(client, b"}]}") for client in clients)

    def test_waiting_polls_count_as_connections(self, tmp_path: Path) -> None:
        """Each has a socket. Uncounted, they would take all that a worker has."""
        with Server(tmp_path, max_connections=2) as server:
            at = cursor_at_head(server) | {"after": 0}
            with ThreadPoolExecutor(2) as pool:
                waiting = [pool.submit(get, server, **at, wait=20) for _ in range(2)]
                with server.http() as http:

                    def is_full() -> bool:
                        return http.head("/api/feed/stream").status_code == 503

                    wait_for_waiting(server, 2)
                    assert is_full()
                    refused = http.get("/api/feed", params={**at, "wait": 1})
                    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
                    assert http.get("/api/feed", params=at).status_code == 200
                    write_events(server.database)
                    assert [len(answer.result()["events"]) for answer in waiting] == [1, 1]
                    wait_until(lambda: not is_full(), "a place is free again")


class TestParked:
    """A poll that waits holds no thread, and its request is served again."""

    def test_a_client_that_disconnects_frees_its_slot_at_once(self, tmp_path: Path) -> None:
        with Server(tmp_path, max_connections=1) as server:
            at = cursor_at_head(server) | {"after": 0}
            for _ in range(2):
                with sent(server, poll_path(at)):
                    wait_for_waiting(server, 1)
                wait_for_waiting(server, 0)
            with asking(server, **at, wait=2 * SOON_SECS) as answer:
                wait_for_waiting(server, 1)
                write_events(server.database)
                assert len(answer.result()["events"]) == 1

    @pytest.mark.parametrize("is_late", [False, True])
    def test_a_further_request_of_the_client_is_answered_after_the_wait(self, shared: Server, is_late: bool) -> None:
        at = cursor_at_head(shared)
        paths = [poll_path(at), "/healthz"]
        with sent(shared, *(paths[:1] if is_late else paths)) as sock:
            wait_for_waiting(shared, 1)
            if is_late:
                send(sock, shared, "/healthz")
            assert cursor_at_head(shared) == at
            write_events(shared.database)
            received = read_until(sock, b'{"status":"alive"}\n')
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.index(b'"seq":%d' % (at["after"] + 1)) < received.index(b'"alive"')

    def test_a_request_that_is_served_twice_is_counted_once(self, tmp_path: Path) -> None:
        with Server(tmp_path, requests_per_minute=2, event_rate=4) as server:
            write_events(server.database)
            database = db.at(server.database)
            headers = {"Authorization": f"Bearer {account.create_token(database, 'poller', ['read'])}"}
            database.close()
            frames = server.counted("outfeed_frames_total", transport="poll")
            with server.http() as http:
                page = http.get("/api/feed?after=0&wait=5", headers=headers).json()  # it waits to keep the rate
                assert http.get("/api/feed", headers=headers).status_code == 200
            assert len(page["events"]) == 1
            assert server.counted("outfeed_frames_total", transport="poll")["0"] == frames.get("0", 0) + 1

    def test_a_match_far_behind_the_cursor_is_found_without_a_wait(self, shared: Server) -> None:
        """One pass reads a part of the way. The tail has only the newest events."""
        at = cursor_at_head(shared)
        write_events(shared.database, MAX_SCANNED_ROWS + TAIL_EVENTS + 1000)
        write_events(shared.database, event_type="distant.one")
        began = time.monotonic()
        assert len(get(shared, **at, types="distant.*", wait=2 * SOON_SECS)["events"]) == 1
        assert time.monotonic() - began < SOON_SECS

    def test_a_new_epoch_ends_the_wait_with_a_reset(self, server: Server) -> None:
        write_events(server.database, 2, each_alone=True)
        with asking(server, **cursor_at_head(server), wait=2 * SOON_SECS) as answer:
            wait_for_waiting(server, 1)
            change(server.database, "UPDATE outfeed_meta SET value = 'another' WHERE key = 'epoch'")
            assert answer.result()["verdict"] == "reset"


def test_two_hundred_waiting_polls_cost_nothing_and_all_get_the_event(shared: Server) -> None:
    run_in_loop(wait_together(shared))


async def wait_together(server: Server) -> None:
    at, before = cursor_at_head(server), server.threads()
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=90, verify=False) as http:
        answers = [
            asyncio.create_task(http.get("/api/feed", params={**at, "wait": 60, "types": "wanted.*"}))
            for _ in range(WAITING)
        ]
        await asyncio.to_thread(wait_for_waiting, server, WAITING)
        threads = server.threads()
        cost = await asyncio.to_thread(shortest, lambda: share_of_cpu(server.workers()[0]), MAX_SHARE)
        assert not any(answer.done() for answer in answers)
        await asyncio.to_thread(write_events, server.database, event_type="wanted.one")
        began = time.monotonic()
        pages = [answer.json() for answer in await asyncio.gather(*answers)]
        took = time.monotonic() - began
    assert [len(page["events"]) for page in pages] == [1] * WAITING
    assert threads - before < MAX_MORE_THREADS, threads
    assert cost < MAX_SHARE, f"{cost:.0%} of a CPU"
    assert took < SOON_SECS, took


def test_an_erasure_ends_the_wait_and_is_reported_from_then_on(server: Server) -> None:
    write_events(server.database, 2, each_alone=True)
    assert "erasures" not in get(server)
    erased = get(server, last=1)["events"][0]["id"]
    with asking(server, **cursor_at_head(server), types="no.such", wait=2 * SOON_SECS) as asked:
        wait_for_waiting(server, 1)
        began = time.monotonic()
        assert server.run("prune", "--id", erased).returncode == 0
        assert asked.result()["erasures"] == 1
        assert time.monotonic() - began < SOON_SECS
    assert get(server)["erasures"] == 1


def share_of_cpu(pid: int) -> float:
    """Return the process's share of a CPU over about two seconds."""
    used, began = cpu_secs(pid), time.monotonic()
    threading.Event().wait(2)
    return (cpu_secs(pid) - used) / (time.monotonic() - began)


class TestConditional:
    def test_a_repeated_request_gets_304_until_an_event(self, shared: Server) -> None:
        at = cursor_at_head(shared)
        with shared.http() as http:
            first = http.get("/api/feed", params=at)
            same = http.get("/api/feed", params=at, headers={"If-None-Match": first.headers["etag"]})
            assert (same.status_code, same.content) == (304, b"")
            assert same.headers["etag"] == first.headers["etag"]
            write_events(shared.database)
            after = http.get("/api/feed", params=at, headers={"If-None-Match": first.headers["etag"]})
            assert (after.status_code, len(after.json()["events"])) == (200, 1)
            assert after.headers["cache-control"] == "no-cache"

    def test_a_head_request_has_the_length_and_no_body(self, shared: Server) -> None:
        with shared.http() as http:
            answer = http.head("/api/feed", params={"after": 0})
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 100
