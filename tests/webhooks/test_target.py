"""One post: bounded in time, size and address, over verified TLS."""

import contextlib
import itertools
import socket
import ssl
import threading
import time
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from outfeed import clock
from outfeed.webhooks import transport
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.target import TOTAL_SECS, Target, check_url
from tests.certificate import make_certificate
from tests.receiver import Receiver, Reply
from tests.server import free_port
from tests.waits import wait_until

LOOPBACK = Allowlist.parse("127.0.0.0/8, localhost")


@contextlib.contextmanager
def target(url, **options):
    made = Target(url, LOOPBACK, **options)
    try:
        yield made
    finally:
        made.close()


def post(url, **options):
    with target(url, **options) as one:
        return one.post(b"{}", {"webhook-id": "1"})


@contextlib.contextmanager
def raw_server(handle):
    """Pass each connection on loopback to *handle*, after its request."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                connection.recv(65536)
                with contextlib.suppress(OSError):
                    handle(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in (listener, *connections):
            each.close()


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    def test_any_2xx_is_delivered(self, status):
        headers = {"content-length": "0"} if status == 204 else {}
        with Receiver(behave=lambda _: Reply(status, headers)) as receiver:
            assert post(receiver.url).is_delivered

    @pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 503])
    def test_other_statuses_fail_and_no_redirect_is_followed(self, status):
        with (
            Receiver() as elsewhere,
            Receiver(behave=lambda _: Reply(status, {"location": elsewhere.url})) as receiver,
        ):
            answer = post(receiver.url)
            assert (answer.status, answer.is_delivered, answer.is_gone) == (status, False, status == 410)
            assert elsewhere.connections == 0

    @pytest.mark.parametrize(
        ("status", "header", "secs"),
        [
            (429, "7", 7), (503, " 120 ", 120), (500, "7", None), (429, "soon", None), (429, "-1", None),
            (429, "1" * 400, 111111111), (503, "", None), (503, "\xb2", None), (503, "\x1b[2J", None),
            (503, f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", None),
            (503, f"Mon, 01 Jan 2026 00:00:00 +{'9' * 20}", None),
            (503, "Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ],
    )  # fmt: skip
    def test_retry_after_is_respected(self, status, header, secs):
        with Receiver(behave=lambda _: Reply(status, {"retry-after": header})) as receiver:
            assert post(receiver.url).retry_after_secs == secs

    def test_retry_after_may_be_a_date(self):
        moment = clock.now() + timedelta(seconds=90)
        with Receiver(behave=lambda _: Reply(429, {"retry-after": format_datetime(moment, usegmt=True)})) as receiver:
            assert 85 < post(receiver.url).retry_after_secs <= 90

    def test_a_closed_or_refused_connection_is_no_answer(self):
        with Receiver(behave=lambda _: Reply(0)) as receiver:
            assert post(receiver.url).status is None
            receiver.stop()
            assert post(receiver.url).error == "Connection refused"


class TestConnections:
    def test_posts_share_one_connection(self):
        with Receiver() as receiver, target(receiver.url) as one:
            assert all(one.post(b"{}", {"webhook-id": str(n)}).is_delivered for n in range(20))
            assert receiver.connections == 1

    def test_a_connection_that_the_target_closed_is_replaced(self):
        with Receiver() as receiver, target(receiver.url) as one:
            assert one.post(b"{}", {"webhook-id": "1"}).is_delivered
            receiver.stop()
            receiver.start()
            assert one.post(b"{}", {"webhook-id": "2"}).is_delivered

    def test_a_connection_is_closed_if_the_answer_asks_for_it(self):
        """A second handle must not keep it open: the target would wait for us."""
        ended = threading.Event()

        def close(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            while connection.recv(100):
                pass
            ended.set()

        with raw_server(close) as url, target(url) as one:
            assert one.post(b"{}", {}).is_delivered
            assert ended.wait(5)

    @pytest.mark.parametrize("length", [b"content-length: 100000000", b"transfer-encoding: chunked"])
    def test_a_long_answer_is_not_read(self, length):
        sent = itertools.count()

        def talk(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
            for _ in sent:
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")

        with raw_server(talk) as url:
            assert post(url).is_delivered
        assert next(sent) * 4096 < 20_000_000, "more than a loopback connection swallows unread"


def trickle(connection):
    """Send an answer a byte at a time: no read times out, but it never ends."""
    connection.settimeout(0.02)
    for byte in b"HTTP/1.1 1" + b"0" * 1000:
        connection.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            while connection.recv(100):
                pass
            return


def stay_silent(connection):
    connection.recv(1)


def connecting_to(port):
    """Return the number of sockets that wait for a connection to *port*."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


