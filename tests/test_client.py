"""The Python client: every event once and in order, on any connection.

The server is scripted, on the `websockets` library, for cases that a real one cannot produce. Tests on a real server
come last.
"""

import contextlib
import http
import inspect
import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from outfeed.client import Client, ConsumerSuperseded, Cursor, Gap, Reset, retries
from outfeed.client.cursor_file import read_cursor
from outfeed.client.frames import parse_frame
from outfeed.client.link import socket_url
from outfeed.client.retries import MAX_PAUSE_SECS, Backoff, retry_after
from outfeed.errors import ConfigError, EventConflict, InvalidEvent, Refused, Unreachable
from outfeed.events import make_event
from tests.waits import wait_until

EPOCH = "e1"


class Close(tuple):
    """A step of a script: close with this code and reason."""

    __slots__ = ()


class Answer(tuple):
    """A step of a script: refuse the handshake with status and headers."""

    __slots__ = ()


class Raw(str):
    """A step of a script: send this text."""

    __slots__ = ()


RESUBSCRIBED = object()
ODD_CURSORS = ['{"seq": 1e999, "epoch": "e"}', "[" * 100_000, '{"seq": ' + "9" * 5000 + ', "epoch": "e"}', " " * 10**6]
"""In a script: wait for another subscribe frame."""


def verdict(kind="live", after=0, epoch=EPOCH, **more):
    payload = {"channel": "events", "epoch": epoch, "verdict": kind, "after": after, "head": 99, **more}
    return {"type": "subscribed", "payload": payload}


def event(seq, prev=None, **more):
    return {"type": "event", "seq": seq, "prev": seq - 1 if prev is None else prev, "payload": {"id": str(seq), **more}}


class Feed:
    """A server that plays one script per connection.

    It stays silent after the end of the script.
    """

    def __init__(self, *scripts):
        self._scripts = list(scripts)
        self._is_over = threading.Event()
        self.subscriptions = []
        self.tokens = []

    def __enter__(self):
        self._server = serve(self._play, "127.0.0.1", 0, process_request=self._admit)
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._server.shutdown()
        self._thread.join()

    def _admit(self, connection, request):
        self.tokens.append(request.headers.get("Authorization"))
        assert request.path == "/ws"
        if not isinstance(self._scripts[0], Answer):
            return None
        status, *headers = self._scripts.pop(0)
        response = connection.respond(http.HTTPStatus(status), "no")
        response.headers.update(headers[0] if headers else {})
        return response

    def _play(self, connection):
        try:
            self.subscriptions.append(json.loads(connection.recv()))
            for item in self._scripts.pop(0):
                if item is RESUBSCRIBED:
                    self.subscriptions.append(json.loads(connection.recv()))
                elif isinstance(item, Close):
                    connection.close(*item)
                else:
                    connection.send(item if isinstance(item, Raw) else json.dumps(item))
            self._is_over.wait()
        except ConnectionClosed:
            pass  # the client has disconnected; the test checks what it received


class Reader:
    """A feed with all events and texts that it gave."""

    def __init__(self, feed, until, on_told=lambda _: None, **options):
        self.seqs, self.told, self.missing = [], [], []
        self._until = until
        self.feed = Client(feed.url, "secret").follow(
            on_missing=self.missing.append,
            on_connection=lambda text: (self.told.append(text), on_told(text)),
            **options,
        )

    def run(self):
        with self.feed:
            for event in self.feed:
                self.seqs.append(event.seq)
                if event.seq == self._until:
                    break
        return self


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECS", 0.001)


