"""The protocol of /ws: each client message gets a frame or a close code.

Other clients are not affected.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.clients import FeedClient, RawClient
from tests.database_file import head_of, write_events
from tests.server import ROOT, Server, writer
from tests.waits import wait_until

HEARTBEAT_SECS = 0.2
MAX_MESSAGE_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests here. Each test leaves it unchanged."""
    with Server(tmp_path_factory.mktemp("protocol"), heartbeat_secs=HEARTBEAT_SECS) as running:
        yield running


@pytest.fixture(scope="module")
def witness(server: Server) -> Iterator[FeedClient]:
    """A client that stays live through all tests."""
    with server.connect() as client:
        client.subscribe()
        yield client


@pytest.fixture(autouse=True)
def others_unaffected(server: Server, witness: FeedClient) -> Iterator[None]:
    yield
    write_events(server.database)
    witness.follow(head_of(server.database))
    assert "Traceback" not in server.output, server.output
    assert '"ERROR"' not in server.output, server.output


# --- messages with an error frame -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", "invalid_json"),
        ("", "invalid_json"),
        ("[" * 60_000, "invalid_json"),
        ("[1]", "invalid_message"),
        ("{}", "unknown_action"),
        ('{"action": "dance"}', "unknown_action"),
        ('{"action": "subscribe"}', "invalid_field"),
        ('{"action": "subscribe", "channel": "news"}', "unknown_channel"),
        ('{"action": "subscribe", "channel": "events", "unknown": 1}', "invalid_field"),
        ('{"action": "subscribe", "channel": "events", "after": "7"}', "invalid_field"),
        ('{"action": "subscribe", "channel": "events", "after": 7}', "epoch_required"),
        ('{"action": "unsubscribe", "channel": "news"}', "unknown_channel"),
        ('{"action": "ack", "seq": 0}', "no_consumer"),
        (b'{"action": "ping"}', "binary"),
        (os.urandom(1000), "binary"),
        (
            json.dumps({"action": "subscribe", "channel": "events"} | {f"field-{n}": n for n in range(2000)}),
            "invalid_field",
        ),
        ('{"action": "subscribe", "channel": "events", "types": ' + "[" * 500 + "]" * 500 + "}", "invalid_json"),
    ],
)
def test_a_bad_message_gets_an_error_and_the_connection_stays_open(
    server: Server, message: str | bytes, code: str
) -> None:
    with server.connect() as client:
        client.socket.send(message)
        frame = client.receive()
        assert (frame["type"], frame["payload"]["code"]) == ("error", code)
        client.send(action="ping")
        assert client.receive() == {"type": "pong"}


def test_an_invalid_subscription_leaves_the_old_one_in_force(server: Server) -> None:
    with server.connect() as client:
        client.subscribe(types=["task.*"])
        client.send(action="subscribe", channel="events", after=-1)
        while (frame := client.receive())["type"] == "heartbeat":
            pass
        assert frame["payload"]["code"] == "invalid_field"
        write_events(server.database, event_type="x.y")
        write_events(server.database, event_type="task.a")
        assert client.next_event()["payload"]["event_type"] == "task.a"


# --- messages that end the connection ---------------------------------------------------------------------------------


def ended_with(client: RawClient) -> int | None:
    """Return the code of the close frame; None without a close frame."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            opcode, body = client.take_frame()
            if opcode == 8:
                return int.from_bytes(body[:2])
    return None


def is_ended(client: RawClient, *, politely: bool = True) -> bool:
    """Return once the server has ended the connection.

    With *politely* this side has ended it first, which saves the server's wait.
    """
    with contextlib.suppress(OSError):
        if politely:
            client.socket.shutdown(socket.SHUT_WR)
        while client.socket.recv(1 << 16):
            pass
    return True


def frame(body: bytes, first: int = 0x81, mask: bytes | None = b"mask") -> bytes:
    """Return a client's frame; without *mask* an invalid one."""
    bit = 0x80 if mask else 0
    if len(body) < 126:
        header = struct.pack("!BB", first, bit | len(body))
    elif len(body) < 65536:
        header = struct.pack("!BBH", first, bit | 126, len(body))
    else:
        header = struct.pack("!BBQ", first, bit | 127, len(body))
    return header + (mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(body)) if mask else body)


