"""The assumptions about Flask-Sock and simple-websocket, one test each."""

from __future__ import annotations

import contextlib
import gc
import struct
import threading
import tracemalloc
from typing import Any

import pytest
from flask import Flask, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server

from outfeed.errors import NoInput, UndeclaredRoute
from outfeed.http.permission import DeclaringFlask, requires
from outfeed.http.transports.sock_server import SERVER_OPTIONS, MemorySocket, NoThread, ReadingEvent, forget_handshake
from outfeed.principal import READ

HANDSHAKE = {
    "HTTP_HOST": "outfeed",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
}
ACCEPT = b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI="


def masked(first: int, body: bytes = b"") -> bytes:
    """Return a client's frame with a mask that changes nothing."""
    size = struct.pack("!B", 0x80 | len(body)) if len(body) < 126 else struct.pack("!BH", 0xFE, len(body))
    return bytes([first]) + size + bytes(4) + body


TEXT = masked(0x81, b"hello")


@pytest.fixture
def ws() -> Server:
    """Return the library's end of a connection after its handshake.

    It is made as /ws makes it.
    """
    server = Server({"gunicorn.socket": MemorySocket(), **HANDSHAKE}, **SERVER_OPTIONS)
    server.sock.take_sent()
    forget_handshake(server)
    return server


def process(ws: Server, data: bytes) -> bytes:
    """Have the library process *data*, and return its answer."""
    ws.sock.received = data
    with contextlib.suppress(NoInput):
        ws.thread.target()
    sent: bytes = ws.sock.take_sent()
    return sent


# --- the server -------------------------------------------------------------------------------------------------------


def test_the_library_takes_the_socket_from_the_environ_and_answers_the_handshake_with_one_send() -> None:
    sock = MemorySocket()
    ws = Server({"gunicorn.socket": sock, **HANDSHAKE}, **SERVER_OPTIONS)
    assert ws.sock is sock
    assert ws.mode == "gunicorn"
    head = sock.take_sent()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert head.endswith(b"\r\n\r\n")
    assert ACCEPT in head


def test_the_library_agrees_on_an_extension_only_if_the_client_offers_one() -> None:
    sock = MemorySocket()
    offer = {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"}
    Server({"gunicorn.socket": sock, **HANDSHAKE, **offer}, **SERVER_OPTIONS)
    assert b"permessage-deflate" in sock.take_sent(), "the offer need not be removed any more"
    Server({"gunicorn.socket": sock, **HANDSHAKE}, **SERVER_OPTIONS)
    assert b"Extensions" not in sock.take_sent()


def test_the_library_uses_only_the_given_classes_for_thread_and_event() -> None:
    before = threading.active_count()
    ws = Server({"gunicorn.socket": MemorySocket(), **HANDSHAKE}, **SERVER_OPTIONS)
    assert isinstance(ws.thread, NoThread)
    assert isinstance(ws.event, ReadingEvent)
    assert threading.active_count() == before


def test_the_library_sends_no_pings_and_limits_no_message_by_itself(ws: Server) -> None:
    assert (ws.ping_interval, ws.max_message_size) == (None, None)
    assert process(ws, masked(0x81, b"x" * 65_000)) == b""
    assert ws.connected


@pytest.mark.usefixtures("ws")  # the first connection fills the caches of the libraries
def test_the_state_of_the_handshake_can_be_freed_and_is_a_large_part_of_a_connection() -> None:
    def size(*, is_kept: bool) -> int:
        return min(one_size(is_kept=is_kept) for _ in range(3))  # another thread may allocate as well

    def one_size(*, is_kept: bool) -> int:
        tracemalloc.start()
        server = Server({"gunicorn.socket": MemorySocket(), **HANDSHAKE}, **SERVER_OPTIONS)
        if not is_kept:
            forget_handshake(server)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held

    assert size(is_kept=False) < 0.75 * size(is_kept=True)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_the_loop_ends_with_no_input_and_continues_at_the_same_place(ws: Server) -> None:
    for byte in TEXT:
        ws.sock.received = bytes([byte])
        with pytest.raises(NoInput):
            ws.thread.target()
    assert ws.connected
    assert ws.receive(0) == "hello"


def test_receive_calls_wait_with_its_timeout_until_there_is_a_message(ws: Server) -> None:
    timeouts = []

    def read(timeout: float | None) -> None:
        timeouts.append(timeout)
        if len(timeouts) > 1:
            process(ws, TEXT)

    ws.event.read = read
    assert ws.receive(7.0) is None
    assert ws.receive(None) == "hello"
    assert timeouts == [7.0, None]


def test_receive_clears_the_event_so_that_the_next_one_reads_again(ws: Server) -> None:
    ws.event.read = lambda _: process(ws, TEXT)
    assert [ws.receive(0), ws.receive(0)] == ["hello", "hello"]


def test_an_error_in_wait_passes_through_receive(ws: Server) -> None:
    def read(_: float | None) -> None:
        raise BrokenPipeError

    ws.event.read = read
    with pytest.raises(BrokenPipeError):
        ws.receive(0)


def test_messages_are_complete_text_or_bytes_in_order(ws: Server) -> None:
    snowman = "☃".encode()
    process(ws, masked(0x01, snowman[:1]))
    process(ws, masked(0x80, snowman[1:]))
    process(ws, masked(0x82, b"\x00"))
    process(ws, masked(0x02, b"\x01") + masked(0x80, b"\x02"))
    assert [ws.receive(0) for _ in range(3)] == ["☃", b"\x00", b"\x01\x02"]


# --- what it answers --------------------------------------------------------------------------------------------------


def test_a_ping_gets_one_complete_pong_and_a_pong_gets_no_answer(ws: Server) -> None:
    assert process(ws, masked(0x89, b"there?")) == b"\x8a\x06there?"
    assert process(ws, masked(0x8A, b"there!")) == b""


def test_a_close_frame_gets_a_close_frame_and_ends_the_loop(ws: Server) -> None:
    assert process(ws, masked(0x88, b"\x03\xe8bye")) == b"\x88\x05\x03\xe8bye"
    assert not ws.connected
    with pytest.raises(ConnectionClosed):
        ws.receive(0)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\x83\x80" + bytes(4), 1002), (b"\xc1\x80" + bytes(4), 1002), (masked(0x81, b"\xff"), 1007)],
    ids=["a reserved opcode", "a reserved bit", "text that is no UTF-8"],
)
def test_an_invalid_frame_gets_a_close_frame_and_receive_raises_its_code(ws: Server, data: bytes, code: int) -> None:
    answer = process(ws, data)
    assert (answer[0], answer[2:4]) == (0x88, struct.pack("!H", code))
    assert not ws.connected
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(0)
    assert closed.value.reason == code
    assert closed.value.message.encode() == answer[4:]