class TestFollowing:
    def test_a_feed_begins_with_the_last_events_and_returns_each_once(self):
        with Feed([verdict(after=3), event(4), event(5), event(4, prev=3), event(5), event(6)]) as feed:
            reader = Reader(feed, until=6, last=10, types=["task.*"]).run()

        assert reader.seqs == [4, 5, 6]
        (subscription,) = feed.subscriptions
        assert (subscription["last"], subscription["types"]) == (10, ["task.*"])
        assert "after" not in subscription
        assert feed.tokens == ["Bearer secret"]

    def test_events_may_share_a_frame(self):
        batch = {"type": "events", "prev": 1, "payload": [{"seq": seq, "id": str(seq)} for seq in (2, 4, 9)]}
        with Feed([verdict(after=1), batch, batch, event(10, prev=9)]) as feed:
            assert Reader(feed, until=10).run().seqs == [2, 4, 9, 10]

    def test_after_a_lost_connection_the_feed_continues_after_its_last_event(self):
        with Feed(
            [verdict(after=0), event(1), event(2), Close((1011, "our fault"))],
            [verdict("resumed", after=2), event(2), event(3)],
        ) as feed:
            reader = Reader(feed, until=3, last=10).run()

        assert reader.seqs == [1, 2, 3]
        assert (feed.subscriptions[1]["after"], feed.subscriptions[1]["epoch"]) == (2, EPOCH)
        assert "last" not in feed.subscriptions[1]

    def test_an_event_counts_as_handled_when_the_next_is_requested(self):
        with Feed([verdict(after=0), event(1), event(2)]) as feed:
            reader = Reader(feed, until=2).run()

        assert reader.seqs == [1, 2]
        assert reader.feed.cursor == Cursor(1, EPOCH)

    def test_a_heartbeat_moves_the_cursor(self):
        with Feed(
            [verdict(after=0), {"type": "heartbeat", "payload": {"cursor": 70}}, Close((1001, ""))],
            [verdict("resumed", after=70), event(71)],
        ) as feed:
            Reader(feed, until=71).run()

        assert feed.subscriptions[1]["after"] == 70

    def test_missing_events_are_requested_and_later_ones_wait(self):
        with Feed(
            [verdict(after=0), event(1), event(5, prev=4), RESUBSCRIBED, event(6), verdict("resumed", after=1)]
            + [event(seq) for seq in range(2, 7)]
        ) as feed:
            reader = Reader(feed, until=6).run()

        assert reader.seqs == [1, 2, 3, 4, 5, 6]
        assert feed.subscriptions[1]["after"] == 1

    def test_between_two_verdicts_nothing_moves_the_cursor(self):
        heartbeat = {"type": "heartbeat", "payload": {"cursor": 5}}
        with Feed(
            [verdict(after=0), event(1), event(5, prev=4), RESUBSCRIBED, heartbeat, Close((1001, ""))],
            [verdict("resumed", after=1), event(2)],
        ) as feed:
            reader = Reader(feed, until=2).run()

        assert reader.seqs == [1, 2]
        assert [subscription.get("after") for subscription in feed.subscriptions] == [None, 1, 1]

    def test_a_cursor_without_an_epoch_takes_the_servers(self):
        with Feed(
            [verdict(after=99), event(100), RESUBSCRIBED, event(101), verdict("resumed", after=41), event(42)]
        ) as feed:
            reader = Reader(feed, until=42, after=41).run()

        assert reader.seqs == [42]
        assert "after" not in feed.subscriptions[0]
        assert (feed.subscriptions[1]["after"], feed.subscriptions[1]["epoch"]) == (41, EPOCH)

    def test_a_feed_of_all_retained_events_needs_no_epoch(self):
        with Feed([verdict("resumed", after=0), event(1)]) as feed:
            Reader(feed, until=1, after=0).run()

        assert feed.subscriptions[0]["after"] == 0

    def test_a_gap_is_reported_and_the_feed_continues(self):
        gap = verdict("gap", after=60, missing={"from": 42, "to": 60})
        with Feed([gap, event(61)]) as feed:
            reader = Reader(feed, until=61, after=41, epoch=EPOCH).run()

        assert reader.missing == [Gap(42, 60)]

    def test_a_reset_is_reported_and_the_new_history_followed(self):
        with Feed(
            [verdict(after=80), event(81), Close((4008, "overtaken"))],
            [verdict("reset", after=5, epoch="e2"), event(6), Close((1001, ""))],
            [verdict("resumed", after=6, epoch="e2"), event(7)],
        ) as feed:
            reader = Reader(feed, until=7).run()

        assert reader.seqs == [81, 6, 7]
        assert reader.missing == [Reset("e2", 5)]
        assert (feed.subscriptions[2]["after"], feed.subscriptions[2]["epoch"]) == (6, "e2")


