"""Publishing: each event is written once."""

import pytest

from outfeed.client import Client
from outfeed.errors import EventConflict, InvalidEvent, Refused, Unreachable
from tests.client.inbox import EVENT, TAKEN, Inbox
from tests.client.scripted_feed import EPOCH


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
