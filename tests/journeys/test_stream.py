"""Server-sent events: the stream for browsers, and for other clients."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outfeed.http.server.serve import GRACE_SECS
from tests.database_file import head_of, write_events
from tests.server import Server
from tests.transports import SseParser, Stream
from tests.waits import PATIENCE_SECS, shortest, wait_until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("stream"), event_rate=100, heartbeat_secs=0.3) as server:
        write_events(server.database, 5, each_alone=True)
        yield server


def stream(server: Server, last_event_id: str | None = None, headers: dict[str, str] | None = None, **query: Any):
    """Connect a stream with these headers."""

    class WithHeaders(Stream):
        pass

    WithHeaders.headers = (headers or {}) | ({"Last-Event-ID": last_event_id} if last_event_id is not None else {})
    return WithHeaders(server, **query)


def raw_request(server: Server, request: bytes) -> socket.socket:
    """Send bare bytes, with the token in place of TOKEN."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    connection.sendall(request.replace(b"TOKEN", server.token.encode()))
    return connection


def read_until(connection: socket.socket, marker: bytes) -> bytes:
    received = b""
    while marker not in received:
        chunk = connection.recv(1 << 16)
        assert chunk, received
        received += chunk
    return received


def is_ended(connection: socket.socket) -> bool:
    """Read the rest. Return whether the server has ended the connection."""
    while select.select([connection], [], [], 0)[0]:
        try:
            if not connection.recv(1 << 16):
                return True
        except ConnectionError:
            return True
    return False


class TestCursor:
    def test_last_event_id_takes_precedence_over_the_url(self, shared: Server) -> None:
        with stream(shared, after=0) as first:
            epoch = first.epoch
        with stream(shared, f"{epoch}:3", after=1, epoch="0" * 32) as again:
            assert (again.verdict.kind, again.verdict.after) == ("resumed", 3)

    def test_a_last_event_id_of_another_epoch_is_a_reset(self, shared: Server) -> None:
        with stream(shared, f"{'0' * 32}:3") as again:
            assert (again.verdict.kind, again.verdict.after) == ("reset", head_of(shared.database))

    @pytest.mark.parametrize("value", ["e:x", "e:-1", "e:", ":3", "7", "e:\xb2", "e:99999999999999999999"])
    def test_an_invalid_last_event_id_is_rejected_before_the_stream(self, shared: Server, value: str) -> None:
        with shared.http() as http:
            answer = http.get("/api/feed/stream", headers={"Last-Event-ID": value.encode("latin-1")})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")

    def test_a_last_event_id_is_ignored_with_a_consumer(self, shared: Server) -> None:
        with shared.http() as http:
            http.post("/api/consumers", json={"name": "streamed"})
        with stream(shared, f"{'0' * 32}:3", consumer="streamed") as client:
            assert (client.verdict.kind, client.verdict.after) == ("resumed", head_of(shared.database))

    def test_an_empty_last_event_id_is_ignored(self, shared: Server) -> None:
        with stream(shared, "", after=0) as client:
            assert (client.verdict.kind, client.verdict.after) == ("resumed", 0)

    def test_a_heartbeat_moves_the_last_event_id_and_dispatches_nothing(self, shared: Server) -> None:
        with stream(shared, after=0, types="none.*") as client:
            client.follow(head_of(shared.database))
            assert client.events == []
            raw = bytes(client.raw)
            id_ = client.parser.last_event_id
        assert b": heartbeat\nid: " in raw
        with stream(shared, id_, types="none.*") as again:
            assert (again.verdict.kind, again.verdict.after) == ("resumed", head_of(shared.database))

    def test_every_event_of_a_batch_has_its_own_id(self, shared: Server) -> None:
        with stream(shared, after=0, batch="true", rate="0") as client:
            client.follow(head_of(shared.database))
            ids = re.findall(rb"^id: (\w+:\d+)$", bytes(client.raw), re.MULTILINE)
        assert ids[: head_of(shared.database) + 1] == [
            f"{client.epoch}:{seq}".encode() for seq in range(head_of(shared.database) + 1)
        ]


