"""Proxies of the environment: the client uses them as other programs do."""

import contextlib
import socket
import threading

import pytest

from outfeed.client import Client
from outfeed.errors import ConfigError, Unreachable
from tests.client.inbox import EVENT, TAKEN, Inbox
from tests.client.scripted_feed import Feed, event, verdict
from tests.waits import wait_until


class Proxy:
    """A proxy that counts its connections and closes them."""

    def __init__(self):
        self.came = 0

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
                self.came += 1


VARIABLES = ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "no_proxy")


class TestProxies:
    @pytest.fixture(autouse=True)
    def none_of_the_machine(self, monkeypatch):
        for name in (*VARIABLES, "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_a_token_for_this_machine_is_sent_to_no_proxy(self, monkeypatch, host, variable):
        with Proxy() as proxy, Feed([verdict(), event(1)]) as feed, Inbox(TAKEN) as inbox:
            monkeypatch.setenv(variable, proxy.url)
            with Client(feed.url.replace("127.0.0.1", host), "secret").follow() as follow:
                assert next(follow).seq == 1
            with Client(inbox.url.replace("127.0.0.1", host), "secret") as client:
                client.publish(EVENT)

            assert proxy.came == 0

    def test_an_unusable_proxy_does_not_matter_for_this_machine(self, monkeypatch):
        monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
        with Feed([verdict(), event(1)]) as feed, Inbox(TAKEN) as inbox:
            with Client(feed.url).follow() as follow:
                assert next(follow).seq == 1
            with Client(inbox.url) as client:
                client.publish(EVENT)

    @pytest.mark.parametrize("scheme", ["socks", "gopher", "socks5"])
    @pytest.mark.parametrize(
        ("variable", "use"),
        [
            ("HTTP_PROXY", lambda client: next(client.follow())),
            ("HTTP_PROXY", lambda client: client.publish(EVENT)),
            ("ALL_PROXY", lambda client: client.publish(EVENT)),
        ],
        ids=["follow", "publish", "publish, all"],
    )
    def test_an_unusable_proxy_is_named_for_other_machines(self, monkeypatch, scheme, variable, use):
        monkeypatch.setenv(variable, f"{scheme}://me:hidden@127.0.0.1:9")
        with pytest.raises(ConfigError, match=f"^{variable}: names a proxy that can't be used for") as problem:
            use(Client("http://feed.example"))
        assert "hidden" not in str(problem.value)

    def test_a_proxy_that_closes_the_connection_is_named(self, monkeypatch):
        with Proxy() as proxy, Client("http://feed.example") as client:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            told = []
            follow = client.follow(on_connection=lambda text: (told.append(text), follow.close()))
            assert list(follow) == []
            with pytest.raises(Unreachable, match="through the proxy of HTTP_PROXY"):
                client.publish(EVENT, give_up_secs=0)
            wait_until(lambda: proxy.came == 2, "both came")
        assert told[0].startswith("Can't reach http://feed.example through the proxy of HTTP_PROXY: ")

    def test_a_proxy_for_other_hosts_is_not_used(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "socks://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "feed.example")

        def no_name_server(*_, **__):
            raise socket.gaierror("no name server is asked")

        monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
        told = []
        follow = Client("http://feed.example").follow(on_connection=lambda text: (told.append(text), follow.close()))
        assert list(follow) == []
        assert "proxy" not in told[0]