BROKEN: dict[str, tuple[bytes, int]] = {
    "no mask": (frame(b'{"action": "ping"}', mask=None), 1002),
    "a reserved opcode": (frame(b"", first=0x83), 1002),
    "a reserved control opcode": (frame(b"", first=0x8B), 1002),
    "a reserved bit": (frame(b"{}", first=0xC1), 1002),
    "a fragmented ping": (frame(b"", first=0x09), 1002),
    "an overlong ping": (frame(b"x" * 126, first=0x89), 1002),
    "an end without a beginning": (frame(b"{}", first=0x80), 1002),
    "a beginning inside another": (frame(b"{", first=0x01) + frame(b"{}", first=0x81), 1002),
    "text that is no UTF-8": (frame(b"\xff\xfe"), 1007),
    "text that ends inside a character": (frame(b'"\xe2\x82'), 1007),
    "a close code of one byte": (frame(b"\x03", first=0x88), 1002),
    "a close code that may not be sent": (frame(struct.pack("!H", 1005), first=0x88), 1002),
    "a close reason that is no UTF-8": (frame(struct.pack("!H", 1000) + b"\xff", first=0x88), 1007),
    "a length of two exabytes": (struct.pack("!BBQ", 0x81, 0xFF, 2**61) + b"mask" + b"x" * 70_000, 1009),
    "a negative length": (struct.pack("!BBQ", 0x81, 0xFF, 2**63) + b"mask", 1002),
    "a message that is too large": (frame(b'"' + b"x" * MAX_MESSAGE_BYTES + b'"'), 1009),
    "a message of too many bytes, not characters": (frame(('"' + "é" * 40_000 + '"').encode()), 1009),
    "a binary message that is too large": (frame(b"x" * (MAX_MESSAGE_BYTES + 1), first=0x82), 1009),
    "a message that is too large in parts": (
        frame(b"x" * 60_000, first=0x01) + frame(b"x" * 60_000, first=0x00) + frame(b"", first=0x80),
        1009,
    ),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1002),
}