class TestRequest:
    @pytest.mark.parametrize(
        "query",
        [
            "after=-1", "after=x", "after=3", "types=a,,b", "types=a+b", "batch=maybe", "batch=2", "rate=-1",
            "rate=nan", "rate=inf", "rate=1e-300", "rate=1001", "last=0", "last=1001", "wait=3", "limit=3",
            "nonsense=1", "consumer=x&after=0", "source=", "epoch=",
        ],
    )  # fmt: skip
    def test_an_invalid_query_is_rejected_before_the_stream(self, shared: Server, query: str) -> None:
        with shared.http() as http:
            answer = http.get(f"/api/feed/stream?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text

    @pytest.mark.parametrize("value", ["true", "false", "1", "0"])
    def test_booleans_are_words_or_digits(self, shared: Server, value: str) -> None:
        with stream(shared, batch=value) as client:
            assert client.verdict.kind == "live"

    def test_last_replays_that_many_events(self, shared: Server) -> None:
        with stream(shared, last=2) as client:
            client.follow(head_of(shared.database))
            assert len(client.events) == 2

    def test_unauthenticated_clients_are_rejected(self, shared: Server) -> None:
        with raw_request(shared, b"GET /api/feed/stream HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 401")

    def test_a_head_request_has_the_headers_and_no_stream(self, shared: Server) -> None:
        request = (
            b"HEAD /api/feed/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n"
        )
        with raw_request(shared, request) as connection:
            received = read_until(connection, b"\r\n\r\n")
            received += connection.recv(1 << 16)
        top, _, body = received.partition(b"\r\n\r\n")
        assert (top.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"")
        assert b"content-type: text/event-stream" in top.lower()
        assert b"no-store" in top

    def test_a_request_body_is_ignored(self, shared: Server) -> None:
        request = (
            b"GET /api/feed/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nContent-Length: %d\r\n\r\n"
        )
        with raw_request(shared, request % 100_000 + b"x" * 60_000) as connection:
            connection.sendall(b"x" * 40_000)
            read_until(connection, b"event: subscribed")
            connection.sendall(b"x" * 40_000)
            write_events(shared.database)
            read_until(connection, b":%d\ndata" % head_of(shared.database))
            assert not is_ended(connection)

    def test_a_pipelined_request_is_not_answered_into_the_stream(self, shared: Server) -> None:
        one = b"GET /api/feed/stream?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n"
        with raw_request(shared, one + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
            received = read_until(connection, b":%d\ndata" % head_of(shared.database))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            write_events(shared.database)
            received += read_until(connection, b":%d\ndata" % head_of(shared.database))
        assert received.count(b"HTTP/1.1 ") == 1

    def test_a_stream_can_follow_another_request_on_a_connection(self, shared: Server) -> None:
        with raw_request(shared, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
            read_until(connection, b"alive")
            connection.sendall(
                b"GET /api/feed/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % shared.token.encode()
            )
            read_until(connection, b"event: subscribed")
            write_events(shared.database)
            read_until(connection, b":%d\ndata" % head_of(shared.database))

    def test_line_breaks_of_a_raw_writer_stay_in_their_line(self, shared: Server) -> None:
        """Only the trigger removes them, and other tables may fill the outbox."""
        pretty = '{\r\n  "text":\r"one\\ntwo\\r\\nid: evil:99"\n}'
        with stream(shared) as client:
            with contextlib.closing(sqlite3.connect(shared.database, timeout=30)) as raw, raw:
                raw.execute(
                    "INSERT INTO outbox (event_id, payload) VALUES ('x', ?)", ('{"id": "x",\n"data":' + pretty + "}",)
                )
            client.follow(head_of(shared.database))
            (event,) = re.findall(
                rb"^data: (\{\"id.*)$", bytes(client.raw).split(b"event: subscribed")[1], re.MULTILINE
            )
        assert json.loads(event)["data"] == {"text": "one\ntwo\r\nid: evil:99"}
        assert len(client.events) == 1

    def test_curl_can_read_the_stream(self, shared: Server) -> None:
        command = [
            "curl",
            "-sN",
            "-H",
            f"Authorization: Bearer {shared.token}",
            f"{shared.url}/api/feed/stream?after=0",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            assert curl.stdout is not None
            parser, seqs = SseParser(), []
            while len(seqs) < 6:
                for _, _, id_ in parser.feed(os.read(curl.stdout.fileno(), 1 << 16)):
                    seqs.append(int(id_.rpartition(":")[2]))
            curl.terminate()
        assert seqs[:6] == [0, 1, 2, 3, 4, 5]


class TestLeaving:
    def test_a_closed_stream_frees_its_place_at_once(self, tmp_path: Path) -> None:
        with Server(tmp_path, max_connections=1) as server:
            write_events(server.database)
            assert server.token
            client = stream(server)
            for _ in range(5):
                with server.http() as http:
                    refused = http.get("/api/feed/stream")
                    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
                client.close()
                client = wait_until(lambda: try_stream(server), "the place is free", timeout=5)
            client.close()
            assert server.descriptors() < 60

    def test_sigterm_ends_every_stream_at_once_with_a_hint(self, tmp_path: Path) -> None:
        server = Server(tmp_path)

        def secs_to_end() -> float:
            with server, contextlib.ExitStack() as stack:
                assert server.token
                clients = [stack.enter_context(stream(server)) for _ in range(20)]
                assert server.process is not None
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                for client in clients:
                    with contextlib.suppress(EOFError):
                        while True:
                            client.pump(5)
                    assert client.close_message["code"] == 1012
                    assert re.fullmatch(r"retry_ms=\d+", client.close_message["reason"])
                    hint = re.search(rb"^retry: (\d+)$", bytes(client.raw), re.MULTILINE)
                    assert hint
                    assert int(hint[1]) == 1000 + int(client.close_message["reason"].removeprefix("retry_ms="))
                assert server.process.wait(timeout=PATIENCE_SECS) == 0
                return time.monotonic() - began

        assert shortest(secs_to_end, GRACE_SECS) < GRACE_SECS  # the time that running requests get

    def test_a_stalled_stream_gets_all_events_in_order_and_delays_no_other(self, server: Server) -> None:
        assert server.token
        with stream(server, rate="0") as stalled, server.connect() as reader:
            reader.subscribe()
            write_events(server.database, 1000, data=json.dumps("x" * 16_000), each_alone=True)
            began = time.monotonic()
            reader.follow(1000, timeout=30)
            write_events(server.database)
            reader.follow(1001, timeout=5)
            assert time.monotonic() - began < 20
            assert len(stalled.follow(1001)) == 1001

    def test_a_stalled_stream_that_disconnects_leaves_no_place_taken(self, tmp_path: Path) -> None:
        with Server(tmp_path, max_connections=1) as server:
            assert server.token
            client = stream(server, rate="0")
            write_events(server.database, 500, data=json.dumps("x" * 16_000), each_alone=True)
            assert try_stream(server) is None
            client.close()
            wait_until(lambda: try_stream(server), "the place is free", timeout=5).close()


def try_stream(server: Server) -> Stream | None:
    """Return a stream, or None if the server has no free place."""
    try:
        return stream(server)
    except AssertionError:
        return None
