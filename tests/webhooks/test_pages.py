"""/admin/webhooks: each action, its event, and input that is refused."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from outfeed import list_events, log_event
from outfeed.config import Settings
from outfeed.events import Event
from outfeed.http.app import create_app
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery_log import store as delivery_log
from outfeed.webhooks.delivery_log.store import DeliveryLog
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import Answer
from tests.http.visitors import Visit, show_tokens_and_names, signed_in, text_of
from tests.receiver import SECRET, Receiver

URL = "http://127.0.0.1:9/hook"
PRIVATE = f"{URL}?key=private"


@pytest.fixture
def app(database: Database) -> Flask:
    app = create_app(Settings(database=database.path, webhook_allow="127.0.0.1"))
    show_tokens_and_names(app)
    return app


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def add(database: Database, url: str = PRIVATE) -> webhook.Webhook:
    webhook.add(database, "ops", url, types=("a.*",), secret=SECRET, batch=0)
    return webhook.find(database, "ops")


def fail(database: Database) -> None:
    """Write an event that the webhook's target has rejected."""
    log_event("a.b", "tests", id="first", data={"n": 1})
    page = Outbox(database, 65536).read_after(0, 100)
    items = [item for item in page.items if item.event_type == "a.b"]
    log = DeliveryLog(database)
    message = Message.of_event(page.window.epoch, items[0], {})
    log.add("ops", page.window.epoch, items, message, Answer(422, body=b"<b>no such field</b>"), 0.1)
    log.write()
    lease = webhook.claim(database, "ops")
    assert lease is not None
    lease.failed(422, "the target answered 422")


def follow(visit: Visit, response: TestResponse) -> str:
    """Return the text of the page that an action leads to."""
    assert response.status_code == 303, text_of(response)
    return text_of(visit("GET", response.location))


def event_of(visit: Visit, event_type: str) -> Event:
    """Return the one event of that type. The visitor has done it."""
    (event,) = list_events(f"access.webhook_{event_type}")
    assert event.data["by"] == f"user:{visit.name}"  # type: ignore[attr-defined]
    return event


class TestAdding:
    def test_the_secret_is_shown_once_and_the_event_has_the_principal(
        self, operator: Visit, database: Database
    ) -> None:
        form = {"name": "ops", "url": URL, "types": "task.*, x.y", "on_rejection": "skip", "batch": "50"}
        page = operator("POST", "/admin/webhooks", data=form)

        found = webhook.find(database, "ops")
        assert found[:5] == ("ops", URL, ("task.*", "x.y"), found.secret, 50)
        assert (page.status_code, found.on_rejection) == (200, "skip")
        assert found.secret in page.text
        assert found.secret not in operator("GET", "/admin/webhooks").text + operator("GET", "/admin/webhooks/ops").text
        assert event_of(operator, "added").data["name"] == "ops"

    def test_a_given_secret_is_not_shown(self, operator: Visit, database: Database) -> None:
        form = {"name": "ops", "url": URL, "on_rejection": "retry", "secret": SECRET}
        answer = operator("POST", "/admin/webhooks", data=form)

        assert "Webhook ops is active." in follow(operator, answer)
        assert webhook.find(database, "ops").secret == SECRET

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name": "a b"}, "A name has up to 55"),
            ({"name": "other"}, "already a webhook named 'other'"),
            ({"url": "ftp://x/"}, "Must begin with http"),
            ({"url": "http://u:p@127.0.0.1/"}, "must not contain a name or password".capitalize()),
            ({"url": "http://127.0.0.2/"}, "OUTFEED_WEBHOOK_ALLOW"),
            ({"url": "http://169.254.169.254/latest"}, "OUTFEED_WEBHOOK_ALLOW"),
            ({"types": "*"}, "types"),
            ({"batch": "0"}, "a number from 1 to 1,000"),
            ({"batch": "x"}, "a number from 1 to 1,000"),
            ({"on_rejection": "drop"}, "is not a valid"),
            ({"secret": "whsec_short"}, "A secret is 24 to 64 bytes"),
            ({"name": ""}, "A name has up to 55"),
        ],
    )
    def test_bad_input_is_named_and_adds_nothing(
        self, operator: Visit, database: Database, changes: dict[str, str], said: str
    ) -> None:
        webhook.add(database, "other", URL, types=(), secret=SECRET, batch=0)
        form = {"name": "ops", "url": URL, "types": "", "on_rejection": "retry", "batch": "", "secret": "", **changes}
        page = operator("POST", "/admin/webhooks", data=form)

        assert page.status_code == 422
        assert said.lower() in text_of(page).lower()
        assert "aria-invalid" in page.text or "on_rejection" in changes
        assert [each.name for each in webhook.list_webhooks(database)] == ["other"]
        assert "whsec_short" not in page.text


