"""Assembly: when a request is complete, and what is left for the next one."""

from __future__ import annotations

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader, LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.message import Request

from outfeed.http.server import assembly
from outfeed.http.server.assembly import Assembly

MAX_BODY_BYTES = 1000
GET = b"GET /a HTTP/1.1\r\nHost: feed\r\n\r\n"
SIZED = b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: z\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
def assembling() -> Assembly:
    return Assembly(Config(), ("192.0.2.1", 1), MAX_BODY_BYTES)


def found(assembling: Assembly, data: bytes) -> list[tuple[str, bytes]]:
    """Feed *data*; return the paths and bodies of the requests that it completes."""
    assembling.feed(data)
    requests = []
    while assembling.advance():
        request = assembling.take()
        assert isinstance(request, Request), request
        requests.append((request.path, request.body.read()))
    return requests


def error(assembling: Assembly, data: bytes) -> Exception:
    assembling.feed(data)
    assert assembling.advance()
    raised = assembling.take()
    assert isinstance(raised, Exception)
    return raised


EXPECTED = [("/a", b""), ("/b", b"hello"), ("/c", b"hello"), ("/ws", b""), ("/a", b"")]
STREAM = GET + SIZED + CHUNKED + UPGRADE + GET


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_requests_are_the_same_wherever_the_bytes_are_cut(assembling: Assembly, cut: int) -> None:
    assert found(assembling, STREAM[:cut]) + found(assembling, STREAM[cut:]) == EXPECTED
    assert len(assembling) == 0


def test_a_request_of_single_bytes_is_complete_with_its_last(assembling: Assembly) -> None:
    for request in (GET, SIZED, CHUNKED):
        *first, last = (request[n : n + 1] for n in range(len(request)))
        assert [found(assembling, byte) for byte in first] == [[]] * len(first)
        assert len(found(assembling, last)) == 1


def test_a_client_that_waits_is_told_once_to_go_on(assembling: Assembly) -> None:
    assert found(assembling, b"POST /b HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n") == []
    assert [assembling.expects_continue(), assembling.expects_continue()] == [True, False]
    assembling.feed(b"hello")
    assert assembling.advance()
    request = assembling.take()
    assert "EXPECT" not in dict(request.headers), "gunicorn would tell it again"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_only_a_client_of_http_1_1_that_says_so_waits(assembling: Assembly, version: bytes) -> None:
    expect = b"Expect: 100-continue\r\n" if version == b"1.0" else b""
    assert found(assembling, b"POST /b HTTP/" + version + b"\r\n" + expect + b"Content-Length: 5\r\n\r\n") == []
    assert not assembling.expects_continue()


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
    ],
    ids=["sized", "chunked"],
)
def test_a_body_over_the_limit_is_not_waited_for(assembling: Assembly, data: bytes) -> None:
    assembling.feed(data)
    assert assembling.advance()
    assert assembling.take().should_close()
    assert assembling.is_cut


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
def test_what_is_wrong_is_handed_on_at_once(assembling: Assembly, data: bytes, kind: type[Exception]) -> None:
    assert isinstance(error(assembling, data), kind)
    assert assembling.is_cut


def test_a_body_of_tiny_chunks_is_refused_before_it_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_CHUNK_OVERHEAD_BYTES", 100)
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert isinstance(error(Assembly(Config(), ("", 1), MAX_BODY_BYTES), head + b"1\r\nx\r\n" * 40), InvalidHeader)