class TestReconnecting:
    def test_the_feed_waits_as_long_as_a_restarting_server_asks(self):
        with Feed([verdict(), Close((1012, "retry_ms=10"))], [verdict(), event(1)]) as feed:
            reader = Reader(feed, until=1).run()

        assert "The server restarts; trying again in 0.0 s" in reader.told

    @pytest.mark.parametrize("asked", ["9" * 5000, "\xb2", "-1", "1e999", "Mon, 01 Jan 2026 00:00:00 GMT"])
    def test_an_odd_wish_to_wait_ends_nothing(self, asked):
        assert 0 <= retry_after({"Retry-After": asked}) <= MAX_PAUSE_SECS

    @pytest.mark.parametrize(
        "frame",
        [
            {"type": "event"}, {"type": "events", "prev": 0}, {"type": "events", "prev": 0, "payload": 7},
            {"type": "subscribed"}, {"type": "heartbeat", "payload": {"cursor": "x"}}, {"type": "error", "payload": 1},
            {"type": "events", "prev": 0, "payload": [[]]}, {"type": "event", "prev": [], "seq": 1, "payload": {}},
        ],
        ids=str,
    )  # fmt: skip
    def test_a_frame_that_no_feed_sends_is_refused(self, frame):
        with Feed([verdict(), frame]) as feed, pytest.raises(Refused, match="sends a frame that no feed sends"):
            Reader(feed, until=99).run()

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_a_busy_server_is_retried(self, status):
        with Feed(Answer((status,)), Answer((status, {"Retry-After": "0"})), [verdict(), event(1)]) as feed:
            reader = Reader(feed, until=1).run()

        assert len(feed.tokens) == 3
        assert f"The server answers {status}" in reader.told[0]

    def test_a_server_that_is_down_is_retried(self):
        with Feed([verdict(), event(1)]) as feed:
            reader = Reader(feed, until=1, on_told=lambda _: setattr(reader.feed, "url", url))
            reader.feed.url, url = "http://127.0.0.1:1", feed.url
            reader.run()

        assert reader.told[0].startswith("Can't reach http://127.0.0.1:1: ")

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            (Answer((401,)), "OUTFEED_TOKEN"),
            (Answer((403,)), "scope read"),
            (Answer((404,)), "404; is it an Outfeed"),
            ([verdict(), Close((4001, "revoked"))], "signed this token out"),
            ([{"type": "error", "payload": {"code": "invalid_field", "message": "types: bad"}}], "types: bad"),
            (["text"], "does not send a feed"),
        ],
    )
    def test_the_feed_gives_up_after_a_permanent_refusal(self, script, reason):
        with Feed(script) as feed, pytest.raises(Refused, match=reason) as refusal:
            Reader(feed, until=None).run()

        assert "secret" not in str(refusal.value)

    def test_pauses_grow_to_a_limit_and_are_spread_out(self, monkeypatch):
        monkeypatch.setattr(retries, "FIRST_PAUSE_SECS", 0.5)
        ladders = [[backoff.next() for _ in range(12)] for backoff in (Backoff() for _ in range(200))]

        for step, pauses in enumerate(zip(*ladders, strict=True)):
            ceiling = min(retries.MAX_PAUSE_SECS, 0.5 * 2**step)
            assert max(pauses) <= ceiling
            assert min(pauses) < ceiling / 4
            assert max(pauses) > ceiling * 3 / 4

    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("http://feed.example:8000", "ws://feed.example:8000/ws"),
            ("https://feed.example/", "wss://feed.example/ws"),
            ("wss://feed.example/outfeed", "wss://feed.example/outfeed/ws"),
        ],
    )
    def test_the_socket_address_follows_the_servers_address(self, url, address):
        assert socket_url(url) == address

    @pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "feed.example", "ftp://feed.example", "https://"])
    def test_an_address_without_a_scheme_or_a_host_is_refused_at_once(self, url):
        with pytest.raises(ValueError, match=r"url: must be an address like https://feed\.example"):
            Client(url)

    def test_types_that_are_one_text_are_refused(self):
        with pytest.raises(TypeError, match="types: must be a list of types"):
            Client("https://feed.example").follow(types="task.*")


def nested(depth):
    return "[" * depth + "]" * depth


def frame_of(kind, seq, data):
    fields = f'"id":"{seq}","event_type":"a.b","source":"[{{\\"","data":{data}'
    if kind == "event":
        return f'{{"type":"event","seq":{seq},"prev":{seq - 1},"payload":{{{fields}}}}}'
    return f'{{"type":"events","prev":{seq - 1},"payload":[{{"seq":{seq},{fields}}}]}}'


