"""Durable consumers of the client."""

import pytest

from outfeed.client import Client, ConsumerSuperseded, Reset
from tests.client.scripted_feed import EPOCH, RESUBSCRIBED, Close, Feed, event, verdict


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
