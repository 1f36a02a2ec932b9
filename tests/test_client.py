"""The Python client: every event once and in order, whatever happens to the connection.

The server is scripted, on the `websockets` library, where a real one can't be brought to do it; a real one comes last.
"""

import http
import json
import threading

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from app import client as client_module
from app.client import Backoff, Client, Cursor, Gap, Reset, socket_url
from app.errors import Refused

EPOCH = "e1"


class Close(tuple):
    """In a script: close with this code and reason."""

    __slots__ = ()


class Answer(tuple):
    """In a script: refuse the handshake with this status and these headers."""

    __slots__ = ()


RESUBSCRIBED = object()
"""In a script: wait for another subscribe frame."""


def verdict(kind="live", after=0, epoch=EPOCH, **more):
    payload = {"channel": "events", "epoch": epoch, "verdict": kind, "after": after, "head": 99, **more}
    return {"type": "subscribed", "payload": payload}


def event(seq, prev=None, **more):
    return {"type": "event", "seq": seq, "prev": seq - 1 if prev is None else prev, "payload": {"id": str(seq), **more}}


class Feed:
    """A server that plays one script a connection, and stays silent after its end."""

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
                    connection.send(json.dumps(item))
            self._is_over.wait()
        except ConnectionClosed:
            pass  # the client has gone; what it had is what the test looks at


class Reader:
    """A feed, and all that it showed and said."""

    def __init__(self, feed, until, **options):
        self.seqs, self.told, self.missing = [], [], []
        self._until = until
        self.feed = Client(feed.url, "secret").follow(
            on_missing=self.missing.append, on_connection=self.told.append, **options
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
    monkeypatch.setattr(client_module, "FIRST_PAUSE_SECS", 0.001)


class TestFollowing:
    def test_it_begins_with_the_last_events_and_shows_each_once(self):
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

    def test_after_a_lost_connection_it_goes_on_behind_what_it_showed(self):
        with Feed(
            [verdict(after=0), event(1), event(2), Close((1011, "our fault"))],
            [verdict("resumed", after=2), event(2), event(3)],
        ) as feed:
            reader = Reader(feed, until=3, last=10).run()

        assert reader.seqs == [1, 2, 3]
        assert (feed.subscriptions[1]["after"], feed.subscriptions[1]["epoch"]) == (2, EPOCH)
        assert "last" not in feed.subscriptions[1]

    def test_an_event_that_could_not_be_shown_is_asked_for_again(self):
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

    def test_a_hole_is_asked_for_and_what_came_behind_it_waits(self):
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

    def test_all_that_is_kept_needs_no_epoch(self):
        with Feed([verdict("resumed", after=0), event(1)]) as feed:
            Reader(feed, until=1, after=0).run()

        assert feed.subscriptions[0]["after"] == 0

    def test_a_gap_is_told_and_followed_by_what_is_left(self):
        gap = verdict("gap", after=60, missing={"from": 42, "to": 60})
        with Feed([gap, event(61)]) as feed:
            reader = Reader(feed, until=61, after=41, epoch=EPOCH).run()

        assert reader.missing == [Gap(42, 60)]

    def test_a_reset_is_told_and_the_new_history_followed(self):
        with Feed(
            [verdict(after=80), event(81), Close((4008, "overtaken"))],
            [verdict("reset", after=5, epoch="e2"), event(6), Close((1001, ""))],
            [verdict("resumed", after=6, epoch="e2"), event(7)],
        ) as feed:
            reader = Reader(feed, until=7).run()

        assert reader.seqs == [81, 6, 7]
        assert reader.missing == [Reset("e2", 5)]
        assert (feed.subscriptions[2]["after"], feed.subscriptions[2]["epoch"]) == (6, "e2")


class TestComingBack:
    def test_it_waits_as_long_as_a_restarting_server_asks(self):
        with Feed([verdict(), Close((1012, "retry_ms=10"))], [verdict(), event(1)]) as feed:
            reader = Reader(feed, until=1).run()

        assert "The server restarts; trying again in 0.0 s" in reader.told

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_a_server_that_is_busy_is_asked_again(self, status):
        with Feed(Answer((status,)), Answer((status, {"Retry-After": "0"})), [verdict(), event(1)]) as feed:
            reader = Reader(feed, until=1).run()

        assert len(feed.tokens) == 3
        assert f"The server answers {status}" in reader.told[0]

    def test_a_server_that_is_down_is_tried_again(self):
        with Feed([verdict(), event(1)]) as feed:
            reader = Reader(feed, until=1)
            reader.feed.url, url = "http://127.0.0.1:1", feed.url
            reader.feed._on_connection = lambda text: (reader.told.append(text), setattr(reader.feed, "url", url))
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
            (["text"], "no feed"),
        ],
    )
    def test_it_gives_up_where_trying_again_is_no_use(self, script, reason):
        with Feed(script) as feed, pytest.raises(Refused, match=reason) as refusal:
            Reader(feed, until=None).run()

        assert "secret" not in str(refusal.value)

    def test_pauses_grow_to_a_limit_and_are_spread_out(self, monkeypatch):
        monkeypatch.setattr(client_module, "FIRST_PAUSE_SECS", 0.5)
        ladders = [[backoff.next() for _ in range(12)] for backoff in (Backoff() for _ in range(200))]

        for step, pauses in enumerate(zip(*ladders, strict=True)):
            ceiling = min(client_module.MAX_PAUSE_SECS, 0.5 * 2**step)
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
    def test_the_socket_is_where_the_server_is(self, url, address):
        assert socket_url(url) == address