def called_from(frames_left, call):
    """Return the result of *call* on a stack with few frames left.

    About so many frames are left.
    """
    used = len(inspect.stack(0))

    def descend(count):
        return call() if count <= 0 else descend(count - 1)

    return descend(sys.getrecursionlimit() - used - frames_left)


class TestNesting:
    @pytest.mark.parametrize("kind", ["event", "events"])
    @pytest.mark.parametrize("depth", [65, 400, 990, 3000])
    @pytest.mark.parametrize("frames_left", [900, 110])
    def test_data_that_is_nested_too_deeply_is_its_text_on_any_stack(self, kind, depth, frames_left):
        deep = '{"a [": "\\"]", "b": ' + nested(depth - 1) + "}"
        with (
            Feed([verdict(), Raw(frame_of(kind, 1, deep)), event(2, data={"ok": [1]})]) as feed,
            Client(feed.url).follow() as follow,
        ):
            first = called_from(frames_left, lambda: next(follow))
            second = next(follow)

        assert (first.data, first.source, first.is_flattened) == (deep, '[{"', True)
        assert first.as_dict()["flattened"] is True
        assert (second.data, second.is_flattened) == ({"ok": [1]}, False)
        assert "flattened" not in second.as_dict()

    @pytest.mark.parametrize("kind", ["event", "events"])
    @pytest.mark.parametrize("frames_left", [900, 70])
    def test_accepted_data_is_parsed_on_any_stack(self, kind, frames_left):
        data = f'{{"n": {2**70}, "deep": {nested(63)}}}'
        parsed = called_from(frames_left, lambda: parse_frame(frame_of(kind, 1, data)))

        payload = parsed["payload"] if kind == "event" else parsed["payload"][0]
        assert payload["data"] == json.loads(data)
        assert "flattened" not in payload


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


class TestCursorFile:
    def test_the_cursor_file_has_the_last_handled_event_and_the_next_run_begins_there(self, tmp_path):
        path = tmp_path / "bot.cursor"
        script = [verdict(after=3), event(4), event(5), event(6)]
        with Feed(script, [verdict("resumed", after=4), event(5)]) as feed:
            stored = []
            follow = Client(feed.url).follow(cursor_file=path)
            with follow:
                for shown in follow:
                    stored.append((shown.seq, read_cursor(path)))
                    if shown.seq == 5:
                        break
            Reader(feed, until=5, cursor_file=path).run()

        assert stored == [(4, Cursor(3, EPOCH)), (5, Cursor(4, EPOCH))]
        assert (feed.subscriptions[1]["after"], feed.subscriptions[1]["epoch"]) == (4, EPOCH)
        assert [file.name for file in tmp_path.iterdir()] == ["bot.cursor"]

    def test_an_explicit_ack_writes_the_file_without_another_event(self, tmp_path):
        path = tmp_path / "bot.cursor"
        with Feed([verdict(after=3), event(4), event(5)]) as feed, Client(feed.url).follow(cursor_file=path) as follow:
            next(follow)
            follow.ack()
            assert read_cursor(path) == Cursor(4, EPOCH)
            assert next(follow).seq == 5

    def test_an_existing_file_overrides_the_arguments(self, tmp_path):
        path = tmp_path / "bot.cursor"
        path.write_text(json.dumps({"seq": 41, "epoch": EPOCH}))
        with Feed([verdict("resumed", after=41), event(42)]) as feed:
            Reader(feed, until=42, cursor_file=path, last=100, after=0).run()

        (subscription,) = feed.subscriptions
        assert (subscription["after"], "last" in subscription) == (41, False)

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"seq": 1}', '{"seq": "x", "epoch": "e"}', *ODD_CURSORS])
    def test_a_damaged_file_is_refused_and_named(self, tmp_path, text):
        path = tmp_path / "bot.cursor"
        path.write_text(text)
        with pytest.raises(Refused, match="holds no cursor"):
            Client("http://127.0.0.1:1").follow(cursor_file=path)

    def test_a_gap_whose_callback_raises_is_reported_again(self, tmp_path):
        path = tmp_path / "bot.cursor"
        path.write_text(json.dumps({"seq": 41, "epoch": EPOCH}))
        gap = verdict("gap", after=60, missing={"from": 42, "to": 60})

        def refuse(missing):
            raise LookupError(missing)

        with Feed([gap, event(61)], [gap, event(61)]) as feed:
            with Client(feed.url).follow(cursor_file=path, on_missing=refuse) as follow, pytest.raises(LookupError):
                next(follow)
            assert read_cursor(path) == Cursor(41, EPOCH)
            assert Reader(feed, until=61, cursor_file=path).run().missing == [Gap(42, 60)]

    def test_without_a_callback_missing_events_are_logged(self, caplog):
        with (
            Feed([verdict("reset", after=5, epoch="e2"), event(6)]) as feed,
            Client(feed.url).follow(after=41, epoch=EPOCH) as follow,
        ):
            assert next(follow).seq == 6
        assert "events are missing: the feed has another history now" in caplog.text


