"""The feed of the client: each event once and in order."""

import json
import threading

import pytest

from outfeed.client import Client, Cursor, Gap, Reset, retries
from outfeed.client.cursor_file import read_cursor
from outfeed.client.link import socket_url
from outfeed.client.retries import MAX_PAUSE_SECS, Backoff, retry_after
from outfeed.errors import Refused
from tests.client.scripted_feed import EPOCH, RESUBSCRIBED, Answer, Close, Feed, Reader, event, verdict

ODD_CURSORS = ['{"seq": 1e999, "epoch": "e"}', "[" * 100_000, '{"seq": ' + "9" * 5000 + ', "epoch": "e"}', " " * 10**6]


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