class TestChanging:
    def test_an_edit_keeps_a_hidden_address_and_counts_changed_fields_only(
        self, operator: Visit, database: Database
    ) -> None:
        before = add(database)
        page = operator("GET", "/admin/webhooks/ops")
        assert "key=private" not in page.text
        form = {"name": "ops", "url": "", "types": "a.*, b.*", "on_rejection": "retry"}

        assert "Changed webhook ops." in follow(operator, operator("POST", "/admin/webhooks/edit", data=form))
        after = webhook.find(database, "ops")
        assert (after.url, after.types, after.on_rejection) == (before.url, ("a.*", "b.*"), before.on_rejection)
        assert event_of(operator, "changed").data["fields"] == ["types"]
        operator("POST", "/admin/webhooks/edit", data=form)
        assert len(list_events("access.webhook_changed")) == 1, "an equal form changes nothing"

    def test_an_edit_checks_the_address(self, operator: Visit, database: Database) -> None:
        before = add(database)
        form = {"name": "ops", "url": "http://10.0.0.1/", "types": "", "on_rejection": "retry"}
        page = operator("POST", "/admin/webhooks/edit", data=form)

        assert page.status_code == 422
        assert "OUTFEED_WEBHOOK_ALLOW" in text_of(page)
        assert webhook.find(database, "ops") == before

    def test_pause_and_resume(self, operator: Visit, database: Database) -> None:
        add(database)
        assert "ops is paused" in follow(operator, operator("POST", "/admin/webhooks/pause", data={"name": "ops"}))
        assert webhook.find(database, "ops").state == "paused"
        event_of(operator, "paused")
        assert "ops resumes after" in follow(operator, operator("POST", "/admin/webhooks/resume", data={"name": "ops"}))
        assert webhook.find(database, "ops").state == "active"
        event_of(operator, "resumed")

    def test_a_rotation_asks_first_and_shows_the_new_secret_once(self, operator: Visit, database: Database) -> None:
        add(database)
        asked = operator("POST", "/admin/webhooks/rotate", data={"name": "ops"})
        assert "Give ops a new secret?" in text_of(asked)
        assert webhook.find(database, "ops").secret == SECRET

        page = operator("POST", "/admin/webhooks/rotate", data={"name": "ops", "confirmed": "yes"})
        found = webhook.find(database, "ops")
        assert found.secrets == (found.secret, SECRET)
        assert found.secret in page.text
        assert SECRET not in page.text
        event_of(operator, "rotated")

    def test_a_removal_asks_first(self, operator: Visit, database: Database) -> None:
        add(database)
        asked = text_of(operator("POST", "/admin/webhooks/remove", data={"name": "ops"}))
        assert "Remove ops?" in asked
        assert "key=private" not in asked
        assert webhook.list_webhooks(database) != []

        answer = operator("POST", "/admin/webhooks/remove", data={"name": "ops", "confirmed": "yes"})
        assert "Removed webhook ops." in follow(operator, answer)
        assert webhook.list_webhooks(database) == []
        event_of(operator, "removed")

    @pytest.mark.parametrize("action", ["edit", "pause", "resume", "test", "send-again", "rotate", "skip", "remove"])
    def test_an_unknown_webhook_is_not_found(self, operator: Visit, action: str) -> None:
        assert operator("POST", f"/admin/webhooks/{action}", data={"name": "unknown"}).status_code == 404


