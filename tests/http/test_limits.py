"""Limits: the counted address, connections at once and calls a minute."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType

import pytest

from outfeed import clock
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.admission import Admission, RateLimiter
from outfeed.http.app import create_app
from outfeed.http.proxies import Proxies, client_key
from tests.http.visitors import bearer


class TestProxies:
    @pytest.mark.parametrize(("peer", "forwarded_for", "client"), [
        ("192.0.2.9", None, "192.0.2.9"),
        ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.5, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.5, 198.51.100.1, 10.0.0.2,10.0.0.3", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:5678", "198.51.100.1"),
        ("10.0.0.1", '"[2001:db8::7]:5678"', "2001:db8::7"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:192.0.2.9", "198.51.100.1", "192.0.2.9"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
    ])  # fmt: skip
    def test_the_client_is_the_rightmost_untrusted_address(self, peer, forwarded_for, client):
        environ = {"REMOTE_ADDR": peer} | ({} if forwarded_for is None else {"HTTP_X_FORWARDED_FOR": forwarded_for})

        Proxies(["10.0.0.0/8", "fd00::/8"]).correct(environ)

        assert environ["REMOTE_ADDR"] == client

    @pytest.mark.parametrize(("peer", "proto", "scheme"), [
        ("10.0.0.1", "https", "https"), ("192.0.2.9", "https", "http"), ("10.0.0.1", "gopher", "http"),
        ("10.0.0.1", "http, https", "https"),
    ])  # fmt: skip
    def test_only_a_trusted_proxy_sets_the_scheme(self, peer, proto, scheme):
        environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_PROTO": proto, "wsgi.url_scheme": "http"}

        Proxies(["10.0.0.0/8"]).correct(environ)

        assert environ["wsgi.url_scheme"] == scheme

    def test_the_middleware_is_a_plain_function_which_takes_less_of_each_threads_stack(self):
        assert isinstance(create_app(Settings()).wsgi_app, FunctionType)

    def test_one_ipv6_network_is_one_address(self):
        assert client_key("2001:db8:1:2::a") == client_key("2001:db8:1:2:ffff::b") != client_key("2001:db8:1:3::a")
        assert client_key("192.0.2.1") != client_key("192.0.2.2")


class TestAdmission:
    def test_each_address_and_the_server_have_a_limit(self):
        admission = Admission(3, 2)

        assert [admission.acquire("a") for _ in range(3)] == [None, None, "address"]
        assert [admission.acquire("b") for _ in range(2)] == [None, "server"]
        admission.release("a")
        assert admission.acquire("b") is None

    def test_concurrent_clients_stay_within_the_limit(self):
        admission, admitted, start = Admission(50, 0), [], threading.Barrier(16)

        def acquire():
            start.wait()
            for _ in range(20):
                if admission.acquire("a") is None:
                    admitted.append(1)

        threads = [threading.Thread(target=acquire) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(admitted) == 50


class TestRateLimiter:
    @pytest.fixture
    def clock_at(self, monkeypatch):
        """Return a function that sets the monotonic clock."""
        return lambda secs: monkeypatch.setattr(clock, "monotonic", lambda: secs)

    def test_a_minute_begins_with_the_first_call_and_refusals_do_not_count(self, clock_at):
        rates, taken = RateLimiter(), []
        for secs in (1000, 1030, 1031, 1059.5, 1060, 1061, 1062):
            clock_at(secs)
            taken.append(rates.count_call("requests", "a", 2))

        assert taken == [0, 0, 29, 0.5, 0, 0, 58]

    def test_each_client_and_action_has_its_own_count(self, clock_at):
        rates = RateLimiter()
        clock_at(5)

        assert [rates.count_call(*each, 1) for each in (("x", "a"), ("x", "b"), ("y", "a"), ("x", "a"))] == [
            0,
            0,
            0,
            60,
        ]

    def test_counts_of_absent_clients_are_removed(self, monkeypatch):
        moments, rates = iter(range(0, 10_000, 10)), RateLimiter()
        monkeypatch.setattr(clock, "monotonic", lambda: next(moments))
        tracemalloc.start()
        for number in range(1000):
            rates.count_call("x", f"address {number}", 1)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert held < 20_000, "13 clients take 5 KB, and 1000 take 300"

    def test_concurrent_calls_stay_within_the_limit(self):
        rates = RateLimiter()

        with ThreadPoolExecutor(16) as pool:
            taken = list(pool.map(lambda _: rates.count_call("x", "a", 50), range(1000)))

        assert taken.count(0) == 50


@pytest.fixture
def app_of(database):
    made = []

    def make(**settings):
        made.append(create_app(Settings(database=database.path, **settings)))
        return made[-1]

    yield make
    for app in made:
        app.extensions["outfeed"].database.close()


class TestRequestRates:
    def test_each_token_has_its_own_limit_of_requests(self, app_of, database):
        app = app_of(requests_per_minute=5)
        one, other = (bearer(app, account.create_token(database, name, ["read"])) for name in ("one", "other"))

        answers = [one("GET", "/api/events").status_code for _ in range(7)]

        assert answers == [200] * 5 + [429] * 2
        assert 1 <= int(one("GET", "/api/events").headers["Retry-After"]) <= 60
        assert other("GET", "/api/events").status_code == 200

    def test_connection_attempts_are_counted_before_the_token_is_looked_up(self, app_of, database):
        app = app_of(connection_attempts_per_minute=5)
        anonymous, good = bearer(app, "outfeed_x"), bearer(app, account.create_token(database, "good", ["read"]))
        for _ in range(5):
            assert anonymous("GET", "/ws").status_code == 401

        assert good("GET", "/ws").status_code == 429
        assert good("GET", "/api/feed/stream").status_code == 429
        assert good("GET", "/api/events").status_code == 200
        assert good("GET", "/ws", environ_base={"REMOTE_ADDR": "192.0.2.7"}).status_code == 426

    def test_a_forged_address_has_no_effect(self, app_of):
        app = app_of(connection_attempts_per_minute=3)
        anonymous = bearer(app, None)

        answers = [anonymous("GET", "/ws", {"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in range(5)]

        assert answers == [401] * 3 + [429] * 2

    def test_a_failed_handshake_releases_its_slot(self, app_of, database):
        app = app_of(max_connections_per_ip=1)
        good = bearer(app, account.create_token(database, "good", ["read"]))
        handshake = {
            "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        for _ in range(3):
            assert good("GET", "/ws", handshake).status_code == 501  # this test's client has no socket

        assert app.extensions["outfeed"].admission.acquire("127.0.0.1") is None


def test_a_thousand_token_lookups_take_less_than_two_seconds(database):
    import time

    secrets = [account.create_token(database, f"client-{number}", ["read"]) for number in range(100)]
    began = time.process_time()

    for _ in range(10):
        assert all(account.find_token(database, secret) for secret in secrets)

    assert time.process_time() - began < 2  # with scrypt: 96 s
