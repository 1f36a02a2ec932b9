"""`outfeed tail`: every event once and in order, whatever happens to the connection.

The server is scripted, on the `websockets` library, where a real one can't be brought to do it; a real one comes last.
"""

import http
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from app.cli import follow
from app.cli.follow import Cursor, Follower, Refused
from tests.harness import wait_until

ROOT = Path(__file__).parents[2]
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


class Enough(Exception):
    """Raised by `show` after the event a test waits for."""


class Reader:
    """A Follower, and all that it showed and said."""

    def __init__(self, feed, until, **options):
        self.seqs, self.told, self.warned = [], [], []
        self._until = until
        self.follower = Follower(feed.url, "secret", self._show, self.told.append, self.warned.append, **options)

    def _show(self, shown):
        self.seqs.append(shown["seq"])
        if shown["seq"] == self._until:
            raise Enough

    def run(self):
        with pytest.raises(Enough):
            self.follower.run()
        return self


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch):
    monkeypatch.setattr(follow, "FIRST_PAUSE_SECS", 0.001)


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
        assert reader.follower.cursor == Cursor(1, EPOCH)

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
            reader = Reader(feed, until=42, cursor=Cursor(41)).run()

        assert reader.seqs == [42]
        assert "after" not in feed.subscriptions[0]
        assert (feed.subscriptions[1]["after"], feed.subscriptions[1]["epoch"]) == (41, EPOCH)

    def test_all_that_is_kept_needs_no_epoch(self):
        with Feed([verdict("resumed", after=0), event(1)]) as feed:
            Reader(feed, until=1, cursor=Cursor(0)).run()

        assert feed.subscriptions[0]["after"] == 0

    def test_a_gap_is_told_and_followed_by_what_is_left(self):
        gap = verdict("gap", after=60, missing={"from": 42, "to": 60})
        with Feed([gap, event(61)]) as feed:
            reader = Reader(feed, until=61, cursor=Cursor(41, EPOCH)).run()

        assert reader.warned == ["GAP: events 42 to 60 were pruned before they could be shown"]

    def test_a_reset_is_told_and_the_new_history_followed(self):
        with Feed(
            [verdict(after=80), event(81), Close((4008, "overtaken"))],
            [verdict("reset", after=5, epoch="e2"), event(6), Close((1001, ""))],
            [verdict("resumed", after=6, epoch="e2"), event(7)],
        ) as feed:
            reader = Reader(feed, until=7).run()

        assert reader.seqs == [81, 6, 7]
        assert [text.split(":")[0] for text in reader.warned] == ["RESET"]
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
            reader.follower.url, url = "http://127.0.0.1:1", feed.url
            reader.follower.tell = lambda text: (reader.told.append(text), setattr(reader.follower, "url", url))
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
            Reader(feed, until=None).follower.run()

        assert "secret" not in str(refusal.value)

    def test_pauses_grow_to_a_limit_and_are_spread_out(self, monkeypatch):
        monkeypatch.setattr(follow, "FIRST_PAUSE_SECS", 0.5)
        ladders = [[backoff.next() for _ in range(12)] for backoff in (follow.Backoff() for _ in range(200))]

        for step, pauses in enumerate(zip(*ladders, strict=True)):
            ceiling = min(follow.MAX_PAUSE_SECS, 0.5 * 2**step)
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
        assert follow.socket_url(url) == address


class Tail:
    """`outfeed tail` in a process of its own."""

    def __init__(self, server, folder, *arguments):
        self.output, self.remarks = folder / "tail.out", folder / "tail.err"
        environment = {**server.environment, "OUTFEED_TOKEN": server.token}
        with self.output.open("wb") as out, self.remarks.open("wb") as err:
            command = [sys.executable, "-m", "app", "tail", *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def lines(self):
        return self.output.read_text().splitlines()

    def events(self):
        return [json.loads(line) for line in self.lines()]


class TestOnARealServer:
    def test_it_shows_every_event_once_over_a_killed_server(self, server, tmp_path):
        server.log_event("task.created", "before", {"description": "one"})
        with Tail(server, tmp_path, "--json") as tail:
            wait_until(lambda: len(tail.lines()) == 1, "the event from before")
            server.kill()
            server.log_event("task.created", "meanwhile")
            server.start()
            server.log_event("task.created", "afterwards")
            wait_until(lambda: len(tail.lines()) >= 3, "the events of the outage")
            tail.process.send_signal(signal.SIGINT)

            assert tail.process.wait(timeout=15) == 0

        assert [(one["seq"], one["source"]) for one in tail.events()] == [
            (1, "before"),
            (2, "meanwhile"),
            (3, "afterwards"),
        ]
        assert tail.events()[0]["data"] == {"description": "one"}
        assert "Stopped at seq 3. To go on from here: outfeed tail --after 3 --epoch " in tail.remarks.read_text()

    def test_people_get_sentences_and_filters_hold(self, server, tmp_path):
        with Tail(server, tmp_path, "--types", "agent.*, system.error", "--after", "0") as tail:
            server.log_event("task.created", "coordinator", {"description": "not this"})
            server.log_event("agent.joined", "registry", {"name": "Forge"})
            server.log_event("system.error", "monitor", {"message": "disk full"})
            wait_until(lambda: len(tail.lines()) == 2, "two lines")

        assert [line.split("  ", 1)[1] for line in tail.lines()] == [
            "🟢 Agent Forge joined  registry",
            "⚠️ Error: disk full  monitor",
        ]

    def test_without_a_good_token_it_says_so(self, server):
        for token in ({}, {"OUTFEED_TOKEN": "outfeed_wrong"}):
            command = [sys.executable, "-m", "app", "tail"]
            environment = {**os.environ, **server.environment, **token}
            refused = subprocess.run(
                command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=60
            )

            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr.startswith(f"Error: {server.url} refuses ")
            assert "OUTFEED_TOKEN" in refused.stderr
            assert "outfeed_wrong" not in refused.stderr

    def test_it_ends_when_its_reader_has_seen_enough(self, server):
        command = [sys.executable, "-m", "app", "tail", "--json"]
        environment = {**server.environment, "OUTFEED_TOKEN": server.token}
        server.log_event("task.created", "tests")
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert json.loads(process.stdout.readline())["seq"] == 1
            process.stdout.close()
            server.log_event("task.created", "tests")

            assert process.wait(timeout=15) == 0
            assert "Traceback" not in process.stderr.read()
