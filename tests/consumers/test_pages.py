"""/admin/consumers: each action does what its command does, with an event."""

from __future__ import annotations

import re

import pytest

from outfeed.access.store import account
from outfeed.store import checkpoint
from outfeed.store.checkpoint import Checkpoint
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from tests.http.admin_pages import Administration
from tests.http.visitors import signed_in


@pytest.fixture
def admin(database: Database) -> Administration:
    account.create_token(database, "ops", ["read"])
    admin = Administration(database)
    checkpoint.add(database, "bot", is_protected=True, owner="token:ops")
    for _ in range(5):
        log_event("a.b", "s")
    return admin


def bot(admin: Administration) -> Checkpoint:
    return checkpoint.list_named(admin.database)[0]


def test_the_page_shows_owner_position_and_lag(admin: Administration) -> None:
    with admin.database.transaction() as connection:
        checkpoint.renew(connection, "webhook:ops", is_protected=True)
    page = admin.get("/admin/consumers")
    assert f"bot protected token:ops {bot(admin).seq:,} 5 0 s ago" in page.replace("1 s ago", "0 s ago")
    assert "webhook:ops" not in page
    assert "Consumers 1, up to 5 behind" in admin.get("/admin")


def test_a_reset_to_the_head_posts_the_head_that_the_question_names(admin: Administration) -> None:
    head = bot(admin).seq + bot(admin).lag
    question = admin.post("/admin/consumers/reset", name="bot", seq="").text
    assert re.findall(r'name="seq" value="([^"]*)"', question) == [str(head)]


@pytest.mark.parametrize(
    ("to", "effect"), [("", "it never gets the events between them"), ("0", "it gets the events after 0 again")]
)
def test_a_reset_moves_the_position_after_a_confirmation(admin: Administration, to: str, effect: str) -> None:
    before = bot(admin)
    target = int(to or before.seq + before.lag)
    assert effect in admin.asked("/admin/consumers/reset", name="bot", seq=to)
    assert bot(admin) == before
    assert f"The consumer bot continues after {target:,}." in admin.done("/admin/consumers/reset", name="bot", seq=to)
    assert (bot(admin).seq, bot(admin).generation) == (target, before.generation + 1)
    facts = {"name": "bot", "before": before.seq, "seq": target}
    assert admin.types_and_data() == [("access.consumer_reset", facts)]


@pytest.mark.parametrize(
    "seq", ["x", "-1", "1e3", "\u0661", "9" * 30, "9223372036854775808", "9223372036854775807", "1000"]
)
def test_an_invalid_seq_changes_nothing(admin: Administration, seq: str) -> None:
    before = bot(admin)
    for confirmed in ("", "yes"):
        assert admin.post("/admin/consumers/reset", name="bot", seq=seq, confirmed=confirmed).status_code == 422
    assert bot(admin) == before
    assert admin.events() == []


def test_a_seq_above_the_head_is_refused_with_the_head(admin: Administration) -> None:
    head = bot(admin).seq + bot(admin).lag
    assert f"Seq: 1000 is above the head, {head}." in admin.refused("/admin/consumers/reset", name="bot", seq="1,000")


def test_a_consumer_is_removed_after_a_confirmation(admin: Administration) -> None:
    asked = admin.asked("/admin/consumers/remove", name="bot")
    assert "Pruning no longer keeps events for it." in asked
    assert bot(admin).name == "bot"
    assert "The consumer bot is removed. Consumers No consumers yet." in admin.done(
        "/admin/consumers/remove", name="bot"
    ).replace("  ", " ")
    assert admin.types_and_data() == [("access.consumer_removed", {"name": "bot", "owner": "token:ops"})]


@pytest.mark.parametrize("action", ["reset", "remove"])
@pytest.mark.parametrize("name", ["", "none", "webhook:ops"])
def test_an_unknown_consumer_or_that_of_a_webhook_is_not_found(admin: Administration, action: str, name: str) -> None:
    with admin.database.transaction() as connection:
        checkpoint.renew(connection, "webhook:ops", is_protected=True)
    assert admin.post(f"/admin/consumers/{action}", name=name, confirmed="yes").status_code == 404
    assert len(checkpoint.list_checkpoints(admin.database)) == 2


def test_a_form_without_a_csrf_token_changes_nothing(admin: Administration, database: Database) -> None:
    before = bot(admin)
    forged = signed_in(admin.app, database, csrf=False)
    for action in ("reset", "remove"):
        fields = {"name": "bot", "confirmed": "yes"}
        assert forged("POST", f"/admin/consumers/{action}", data=fields).status_code == 403
    assert bot(admin)._replace(lag=before.lag) == before  # the sign-in is an event


def test_the_commands_leave_the_same_events(outfeed, admin):  # type: ignore[no-untyped-def]
    outfeed("consumer", "reset", "bot", "--to", 0)
    outfeed("consumer", "remove", "bot")
    from outfeed.log.store.reading import list_events

    assert [(each.event_type, each.data["by"]) for each in reversed(list_events("access.*"))][-2:] == [
        ("access.consumer_reset", "command line"),
        ("access.consumer_removed", "command line"),
    ]
