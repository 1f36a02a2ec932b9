"""Assembly: complete requests, and the bytes kept for the next one."""

from __future__ import annotations

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader, LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.message import Request

from outfeed.http.server import assembly as module
from outfeed.http.server.assembly import Assembly

MAX_BODY_BYTES = 1000
GET = b"GET /a HTTP/1.1\r\nHost: feed\r\n\r\n"
SIZED = b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: z\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
def assembly() -> Assembly:
    return Assembly(Config(), ("192.0.2.1", 1), MAX_BODY_BYTES)


def requests_of(assembly: Assembly, data: bytes) -> list[tuple[str, bytes]]:
    """Feed *data*, and return path and body of each completed request."""
    assembly.feed(data)
    requests = []
    while assembly.advance():
        request = assembly.take()
        assert isinstance(request, Request), request
        requests.append((request.path, request.body.read()))
    return requests


def error(assembly: Assembly, data: bytes) -> Exception:
    assembly.feed(data)
    assert assembly.advance()
    raised = assembly.take()
    assert isinstance(raised, Exception)
    return raised


EXPECTED = [("/a", b""), ("/b", b"hello"), ("/c", b"hello"), ("/ws", b""), ("/a", b"")]
STREAM = GET + SIZED + CHUNKED + UPGRADE + GET


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_requests_are_the_same_for_every_split_of_the_bytes(assembly: Assembly, cut: int) -> None:
    assert requests_of(assembly, STREAM[:cut]) + requests_of(assembly, STREAM[cut:]) == EXPECTED
    assert len(assembly) == 0


def test_a_request_of_single_bytes_is_complete_with_the_last_byte(assembly: Assembly) -> None:
    for request in (GET, SIZED, CHUNKED):
        *first, last = (request[n : n + 1] for n in range(len(request)))
        assert [requests_of(assembly, byte) for byte in first] == [[]] * len(first)
        assert len(requests_of(assembly, last)) == 1


def test_a_client_that_expects_continue_gets_it_once(assembly: Assembly) -> None:
    assert requests_of(assembly, b"POST /b HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n") == []
    assert [assembly.expects_continue(), assembly.expects_continue()] == [True, False]
    assembly.feed(b"hello")
    assert assembly.advance()
    request = assembly.take()
    assert "EXPECT" not in dict(request.headers), "gunicorn would tell it again"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_only_a_client_of_http_1_1_can_expect_continue(assembly: Assembly, version: bytes) -> None:
    expect = b"Expect: 100-continue\r\n" if version == b"1.0" else b""
    assert requests_of(assembly, b"POST /b HTTP/" + version + b"\r\n" + expect + b"Content-Length: 5\r\n\r\n") == []
    assert not assembly.expects_continue()


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
    ],
    ids=["sized", "chunked"],
)
def test_a_body_over_the_limit_completes_its_request_at_once(assembly: Assembly, data: bytes) -> None:
    assembly.feed(data)
    assert assembly.advance()
    assert assembly.take().should_close()
    assert assembly.is_cut


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET /" + b"a" * 5000, LimitRequestLine),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 900_000, LimitRequestHeaders),
        (b"nonsense\r\n\r\n", ParseException),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", InvalidHeader),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", InvalidHeader),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", InvalidHeader),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n", InvalidHeader),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", InvalidHeader),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 5000, InvalidHeader),
    ],
)
def test_an_error_is_returned_at_once(assembly: Assembly, data: bytes, kind: type[Exception]) -> None:
    assert isinstance(error(assembly, data), kind)
    assert assembly.is_cut


def test_a_body_of_tiny_chunks_is_rejected_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_OVERHEAD_BYTES", 100)
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert isinstance(error(Assembly(Config(), ("", 1), MAX_BODY_BYTES), head + b"1\r\nx\r\n" * 40), InvalidHeader)