# --- Flask-Sock -------------------------------------------------------------------------------------------------------


def served_by(app: Flask, sock: MemorySocket) -> None:
    with pytest.raises(StopIteration):  # the exception tells gunicorn that the socket was used
        app.test_client().get("/ws", base_url="ws://x", environ_base={"gunicorn.socket": sock, **HANDSHAKE})


def app_with(view: Any) -> tuple[Flask, MemorySocket]:
    app, routes = DeclaringFlask("outfeed", static_folder=None), Sock()
    app.config.update(SOCK_SERVER_OPTIONS=SERVER_OPTIONS, TESTING=True)
    routes.route("/ws")(view)
    routes.init_app(app)
    return app, MemorySocket()


def test_a_route_without_a_permission_cannot_be_registered() -> None:
    with pytest.raises(UndeclaredRoute, match="/ws"):
        app_with(lambda ws: None)


def test_the_permission_beside_the_function_is_that_of_the_route() -> None:
    @requires(READ, is_connection=True)
    def view(ws: Server) -> None: ...

    app, _ = app_with(view)
    (found,) = (app.view_functions[rule.endpoint] for rule in app.url_map.iter_rules() if rule.rule == "/ws")
    assert (found.permission.scope, found.permission.is_connection) == (READ, True)  # type: ignore[attr-defined]


def test_the_server_gets_the_options_of_the_config_and_the_environ_of_the_request() -> None:
    seen: list[Any] = []

    @requires(READ)
    def view(ws: Server) -> None:
        seen.extend([ws.environ is request.environ, type(ws.thread), type(ws.event), ws.sock])

    app, sock = app_with(view)
    served_by(app, sock)
    assert seen == [True, NoThread, ReadingEvent, sock]


def test_bytes_sent_after_the_function_go_only_to_the_memory_socket() -> None:
    @requires(READ)
    def view(ws: Server) -> None:
        ws.sock.take_sent()

    app, sock = app_with(view)
    served_by(app, sock)
    assert sock.take_sent() == b"\x88\x02\x03\xe8", "Flask-Sock closes with 1000 what is not closed yet"


def test_any_error_except_the_librarys_own_reaches_flask() -> None:
    """`connection.run` lets none pass: Flask would write a 500 page."""

    @requires(READ)
    def view(ws: Server) -> None:
        raise LookupError

    app, sock = app_with(view)
    with pytest.raises(LookupError):
        app.test_client().get("/ws", base_url="ws://x", environ_base={"gunicorn.socket": sock, **HANDSHAKE})