class TestPosting:
    def test_a_test_shows_the_answer(self, operator: Visit, database: Database, receiver: Receiver) -> None:
        add(database, receiver.url)
        done = follow(operator, operator("POST", "/admin/webhooks/test", data={"name": "ops"}))
        assert re.search(r"The target accepted the test: 200 in \d+ ms\.", done)
        assert event_of(operator, "tested").data["status"] == 200

        receiver.stop()
        failed = follow(operator, operator("POST", "/admin/webhooks/test", data={"name": "ops"}))
        assert "The target did not accept the test" in failed

    def test_a_failed_post_is_shown_and_sent_again(
        self, operator: Visit, database: Database, receiver: Receiver
    ) -> None:
        add(database, receiver.url)
        fail(database)
        (logged,) = delivery_log.read(database, "ops")
        page = operator("GET", "/admin/webhooks/ops")
        assert "It is blocked by seq" in text_of(page)
        assert "&lt;b&gt;no such field&lt;/b&gt;" in page.text

        answer = operator("POST", "/admin/webhooks/send-again", data={"name": "ops", "post": str(logged.id)})

        assert f"The target accepted post {logged.id}" in follow(operator, answer)
        assert [post.id for post in receiver.posts] == [logged.message_id]
        assert event_of(operator, "sent_again").data["first_seq"] == logged.first_seq
        assert re.search(r'data-title="Attempt">2<', operator("GET", "/admin/webhooks/ops").text)

    @pytest.mark.parametrize(("post", "status"), [("x", 422), ("", 422), ("99", 404), ("9" * 30, 422)])
    def test_a_bad_number_of_a_post_is_refused(
        self, operator: Visit, database: Database, post: str, status: int
    ) -> None:
        add(database)
        answer = operator("POST", "/admin/webhooks/send-again", data={"name": "ops", "post": post})
        assert answer.status_code == status

    def test_a_pruned_event_is_not_sent_again(self, operator: Visit, database: Database) -> None:
        add(database)
        fail(database)
        with database.transaction() as connection:
            connection.execute("DELETE FROM outbox")
        (logged,) = delivery_log.read(database, "ops")
        page = operator("POST", "/admin/webhooks/send-again", data={"name": "ops", "post": str(logged.id)})

        assert page.status_code == 422
        assert "can't be sent again" in text_of(page)

    def test_the_blocking_event_is_skipped_after_a_question(self, operator: Visit, database: Database) -> None:
        add(database)
        assert operator("POST", "/admin/webhooks/skip", data={"name": "ops"}).status_code == 422
        fail(database)
        question = operator("POST", "/admin/webhooks/skip", data={"name": "ops"})
        assert "Skip an event of ops?" in text_of(question)
        (seq,) = re.findall(r'name="seq" value="(\d+)"', question.text)
        confirmed = {"name": "ops", "confirmed": "yes"}
        for other in ({}, {"seq": str(int(seq) - 1)}):
            assert operator("POST", "/admin/webhooks/skip", data=confirmed | other).status_code == 422
        assert webhook.find(database, "ops").failing_since is not None
        answer = operator("POST", "/admin/webhooks/skip", data=confirmed | {"seq": seq})

        assert "skipped seq" in follow(operator, answer)
        assert webhook.find(database, "ops").failing_since is None
        assert event_of(operator, "skipped").data["id"] == "first"

    def test_a_long_log_has_pages(self, operator: Visit, database: Database) -> None:
        add(database)
        fail(database)
        with database.transaction() as connection:
            connection.executemany(
                "INSERT INTO outfeed_webhook_log (webhook, posted_at, message_id, events, first_seq, last_seq, millis,"
                " status, error, event_digests, request, answer) SELECT webhook, posted_at, ?, events, first_seq,"
                " last_seq, millis, status, error, event_digests, request, answer FROM outfeed_webhook_log LIMIT 1",
                [(f"other:{n}",) for n in range(60)],
            )
        page = operator("GET", "/admin/webhooks/ops").text
        (older,) = re.findall(r'href="([^"]+)">Older deliveries', page)
        assert page.count(">Send again<") == 50
        assert operator("GET", html.unescape(older)).text.count(">Send again<") == 11
        assert operator("GET", f"/admin/webhooks/ops?before={10**30}").text.count(">Send again<") == 50


def test_the_index_says_how_many_are_stuck(operator: Visit, database: Database) -> None:
    add(database)
    fail(database)
    assert "1 of 1 stuck" in text_of(operator("GET", "/admin"))


def test_a_failing_webhook_is_failing_on_every_page(operator: Visit, database: Database) -> None:
    def badges(*, is_failing: bool) -> list[bool]:
        badge = f'data-state="{"bad" if is_failing else "good"}">{"failing" if is_failing else "active"}<'
        return [badge in operator("GET", path).text for path in ("/admin/webhooks", "/admin/webhooks/ops", "/status")]

    add(database)
    assert all(badges(is_failing=False))
    fail(database)
    assert all(badges(is_failing=True))
    assert 'href="/admin/webhooks/ops"' in operator("GET", "/status").text


def test_every_form_needs_the_csrf_token(app: Flask, database: Database) -> None:
    add(database)
    forged = signed_in(app, database, csrf=False)
    for action in ("", "/edit", "/pause", "/resume", "/test", "/send-again", "/rotate", "/skip", "/remove"):
        answer = forged("POST", f"/admin/webhooks{action}", data={"name": "ops", "confirmed": "yes"})
        assert answer.status_code == 403, action
    assert webhook.find(database, "ops").state == "active"
