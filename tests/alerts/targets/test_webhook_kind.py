"""A notice as a webhook, verified by the library of Standard Webhooks."""

from __future__ import annotations

from typing import Any

from outfeed.alerts.targets import AlertTarget, StoredTargets
from outfeed.alerts.targets.kinds import KINDS
from outfeed.config import Settings
from tests.alerts.targets.notices import HOSTILE, USUAL
from tests.receiver import SECRET, Receiver


def test_a_notice_is_signed_and_has_the_event_as_its_id(database: Any) -> None:
    stored = StoredTargets(database, Settings(webhook_allow="127.0.0.1"))
    with Receiver() as receiver:
        target = AlertTarget("ops", "webhook", KINDS["webhook"].checked({"url": receiver.url, "secret": SECRET}))
        assert stored.send(target, USUAL).is_delivered
        assert stored.send(target, USUAL).is_delivered
    assert receiver.problems == []  # of signatures, and of a repeated id with another body
    first, second = receiver.posts
    assert (first.id, second.is_first) == (USUAL.event_id, False)
    assert first.body["type"] == "alert.raised"
    assert first.body["timestamp"] == USUAL.occurred_at
    assert first.body["data"] == {
        "id": USUAL.event_id, "rule": "payments", "title": USUAL.title, "text": USUAL.text, "level": "error",
        "count": 12, "url": USUAL.url, "event": USUAL.matched,
    }  # fmt: skip
    assert "SECRET" not in f"{target}"


def test_an_id_and_texts_of_an_attacker_fit_headers_and_body(database: Any) -> None:
    stored = StoredTargets(database, Settings(webhook_allow="127.0.0.1"))
    with Receiver() as receiver:
        target = AlertTarget("ops", "webhook", KINDS["webhook"].checked({"url": receiver.url, "secret": SECRET}))
        assert stored.send(target, HOSTILE).is_delivered
    (post,) = receiver.posts
    assert receiver.problems == []
    assert len(post.id) == 64
    assert "bcc" not in post.headers