@pytest.mark.parametrize(("sent", "code"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("is_live", [False, True], ids=["idle", "live"])
def test_a_protocol_violation_closes_with_its_code(server: Server, sent: bytes, code: int, is_live: bool) -> None:
    with RawClient(server) as client:
        if is_live:
            client.subscribe()
            assert b"subscribed" in client.take_frame()[1]
        client.socket.sendall(sent)
        assert ended_with(client) == code
        assert is_ended(client)


def test_a_client_that_does_not_close_is_disconnected(server: Server) -> None:
    with RawClient(server) as client:
        client.socket.sendall(frame(b"{}", mask=None))
        assert ended_with(client) == 1002
        assert is_ended(client, politely=False)


def test_ten_megabytes_are_closed_with_1009(server: Server) -> None:
    with server.connect() as client:
        with contextlib.suppress(ConnectionClosed):
            client.socket.send("x" * 10_000_000)
        assert client.closed_with()[0] == 1009


def test_the_largest_message_that_is_allowed_is_read(server: Server) -> None:
    with server.connect() as client:
        client.socket.send('"' + "x" * (MAX_MESSAGE_BYTES - 2) + '"')
        assert client.receive()["payload"]["code"] == "invalid_message"


def test_a_thousand_messages_a_second_are_closed_with_1008(server: Server) -> None:
    with server.connect() as client:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                client.send(action="ping")
        code, reason = client.closed_with()
        assert (code, reason) == (1008, "more than 100 messages a second")


def test_a_live_client_that_floods_is_closed_as_well(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                client.send(action="ping")
        assert client.closed_with()[0] == 1008


@pytest.mark.parametrize("half", [b"\x81", b"\x81\xfe", frame(b'{"action": "ping"}')[:-3], frame(b"{", first=0x01)])
def test_half_a_frame_affects_no_other_client(server: Server, half: bytes) -> None:
    with RawClient(server) as client:
        client.socket.sendall(half)
        with server.connect() as other:
            other.send(action="ping")
            assert other.receive() == {"type": "pong"}


def test_aborted_connections_leave_no_socket(server: Server) -> None:
    before = open_sockets(server)
    for n in range(20):
        client = RawClient(server)
        if n % 2:
            client.subscribe()
        client.socket.sendall(b"\x81\xfe\x00")
        if n % 3:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
    wait_until(lambda: open_sockets(server) <= before, "the server has closed the sockets")


def open_sockets(server: Server) -> int:
    (worker,) = server.workers()
    links = []
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(descriptor))
    return sum(link.startswith("socket:") for link in links)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_a_close_frame_is_answered_and_the_connection_ends(server: Server, code: int) -> None:
    with RawClient(server) as client:
        client.socket.sendall(frame(struct.pack("!H", code) + b"bye", first=0x88))
        assert ended_with(client) == code
        assert is_ended(client)


def test_messages_before_a_close_are_answered(server: Server) -> None:
    with RawClient(server) as client:
        client.socket.sendall(frame(b'{"action": "ping"}') * 2 + frame(struct.pack("!H", 1000), first=0x88))
        assert [client.take_frame() for _ in range(2)] == [(1, b'{"type":"pong"}')] * 2
        assert ended_with(client) == 1000
        assert is_ended(client)


# --- unusual but valid messages ---------------------------------------------------------------------------------------


def test_a_message_in_fragments_with_a_ping_in_between_is_read(server: Server) -> None:
    message = json.dumps({"action": "subscribe", "channel": "events", "source": "é"}, ensure_ascii=False).encode()
    cut = message.index(b"\xa9")  # inside a character
    with RawClient(server) as client:
        client.socket.sendall(frame(message[:5], first=0x01))
        client.socket.sendall(frame(b"are you there", first=0x89))
        client.socket.sendall(frame(message[5:cut], first=0x00))
        client.socket.sendall(frame(message[cut:], first=0x80))
        assert client.take_frame() == (10, b"are you there")
        assert json.loads(client.take_frame()[1])["type"] == "subscribed"


def test_a_message_that_comes_byte_by_byte_is_read(server: Server) -> None:
    with RawClient(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(b'{"action": "ping"}'):
            client.socket.sendall(bytes([byte]))
        assert client.take_frame() == (1, b'{"type":"pong"}')


def test_many_messages_in_one_packet_are_all_answered(server: Server) -> None:
    with RawClient(server) as client:
        client.socket.sendall(frame(b'{"action": "ping"}') * 50)
        assert [client.take_frame() for _ in range(50)] == [(1, b'{"type":"pong"}')] * 50


def test_an_offered_compression_is_not_used(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    with connect(server.url.replace("http", "ws") + "/ws", additional_headers=headers) as client:
        assert client.protocol.extensions == []
        client.send('{"action": "ping"}')
        assert client.recv() == '{"type":"pong"}'


# --- the handshake ----------------------------------------------------------------------------------------------------

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": None, "Connection": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "websocket2"}, 426),
        ({"Connection": "x-upgrade"}, 426),
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "AAAA"}, 400),
        ({"Sec-WebSocket-Key": "not base64 at all!!!!!=="}, 400),
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer outfeed_wrong"}, 401),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, 401),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_an_invalid_handshake_is_rejected_with_a_problem(
    server: Server, headers: dict[str, str | None], status: int
) -> None:
    given: dict[str, Any] = {**HANDSHAKE, "Authorization": f"Bearer {server.token}", **headers}
    answer = httpx.get(
        f"{server.url}/ws", headers={name: value for name, value in given.items() if value is not None}, verify=False
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    if "Sec-WebSocket-Version" in headers:
        assert answer.headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_not_a_handshake(server: Server, method: str) -> None:
    headers = {**HANDSHAKE, "Authorization": f"Bearer {server.token}"}
    answer = httpx.request(method, f"{server.url}/ws", headers=headers, verify=False)
    assert answer.status_code in (405, 426, *([200] if method == "OPTIONS" else []))


def test_the_own_origin_and_a_missing_origin_are_accepted(server: Server) -> None:
    for origin in (server.url, None):
        with server.connect(origin=origin) as client:
            client.send(action="ping")
            assert client.receive() == {"type": "pong"}


def test_an_unauthenticated_client_gets_no_handshake(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(server.url.replace("http", "ws") + "/ws")
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    "sent", [b"\x00\x01\x02\x03\r\n\r\n", b"GET /ws\r\n\r\n", b"G" * 10_000, b"\x16\x03\x01\x02\x00"]
)
def test_bytes_that_are_not_http_affect_no_other_client(server: Server, sent: bytes) -> None:
    # The server may close it at any point.
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_a_request_after_the_body_of_a_rejected_one_is_answered(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n123")
        raw.sendall(b"45" + 2 * b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = raw.recv(65_536)
        assert answers.startswith(b"HTTP/1.1 401 ")
        while answers.count(b"HTTP/1.1 200 ") < 2:
            more = raw.recv(65_536)
            assert more, answers
            answers += more


def test_the_verdict_comes_first_during_writes(server: Server) -> None:
    with writer(server.database, rate=300, source=os.urandom(4).hex()):
        for fields in ({}, {"after": 0}, {"last": 5}, {"after": 10**9, "epoch": "e"}) * 3:
            with server.connect() as client:
                client.send(action="subscribe", channel="events", **fields)
                assert client.receive()["type"] == "subscribed"


def test_last_begins_with_the_newest_matching_events(server: Server) -> None:
    write_events(server.database, 5, event_type="wanted.one")
    write_events(server.database, 7, event_type="other.one")
    end = head_of(server.database)
    with server.connect() as client:
        verdict = client.subscribe(last=3, types=["wanted.*"])
        assert (verdict["verdict"], verdict["after"], verdict["head"]) == ("live", end - 10, end)
        assert [client.next_event()["seq"] for _ in range(3)] == [end - 9, end - 8, end - 7]


def test_types_are_exact_or_a_prefix(server: Server) -> None:
    with server.connect() as client:
        client.subscribe(types=["kept.*", "exact.one"])
        for event_type in ("kept.a", "keptnot.a", "exact.one", "exact.one.more", "kept.b.c", "exact.two"):
            write_events(server.database, event_type=event_type)
        write_events(server.database, event_type="kept.last")
        seen = [client.next_event()["payload"]["event_type"] for _ in range(4)]
        assert seen == ["kept.a", "exact.one", "kept.b.c", "kept.last"]


def test_the_server_sends_only_answers_after_an_unsubscribe(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        client.send(action="unsubscribe", channel="events")
        while (answer := client.receive())["type"] == "heartbeat":
            pass
        assert answer == {"type": "unsubscribed", "payload": {"channel": "events"}}
        write_events(server.database, 3)
        client.send(action="ping")
        assert client.receive() == {"type": "pong"}
        client.send(action="unsubscribe", channel="events")
        assert client.receive()["type"] == "unsubscribed"
        assert client.subscribe()["after"] == head_of(server.database)


def test_no_event_of_the_old_subscription_follows_a_new_verdict(server: Server) -> None:
    name = os.urandom(4).hex()
    with writer(server.database, rate=500, source=name, bulk=5), server.connect() as client:
        for n in range(20):
            client.subscribe(**({"source": name} if n % 2 else {"source": "nobody"}))
            if n % 2:
                assert client.next_event()["payload"]["source"] == name
            else:
                beat = client.receive()
                assert beat["type"] == "heartbeat", beat


def test_a_heartbeat_has_the_position_of_this_client(server: Server) -> None:
    with server.connect() as client:
        client.subscribe(types=["nothing.such"])
        write_events(server.database, 5)
        end = head_of(server.database)
        wait_until(lambda: client.note(client.receive()) or client.cursor >= end, "a heartbeat at the head")
        assert client.resume()["verdict"] == "resumed"
        assert client.cursor >= end


def test_a_client_that_knows_only_the_first_version_works(server: Server) -> None:
    """A client of ADR 022 reads only `payload` of `event` frames."""
    with server.connect() as client:
        client.send(action="subscribe", channel="events")
        assert client.receive()["type"] == "subscribed"
        write_events(server.database)
        while (message := client.receive())["type"] != "event":
            pass
        assert set(message["payload"]) == {"id", "event_type", "source", "task_id", "agent_id", "timestamp", "data"}


SEQUENCES: list[Callable[[FeedClient], None]] = [
    lambda client: client.send(action="ack", seq=10**30),
    lambda client: client.send(action="subscribe", channel="events", last=True),
    lambda client: client.send(action="subscribe", channel="events", after=2**63),
    lambda client: client.send(action="unsubscribe", channel=["events"]),
]


@pytest.mark.parametrize("send", SEQUENCES, ids=range(len(SEQUENCES)))
def test_unusual_values_of_valid_types_get_an_error(server: Server, send: Callable[[FeedClient], None]) -> None:
    with server.connect() as client:
        send(client)
        assert client.receive()["type"] == "error"


# --- silence ----------------------------------------------------------------------------------------------------------


class ImpatientServer(Server):
    """A server that gives a client half a second to subscribe."""

    def start(self, *arguments: str) -> None:
        code = "import outfeed.cli, outfeed.feed.subscriber as each; each.IDLE_SECS = 0.5; outfeed.cli.main(['serve'])"
        with self.output_path.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=ROOT, env=self.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_until(self._is_ready, "server ready")


def subscribed_in_time(server: Server) -> FeedClient | None:
    """Return a live client; None if it was too late."""
    client = server.connect()
    try:
        client.subscribe()
    except ConnectionClosed:
        client.__exit__()
        return None
    return client


def test_a_client_that_does_not_subscribe_in_time_is_closed_with_1008(tmp_path: Path) -> None:
    with (
        ImpatientServer(tmp_path, heartbeat_secs=0.2) as impatient,
        wait_until(lambda: subscribed_in_time(impatient), "a client subscribes in time") as live,
        impatient.connect() as silent,
        impatient.connect() as talker,
    ):
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5):
                talker.send(action="ping")
            talker.socket.send("nonsense")
        assert silent.closed_with() == (1008, "no subscription")
        assert talker.closed_with() == (1008, "no subscription")
        # and a client with a subscription may be silent
        for _ in range(5):
            assert live.receive()["type"] == "heartbeat"
        live.send(action="unsubscribe", channel="events")
        assert live.closed_with() == (1008, "no subscription")