def acked(seq):
    return {"type": "acked", "payload": {"seq": seq}}


class TestConsumers:
    def test_ack_waits_for_the_server_and_keeps_events_that_arrive(self):
        with (
            Feed([verdict("resumed", after=3), event(4), RESUBSCRIBED, event(5), acked(4), event(6)]) as feed,
            Client(feed.url).follow(consumer="ops-bot") as follow,
        ):
            follow.ack(next(follow))
            assert [next(follow).seq, next(follow).seq] == [5, 6]

        subscription, ack = feed.subscriptions
        assert (subscription["consumer"], "after" in subscription) == ("ops-bot", False)
        assert ack == {"action": "ack", "seq": 4}

    def test_a_lost_ack_is_sent_again_when_the_server_has_caught_up(self):
        with (
            Feed(
                [verdict("resumed", after=3), event(4), event(5), RESUBSCRIBED, Close((1011, ""))],
                [verdict("resumed", after=3), event(4), event(5), RESUBSCRIBED, acked(5), event(6)],
            ) as feed,
            Client(feed.url).follow(consumer="ops-bot") as follow,
        ):
            assert [next(follow).seq, next(follow).seq] == [4, 5]
            follow.ack()
            assert next(follow).seq == 6

        assert [frame["action"] for frame in feed.subscriptions] == ["subscribe", "ack", "subscribe", "ack"]

    def test_an_ack_whose_answer_was_lost_stays_acked(self):
        with (
            Feed(
                [verdict("resumed", after=3), event(4), RESUBSCRIBED, Close((1011, ""))],
                [verdict("resumed", after=4), RESUBSCRIBED, acked(4), event(5)],
            ) as feed,
            Client(feed.url).follow(consumer="ops-bot") as follow,
        ):
            follow.ack(next(follow))
            assert next(follow).seq == 5

    def test_a_reset_ends_the_wait_for_an_ack(self):
        with Feed(
            [verdict("resumed", after=3), event(4), RESUBSCRIBED, Close((4008, ""))],
            [verdict("reset", after=1, epoch="e2"), event(2)],
        ) as feed:
            missing = []
            with Client(feed.url).follow(consumer="ops-bot", on_missing=missing.append) as follow:
                follow.ack(next(follow))
                assert next(follow).seq == 2

        assert missing == [Reset("e2", 1)]

    @pytest.mark.parametrize("options", [{"consumer": "ops-bot"}, {"after": 3, "epoch": EPOCH}])
    def test_an_ack_beyond_the_returned_events_is_refused_and_moves_nothing(self, options):
        with (
            Feed([verdict("resumed", after=3), event(4), event(5)]) as feed,
            Client(feed.url).follow(**options) as follow,
        ):
            with pytest.raises(ValueError, match="can't ack seq 1,000,000: the feed has returned events up to seq"):
                follow.ack(1_000_000)
            assert next(follow).seq == 4
            before = follow.cursor
            with pytest.raises(ValueError, match="up to seq 4"):
                follow.ack(5)
            assert follow.cursor == before
            assert next(follow).seq == 5

    def test_an_ack_of_an_event_from_before_a_reset_needs_no_answer(self):
        both = {"type": "events", "prev": 3, "payload": [{"seq": seq, "id": str(seq)} for seq in (4, 5)]}
        with (
            Feed(
                [verdict("resumed", after=3), both, RESUBSCRIBED, Close((4008, ""))],
                [verdict("reset", after=1, epoch="e2"), event(2)],
            ) as feed,
            Client(feed.url).follow(consumer="ops-bot") as follow,
        ):
            for _ in range(2):
                follow.ack(next(follow))
            assert next(follow).seq == 2

    def test_a_superseded_consumer_does_not_reconnect(self):
        with (
            Feed([verdict("resumed", after=3), Close((4009, ""))]) as feed,
            Client(feed.url).follow(consumer="ops-bot") as follow,
            pytest.raises(ConsumerSuperseded, match="taken over"),
        ):
            next(follow)

    @pytest.mark.parametrize("options", [{"after": 1}, {"last": 1}, {"cursor_file": "x"}])
    def test_a_consumer_refuses_other_start_positions(self, options):
        with pytest.raises(ValueError, match="checkpoint"):
            Client("http://127.0.0.1:1").follow(consumer="ops-bot", **options)