class TestTime:
    @pytest.mark.parametrize("handle", [trickle, stay_silent])
    def test_all_of_it_is_bounded(self, handle):
        with raw_server(handle) as url:
            began = time.monotonic()
            answer = post(url, total_secs=0.3)
            assert (answer.status, answer.error) == (None, "no answer within 0.3 s")
            assert time.monotonic() - began < TOTAL_SECS / 2

    def test_another_thread_can_cancel_it(self):
        answers = []
        arrived = threading.Event()

        def hang(connection):
            arrived.set()
            connection.recv(1)

        with raw_server(hang) as url, target(url) as one:
            thread = threading.Thread(target=lambda: answers.append(one.post(b"{}", {})))
            thread.start()
            assert arrived.wait(5)
            one.cancel()
            thread.join(TOTAL_SECS / 2)
            assert not thread.is_alive()
            assert not answers[0].is_delivered
            assert one.post(b"{}", {}).error == "cancelled"

    def test_a_connection_that_is_never_accepted_can_be_cancelled(self, monkeypatch):
        monkeypatch.setattr(transport, "CONNECT_SECS", TOTAL_SECS)
        port = free_port()
        with dropping("127.0.0.1", port), target(f"http://127.0.0.1:{port}/") as one:
            before = connecting_to(port)
            thread = threading.Thread(target=one.post, args=(b"{}", {}))
            thread.start()
            wait_until(lambda: connecting_to(port) > before, "the target waits for the connection")
            one.cancel()
            thread.join(TOTAL_SECS / 4)
            assert not thread.is_alive()


class Names:
    """A name with several addresses of this machine. It counts look-ups."""

    def __init__(self, monkeypatch, *addresses):
        self.lookups = 0
        real = socket.getaddrinfo

        def look_up(host, port, *args, **options):
            self.lookups += host == "several.example"
            found = addresses if host == "several.example" else [host]
            return [each for address in found for each in real(address, port, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)


@contextlib.contextmanager
def dropping(address, port):
    """Have *address* drop new connections, by a full queue in the kernel."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((address, port))
        full.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


class TestAddresses:
    def test_an_address_that_drops_packets_delays_only_the_first_post(self, monkeypatch):
        monkeypatch.setattr(transport, "CONNECT_SECS", 0.5)
        names = Names(monkeypatch, "127.0.0.2", "127.0.0.1")
        closing = {"connection": "close"}
        with Receiver(behave=lambda _: Reply(200, closing)) as receiver, dropping("127.0.0.2", receiver.port):
            took = []
            with target(f"http://several.example:{receiver.port}/") as one:
                for number in range(3):
                    began = time.monotonic()
                    assert one.post(b"{}", {"webhook-id": str(number)}).is_delivered
                    took.append(time.monotonic() - began)
            assert receiver.connections == names.lookups == 3
        assert took[0] >= 0.5
        assert max(took[1:]) < 0.4

    def test_each_address_and_the_answer_get_a_share_of_the_deadline(self, monkeypatch):
        Names(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")
        with (
            Receiver() as receiver,
            dropping("127.0.0.2", receiver.port),
            dropping("127.0.0.3", receiver.port),
            target(f"http://several.example:{receiver.port}/", total_secs=2) as one,
        ):
            began = time.monotonic()
            assert one.post(b"{}", {"webhook-id": "1"}).is_delivered
            assert 0.9 < time.monotonic() - began < 1.8

    def test_an_address_that_refuses_is_followed_by_the_next(self, monkeypatch):
        Names(monkeypatch, "127.0.0.2", "127.0.0.1")
        with Receiver() as receiver, target(f"http://several.example:{receiver.port}/") as one:
            assert one.post(b"{}", {"webhook-id": "1"}).is_delivered
            receiver.stop()
            assert one.post(b"{}", {"webhook-id": "2"}).error == "Connection refused"


def test_a_post_starts_no_thread_and_uses_no_proxy_of_the_environment(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    threads = []
    with (
        Receiver(behave=lambda _: (threads.extend(threading.enumerate()), Reply())[1]) as receiver,
        target(receiver.url) as one,
    ):
        before = set(threading.enumerate())
        assert one.post(b"{}", {"webhook-id": "1"}).is_delivered
        started = {thread.name for thread in set(threads) - before}
    assert len(started) == 1, f"the receiver's own: {started}"


def test_a_target_that_was_closed_can_still_be_cancelled():
    one = Target("http://127.0.0.1:1/", LOOPBACK)
    one.close()
    one.cancel()
    one.cancel()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for `localhost`."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


class TestTls:
    @pytest.fixture
    def receiver(self, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        with Receiver(tls=context) as running:
            yield running

    def test_the_certificate_must_be_trusted_and_match_the_host(self, receiver, certificate, monkeypatch):
        by_name, by_number = f"https://localhost:{receiver.port}/", f"https://127.0.0.1:{receiver.port}/"

        assert "certificate verify failed" in post(by_name).error

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        assert post(by_name).is_delivered
        assert "certificate is not valid for '127.0.0.1'" in post(by_number).error
        assert len(receiver.posts) == 1


@pytest.mark.parametrize(
    "url",
    [
        "", "ops", "ftp://host/", "http://", "http:///x", "//host/x", "file:///etc/passwd", "http://u:p@host/",
        "http://[::1", "https://host/" + "x" * 2000,
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_posted_to_is_refused(url):
    with pytest.raises(ValueError, match=r"URL|http|name or password|characters"):
        check_url(url)


def test_the_path_and_query_of_the_url_are_sent():
    with Receiver() as receiver:
        post(receiver.url)
        assert receiver.posts[0].path == "/hook?key=1"
