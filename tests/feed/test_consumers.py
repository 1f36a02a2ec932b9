"""Consumers of one process: claims, superseded connections, costs."""

from __future__ import annotations

import threading
from collections.abc import Collection

import pytest

from outfeed.principal import Principal
from tests.feed.socket_harness import Client, Feed

OTHER = Principal("other", ("read",), "token:other")


@pytest.fixture
def feed() -> Feed:
    return Feed()


def claim_of_another(feed: Feed, name: str) -> None:
    """Claim in the name of a newer connection of another process."""
    feed.checkpoints.claim(name, Principal("viewer", ("admin",), "token:elsewhere"))


def refusal(client: Client, name: str) -> str:
    client.say(action="subscribe", channel="events", consumer=name)
    frame = client.take_message()
    assert frame["type"] == "error", frame
    return str(frame["payload"]["code"])


def test_a_refused_claim_leaves_the_holder_and_the_claimants_other_consumer(feed: Feed) -> None:
    feed.checkpoints.claim("theirs", OTHER)
    with Client(feed) as ops:
        ops.subscribe(consumer="ops")
        assert refusal(ops, "theirs") == "forbidden_consumer"
        feed.write(1)
        assert ops.follow(1) == [1]
        ops.say(action="ack", seq=1)
        assert ops.take_message() == {"type": "acked", "payload": {"seq": 1}}
        assert ops.subscriber.ending is None
        assert feed.checkpoints.generations(["ops", "theirs"]) == {"ops": 1, "theirs": 1}


def test_a_refused_claimants_other_consumer_can_still_be_superseded(feed: Feed) -> None:
    feed.checkpoints.claim("theirs", OTHER)
    with Client(feed) as ops, Client(feed) as newer:
        ops.subscribe(consumer="ops")
        refusal(ops, "theirs")
        newer.subscribe(consumer="ops")
        assert ops.subscriber.ending is not None
        assert newer.subscriber.ending is None


def test_a_claim_by_another_process_ends_the_connection_with_the_next_poll(feed: Feed) -> None:
    with Client(feed) as ops, Client(feed) as bot:
        ops.subscribe(consumer="ops")
        bot.subscribe(consumer="bot")
        claim_of_another(feed, "ops")
        feed.relay.poll()
        assert ops.subscriber.ending is not None
        assert bot.subscriber.ending is None


def test_a_poll_reads_only_the_connected_consumers_and_holds_no_lock(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(100):
        feed.checkpoints.claim(f"stored-{n}", OTHER)
    generations = feed.checkpoints.generations
    asked: list[set[str]] = []

    with Client(feed) as ops, Client(feed) as bot:
        ops.subscribe(consumer="ops")

        def ask(names: Collection[str]) -> dict[str, int]:
            asked.append(set(names))
            joining = threading.Thread(target=bot.subscribe, kwargs={"consumer": "bot"})
            joining.start()
            joining.join(5)
            assert not joining.is_alive(), "a claim waits for what a poll looks up"
            return generations(names)

        monkeypatch.setattr(feed.checkpoints, "generations", ask)
        feed.relay.poll()
        monkeypatch.undo()
        assert asked == [{"ops"}]
        assert bot.subscriber.ending is None
        feed.relay.poll()
        assert ops.subscriber.ending is None


def test_a_connection_that_claims_again_during_a_poll_is_not_closed(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = feed.checkpoints.generations
    with Client(feed) as ops:
        ops.subscribe(consumer="ops")

        def claim_then_ask(names: Collection[str]) -> dict[str, int]:
            monkeypatch.undo()
            ops.subscribe(consumer="ops")
            return generations(names)

        monkeypatch.setattr(feed.checkpoints, "generations", claim_then_ask)
        feed.relay.poll()
        assert feed.checkpoints.generations(["ops"]) == {"ops": 2}
        assert ops.subscriber.ending is None


def test_a_poll_without_a_consumer_reads_no_generation(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Collection[str]) -> dict[str, int]:
        raise AssertionError("asked")

    monkeypatch.setattr(feed.checkpoints, "generations", refuse)
    with Client(feed) as viewer:
        viewer.subscribe()
        feed.write(1)
        assert viewer.follow(1) == [1]
        assert feed.relay.failure is None
