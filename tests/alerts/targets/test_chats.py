"""Slack, Discord, Teams and ntfy: the documented format of each.

Slack's own SDK checks the blocks, and Microsoft's schema the card. The limits of Discord and ntfy stand here as their
documentation has them.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
from slack_sdk.models.blocks import Block

from outfeed.alerts.targets import AlertTarget, Notice, NoticeKind, StoredTargets
from outfeed.alerts.targets.kinds import KINDS
from outfeed.config import Settings
from outfeed.display import Level
from tests.alerts.targets.chat_receiver import ChatReceiver, texts_in
from tests.alerts.targets.notices import FORBIDDEN, HOSTILE, USUAL
from tests.receiver import Post, Reply


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def slack_problems(body: Any) -> list[str]:
    """docs.slack.dev: incoming webhooks, blocks, and how text is escaped."""
    found = [] if set(body) == {"text", "mrkdwn", "unfurl_links", "unfurl_media", "blocks"} else ["an unknown field"]
    for block in body["blocks"]:
        Block.parse(block).validate_json()
    if not 1 <= len(body["blocks"]) <= 50:
        found.append("1 to 50 blocks")
    markup = [block for block in body["blocks"] if "mrkdwn" in json.dumps(block)]
    found += [f"markup outside of the link: {each}" for each in markup if each["type"] != "context"]
    plain = [text for block in body["blocks"] if block not in markup for text in texts_in(block)]
    loose = re.compile(r"[<>]|&(?!amp;|lt;|gt;)")
    return found + [f"not escaped: {text!r:.80}" for text in [*plain, body["text"]] if loose.search(text)]


def discord_problems(body: Any) -> list[str]:
    """discord.com/developers: execute webhook, and embed limits."""
    found = [] if body["allowed_mentions"] == {"parse": []} else ["mentions are allowed"]
    (embed,) = body["embeds"]
    found += [] if set(embed) <= {"title", "description", "url", "timestamp", "color", "fields"} else ["unknown field"]
    found += [] if 0 <= embed["color"] <= 0xFFFFFF and len(embed["fields"]) <= 25 else ["colour or fields"]
    limits = [(embed["title"], 256), (embed["description"], 4096)]
    for field in embed["fields"]:
        limits += [(field["name"], 256), (field["value"], 1024)]
        found += [] if field["name"] and field["value"] else ["an empty field"]
    found += [f"longer than {limit}: {text:.80}" for text, limit in limits if units(text) > limit]
    found += [] if sum(units(text) for text, _ in limits) <= 6000 else ["more than 6000 characters"]
    return found + [f"markup: {text!r:.80}" for text, _ in limits if re.search(r"(?<!\\)(\\\\)*[*_~`|<@\[\]()#]", text)]


@cache
def card_schema() -> Any:
    text = importlib.resources.files("adaptive_cards").joinpath("schemas/schema-1.4.json").read_text("utf-8")
    return jsonschema_rs.validator_for(json.loads(text))


def teams_problems(body: Any) -> list[str]:
    """learn.microsoft.com: the message of a workflow, and the schema of cards."""
    found = [] if len(json.dumps(body, ensure_ascii=False).encode()) <= 28_000 else ["more than 28 KB"]
    (attachment,) = body["attachments"]
    if (body["type"], attachment["contentType"]) != ("message", "application/vnd.microsoft.card.adaptive"):
        found.append("not a message with a card")
    found += [error.message for error in card_schema().iter_errors(attachment["content"])]
    # A TextBlock and a FactSet have Markdown and functions, a TextRun has not.
    kinds = {each["type"] for each in attachment["content"]["body"]}
    return found + [f"{kind} has markup" for kind in kinds - {"RichTextBlock"}]


def ntfy_problems(body: Any) -> list[str]:
    """docs.ntfy.sh/publish: publish as JSON, and limitations."""
    known = {"topic", "title", "message", "priority", "tags", "click", "sequence_id"}
    found = [f"unknown field {name}" for name in set(body) - known]
    found += [f"not a topic or id: {body[name]}" for name in ("topic", "sequence_id") if not topic(body[name])]
    found += [] if 0 < len(body["message"].encode()) <= 4096 else ["message of 1 to 4096 bytes"]
    found += [] if len(json.dumps(body, ensure_ascii=False).encode()) <= 2 * 4096 else ["body of 8192 bytes"]
    return found + (
        [] if body["priority"] in {1, 2, 3, 4, 5} and isinstance(body["tags"], list) else ["priority, tags"]
    )


def topic(text: str) -> bool:
    return re.fullmatch(r"[-_A-Za-z0-9]{1,64}", text) is not None


CHECKS = {"slack": slack_problems, "discord": discord_problems, "teams": teams_problems, "ntfy": ntfy_problems}


@pytest.fixture
def stored(database: Any) -> StoredTargets:
    return StoredTargets(database, Settings(webhook_allow="127.0.0.1"))


def target_of(kind: str, url: str, **more: str) -> AlertTarget:
    return AlertTarget("ops", kind, KINDS[kind].checked({"url": url, **more}))


@pytest.mark.parametrize("kind", CHECKS)
class TestFormat:
    @pytest.mark.parametrize("notice", [USUAL, HOSTILE], ids=["usual", "hostile"])
    def test_a_notice_fits_the_documented_format(self, stored: StoredTargets, kind: str, notice: Notice) -> None:
        with ChatReceiver(CHECKS[kind]) as service:
            outcome = stored.send(target_of(kind, f"http://127.0.0.1:{service.port}/topic"), notice)
        assert outcome.is_delivered, outcome
        assert service.problems == []
        shown = texts_in(service.posts[0].body)
        assert [text for text in shown if any(sign in text for sign in FORBIDDEN)] == []

    @pytest.mark.parametrize("level", list(Level))
    @pytest.mark.parametrize("reason", list(NoticeKind))
    def test_each_level_and_reason_fits(self, kind: str, level: Level, reason: NoticeKind) -> None:
        notice = Notice("e", reason, "", "t", "", level, None, "2026-11-30T12:00:00Z")
        post = KINDS[kind].post({"url": "https://example.com/topic"}, notice)  # type: ignore[attr-defined]
        assert CHECKS[kind](json.loads(post.body)) == []

    def test_the_title_the_event_and_the_link_are_in_the_message(self, kind: str) -> None:
        post = KINDS[kind].post({"url": "https://example.com/topic"}, USUAL)  # type: ignore[attr-defined]
        shown = "\n".join(texts_in(json.loads(post.body))).replace("\\", "").replace("&amp;", "&")
        for text in (USUAL.title, "Order 17 failed: card declined", "order.failed", "shop", "t-1", "e-17", USUAL.url):
            assert str(text) in shown


def answering(reply: Reply) -> Callable[[Post], Reply]:
    return lambda _: reply


@pytest.mark.parametrize(
    ("status", "headers", "is_final", "pause"),
    [
        (400, {}, True, None), (404, {}, True, None), (410, {}, True, None), (302, {"location": "/x"}, True, None),
        (429, {"retry-after": "7"}, False, 7.0), (429, {}, False, None), (408, {}, False, None),
        (500, {}, False, None), (503, {"retry-after": "120"}, False, 120.0),
    ],
)  # fmt: skip
def test_an_answer_decides_about_the_retry(
    stored: StoredTargets, status: int, headers: dict[str, str], is_final: bool, pause: float | None
) -> None:
    with ChatReceiver(slack_problems, answering(Reply(status, headers))) as service:
        outcome = stored.send(target_of("slack", f"http://127.0.0.1:{service.port}/services/SECRET"), USUAL)
    assert (outcome.is_delivered, outcome.is_final, outcome.retry_after_secs) == (False, is_final, pause)
    assert outcome.error == f"the target answered {status}"


def test_a_refused_connection_and_a_blocked_address_are_retried(database: Any, stored: StoredTargets) -> None:
    refused = stored.send(target_of("slack", "http://127.0.0.1:9/services/SECRET"), USUAL)
    blocked = StoredTargets(database, Settings()).send(target_of("slack", "http://127.0.0.1:9/services/SECRET"), USUAL)
    assert [(each.is_delivered, each.is_final) for each in (refused, blocked)] == [(False, False)] * 2
    assert "is not public" in str(blocked.error)
    assert "SECRET" not in f"{refused}{blocked}"


def test_after_a_cancel_no_notice_is_sent(stored: StoredTargets) -> None:
    with ChatReceiver(slack_problems) as service:
        stored.cancel()
        outcome = stored.send(target_of("slack", f"http://127.0.0.1:{service.port}/"), USUAL)
        assert (outcome.is_delivered, outcome.is_final, service.posts) == (False, False, [])


def test_discord_may_ask_for_a_pause_in_the_body() -> None:
    from outfeed.webhooks.target import Answer

    kind: Any = KINDS["discord"]
    assert kind.outcome(Answer(429, body=b'{"retry_after": 1.5, "global": false}')).retry_after_secs == 1.5
    assert kind.outcome(Answer(429, body=b"<html>")).retry_after_secs is None


def test_a_topic_gets_its_token_and_the_same_sequence_id_in_a_retry(stored: StoredTargets) -> None:
    with ChatReceiver(ntfy_problems) as service:
        target = target_of("ntfy", f"http://127.0.0.1:{service.port}/ops-alerts", token="tk_abc")
        assert stored.send(target, HOSTILE).is_delivered
        assert stored.send(target, HOSTILE).is_delivered
    first, second = service.posts
    assert (first.path, first.headers["authorization"]) == ("/", "Bearer tk_abc")
    assert first.body["topic"] == "ops-alerts"
    assert first.body["sequence_id"] == second.body["sequence_id"]


@pytest.mark.parametrize(
    ("kind", "given", "problem"),
    [
        ("slack", {"url": "hooks.slack.com/services/SECRET"}, "must be an address like"),
        ("slack", {"url": "https://user:SECRET@hooks.slack.com/"}, "must be an address like"),
        ("teams", {"url": "https://x.webhook.office.com/webhookb2/SECRET"}, "retired"),
        ("ntfy", {"url": "https://ntfy.sh/"}, "must end in a topic"),
        ("ntfy", {"url": "https://ntfy.sh/a/SECRET"}, "must end in a topic"),
        ("ntfy", {"url": "https://ntfy.sh/a", "token": "SECRET\r\nx"}, "printable"),
    ],
)
def test_a_setting_that_cannot_work_is_rejected_without_its_secret(
    kind: str, given: dict[str, str], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        KINDS[kind].checked(given)
    assert "SECRET" not in str(caught.value)