class TestClosing:
    def test_closing_from_another_thread_ends_the_iteration(self):
        with Feed([verdict(), event(1)]) as feed:
            follow = Client(feed.url).follow()
            assert next(follow).seq == 1
            threading.Timer(0.05, follow.close).start()
            assert list(follow) == []

    def test_closing_ends_a_pause_between_attempts(self, monkeypatch):
        monkeypatch.setattr(retries, "FIRST_PAUSE_SECS", 10_000)
        follow = Client("http://127.0.0.1:1").follow(on_connection=lambda _: follow.close())
        assert list(follow) == []


class Inbox:
    """An HTTP server that gives one answer a request.

    None: it accepts the request and closes the connection.
    """

    def __init__(self, *answers):
        self.answers, self.bodies = list(answers), []

    def __enter__(self):
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                inbox.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answer = inbox.answers.pop(0)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                body = (
                    b"[" * 100_000
                    if body == "deep"
                    else json.dumps(receipts(inbox.bodies[-1]) if body is None else body).encode()
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def receipts(events):
    return [{"id": one["id"], "seq": 1, "epoch": EPOCH} for one in events]


TAKEN = (201, {}, None)
EVENT = {"event_type": "a.b", "source": "s"}


class TestPublishing:
    def test_every_attempt_sends_the_same_ids_and_times(self):
        busy = (503, {"Retry-After": "0"}, {"detail": "busy"})
        with Inbox(None, busy, (429, {}, {}), (500, {}, {}), TAKEN) as inbox, Client(inbox.url) as client:
            receipt = client.publish(EVENT)

        assert len(inbox.bodies) == 5
        assert all(body == inbox.bodies[0] for body in inbox.bodies)
        assert (receipt.id, receipt.epoch) == (inbox.bodies[0][0]["id"], EPOCH)
        assert inbox.bodies[0][0]["timestamp"]

    @pytest.mark.parametrize("body", [{}, [], [1], [{"id": "x"}], "x", 7, "deep"], ids=str)
    def test_what_is_no_receipt_is_refused(self, body):
        refused = pytest.raises(Refused, match="does not answer with a receipt")
        with Inbox((200, {}, body)) as inbox, Client(inbox.url) as client, refused:
            client.publish(EVENT)

    def test_many_events_are_sent_in_batches_and_answered_in_order(self):
        events = [{**EVENT, "id": f"e{n}"} for n in range(2500)]
        with Inbox(TAKEN, TAKEN, TAKEN) as inbox, Client(inbox.url) as client:
            answered = client.publish(events)

        assert [len(body) for body in inbox.bodies] == [1000, 1000, 500]
        assert [receipt.id for receipt in answered] == [event["id"] for event in events]

    def test_a_batch_stays_below_the_servers_limit(self):
        events = [{**EVENT, "data": "x" * 1_500_000} for _ in range(4)]
        with Inbox(TAKEN, TAKEN) as inbox, Client(inbox.url) as client:
            client.publish(events)
        assert [len(body) for body in inbox.bodies] == [2, 2]

    def test_publishing_no_events_sends_nothing(self):
        assert Client("http://127.0.0.1:1").publish([]) == []

    @pytest.mark.parametrize(
        ("answer", "error", "text"),
        [
            ((401, {}, {"detail": "this token is unknown"}), Refused, r"401\): this token is unknown"),
            ((413, {}, {"detail": "too large"}), Refused, "413"),
            ((409, {}, {"detail": "id 'a' is known", "index": 0}), EventConflict, "is known"),
            ((422, {}, {"detail": "event 0: data: bad", "field": "data", "index": 0}), InvalidEvent, "^data: bad$"),
        ],
    )
    def test_a_permanently_rejected_batch_is_not_retried(self, answer, error, text):
        with Inbox(answer) as inbox, Client(inbox.url, "secret") as client, pytest.raises(error, match=text) as refusal:
            client.publish([EVENT])

        assert getattr(refusal.value, "index", 0) == 0
        assert "secret" not in str(refusal.value)

    def test_the_index_counts_from_the_first_batch(self):
        conflict = (409, {}, {"detail": "known", "index": 7})
        with Inbox(TAKEN, conflict) as inbox, Client(inbox.url) as client, pytest.raises(EventConflict) as refusal:
            client.publish([EVENT] * 1100)
        assert refusal.value.index == 1007

    def test_data_that_is_not_json_is_refused_before_anything_is_sent(self):
        with Inbox() as inbox, Client(inbox.url) as client, pytest.raises(InvalidEvent) as refusal:
            client.publish([EVENT, {**EVENT, "data": float("nan")}])
        assert refusal.value.index == 1

    def test_publishing_gives_up_after_its_time_limit(self):
        with Client("http://127.0.0.1:1") as client, pytest.raises(Unreachable, match="sending them again is safe"):
            client.publish(EVENT, give_up_secs=0.05)


class TestRealServer:
    def test_a_bot_gets_events_that_another_program_publishes(self, server):
        with Client(server.url, server.token) as client, client.follow(types=["build.*"], after=0) as follow:
            first = client.publish({"event_type": "build.done", "source": "ci", "data": {"ok": True}, "id": "build-1"})
            again = client.publish({"event_type": "build.done", "source": "ci", "data": {"ok": True}, "id": "build-1"})
            client.publish(
                [{"event_type": "task.created", "source": "ci"}, {"event_type": "build.done", "source": "ci"}]
            )
            seen = [next(follow), next(follow)]
            known = client.publish(make_event("a.b", "s", data=[1], max_event_bytes=100)[0])
            with Client(server.url, "outfeed_wrong") as stranger, pytest.raises(Refused, match="401"):
                stranger.publish(EVENT)

        assert (first, known.seq) == (again, 4)
        assert [one.seq for one in seen] == [first.seq, 3]
        assert (seen[0].id, seen[0].data, seen[0].task_id) == ("build-1", {"ok": True}, None)

    def test_a_consumer_continues_after_its_acknowledged_event(self, server):
        with Client(server.url, server.token) as client:
            events = [{**EVENT, "data": n} for n in range(3)]
            with client.follow(consumer="ops-bot", on_connection=lambda _: client.publish(events)) as follow:
                seen = [next(follow) for _ in range(3)]
                follow.ack(seen[1])
            with client.follow(consumer="ops-bot") as follow:
                server.kill()
                server.start()
                again = next(follow)
                follow.ack()
                receipt = client.publish(EVENT)
                assert next(follow).id == receipt.id

        assert [one.data for one in seen] == [0, 1, 2]
        assert again == seen[2]

    def test_a_killed_bot_continues_at_the_position_in_its_file(self, server, tmp_path):
        command = [sys.executable, "-c", BOT, server.url, server.token, str(tmp_path)]
        for life in range(3):
            with Client(server.url, server.token) as client:  # it may handle all events before it is killed
                client.publish([{**EVENT, "id": f"e{n:03}"} for n in range(100 * life, 100 * life + 100)])
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bot:
                seen = [bot.stdout.readline() for _ in range(40)]
                bot.kill()
            assert all(seen)

        ids = (tmp_path / "handled").read_text().split()
        assert list(dict.fromkeys(ids)) == sorted(set(ids))  # none missing, in order
        assert sorted(set(ids)) == [f"e{n:03}" for n in range(len(set(ids)))]
        assert len(ids) - len(set(ids)) <= 3  # one a kill: handled, and not yet in the file


ROOT = Path(__file__).parents[1]
BOT = """
import sys
from outfeed.client import Client
url, token, folder = sys.argv[1:]
with open(folder + "/handled", "a", buffering=1) as handled:
    for event in Client(url, token).follow(after=0, cursor_file=folder + "/bot.cursor"):
        handled.write(event.id + "\\n")
        print(event.id, flush=True)
"""
