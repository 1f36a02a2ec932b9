"""/admin/targets: add, edit, test and remove. No page shows a secret."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from flask import Flask

from outfeed.alerts.targets import store
from outfeed.alerts.targets.kinds import KINDS
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.store.database import Database
from tests.alerts.targets.chat_receiver import ChatReceiver
from tests.http.visitors import Visit, show_tokens_and_names, signed_in, text_of
from tests.receiver import Reply

URL = "http://127.0.0.1:9/services/SECRETPATH"
PAGE = "/admin/targets"
GIVEN = {
    "webhook": {"url": URL}, "slack": {"url": URL}, "discord": {"url": URL}, "teams": {"url": URL},
    "ntfy": {"url": "http://127.0.0.1:9/SECRETTOPIC", "token": "SECRETTOKEN"},
    "email": {
        "to": "ops@example.com", "from": "o@example.com", "server": "127.0.0.1:25", "security": "starttls",
        "user": "outfeed", "password": "SECRETPASSWORD",
    },
}  # fmt: skip


@pytest.fixture
def app(database: Database) -> Flask:
    app = create_app(Settings(database=database.path, webhook_allow="127.0.0.1,127.0.0.3"))
    show_tokens_and_names(app)
    return app


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


def test_the_page_offers_each_kind_except_apprise(operator: Visit) -> None:
    page = operator("GET", PAGE)
    assert "No target yet." in text_of(page)
    assert set(re.findall(r"kind=(\w+)", page.text)) == set(GIVEN) == set(KINDS) - {"apprise"}
    assert operator("GET", f"{PAGE}/add?kind=apprise").status_code == 404
    assert operator("POST", f"{PAGE}/add", data={"kind": "apprise", "name": "x", "url": "json://h"}).status_code == 404


@pytest.mark.parametrize("kind", GIVEN)
def test_a_target_is_added_shown_edited_and_removed_without_its_secrets(
    operator: Visit, database: Database, kind: str
) -> None:
    form = operator("GET", f"{PAGE}/add?kind={kind}").text
    assert set(re.findall(r'name="(\w+)"', form)) >= {"kind", "name", *GIVEN[kind]}
    added = operator("POST", f"{PAGE}/add", data={"kind": kind, "name": "ops", **GIVEN[kind]})
    if kind == "webhook":
        assert store.find(database, "ops").settings["secret"] in html.unescape(added.text), "shown once"
    else:
        assert (added.status_code, added.location) == (303, PAGE)
    stored = store.find(database, "ops").settings
    assert {name: stored[name] for name in GIVEN[kind]} == GIVEN[kind]
    shown = [operator("GET", PAGE), operator("GET", f"{PAGE}/edit?name=ops"), operator("GET", "/swarm/events")]
    assert "ops" in shown[0].text
    kept = operator("POST", f"{PAGE}/edit", data={"name": "ops", **dict.fromkeys(GIVEN[kind], ""), **public(kind)})
    assert (kept.status_code, store.find(database, "ops").settings) == (303, stored)
    asked = operator("POST", f"{PAGE}/remove", data={"name": "ops"})
    assert "Remove ops?" in asked.text
    assert operator("POST", f"{PAGE}/remove", data={"name": "ops", "confirmed": "yes"}).status_code == 303
    assert store.list_targets(database) == []
    secrets = [stored[each.name] for each in KINDS[kind].settings if each.is_secret]
    for page in (*shown, kept, asked):
        assert [secret for secret in (*secrets, "SECRET") if secret in page.text] == []


def public(kind: str) -> dict[str, str]:
    names = {each.name for each in KINDS[kind].settings if not each.is_secret}
    return {name: value for name, value in GIVEN[kind].items() if name in names}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": "SECRET"}, "Must be an address like"), ({"url": ""}, "Must be given."),
        ({"url": "http://127.0.0.2/SECRET"}, "is not public"), ({"name": "no good"}, "A name has up to 55 letters"),
        ({"name": "taken"}, "There is already a target named"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_shown_beside_its_reason_and_without_the_secret(
    operator: Visit, database: Database, changes: dict[str, str], problem: str
) -> None:
    operator("POST", f"{PAGE}/add", data={"kind": "slack", "name": "taken", "url": URL})
    page = operator("POST", f"{PAGE}/add", data={"kind": "slack", "name": "ops", "url": URL, **changes})
    (field,) = changes
    assert page.status_code == 422
    assert problem in html.unescape(re.findall(rf'id="error-{field}">(.*?)</p>', page.text)[0])
    assert "SECRET" not in page.text
    assert [row.target.name for row in store.list_targets(database)] == ["taken"]


@pytest.mark.parametrize(
    ("kind", "credential", "moved"),
    [
        ("email", "password", {"server": "127.0.0.3:25"}),
        ("ntfy", "token", {"url": "http://127.0.0.3:9/topic"}),
    ],
)
def test_another_server_gets_no_stored_credential(
    operator: Visit, database: Database, kind: str, credential: str, moved: dict[str, str]
) -> None:
    operator("POST", f"{PAGE}/add", data={"kind": kind, "name": "ops", **GIVEN[kind]})
    before, change = store.find(database, "ops").settings, {"name": "ops", **public(kind), **moved}
    refused = operator("POST", f"{PAGE}/edit", data={**change, credential: ""})
    assert (refused.status_code, "Must be given again" in text_of(refused)) == (422, True)
    assert store.find(database, "ops").settings == before
    assert operator("POST", f"{PAGE}/edit", data={**change, credential: "another"}).status_code == 303
    assert store.find(database, "ops").settings[credential] == "another"


def test_a_test_shows_the_answer_of_the_target(operator: Visit) -> None:
    replies = [Reply(200), Reply(403)]
    with ChatReceiver(lambda _: [], lambda _: replies.pop(0)) as service:
        url = f"http://127.0.0.1:{service.port}/SECRETPATH"
        operator("POST", f"{PAGE}/add", data={"kind": "slack", "name": "ops", "url": url})
        accepted = operator("POST", f"{PAGE}/test", data={"name": "ops"})
        page = operator("GET", accepted.location)
        refused = operator("POST", f"{PAGE}/test", data={"name": "ops"})
    assert re.search(r"Target ops accepted the test in \d+ ms\.", page.text)
    assert (refused.status_code, "failed the test: the target answered 403" in refused.text) == (422, True)
    assert "SECRETPATH" not in f"{page.text}{refused.text}"


def test_a_removal_names_the_rules_that_lose_the_target(operator: Visit, outfeed: Any) -> None:
    operator("POST", f"{PAGE}/add", data={"kind": "slack", "name": "ops", "url": URL})
    assert outfeed("alert", "add", "errors", "type:system.error", "--to", "ops").exit_code == 0
    assert "These rules no longer send to it: errors." in operator("POST", f"{PAGE}/remove", data={"name": "ops"}).text


def test_an_unknown_target_is_not_found(operator: Visit) -> None:
    for path in ("edit", "test", "remove"):
        assert operator("POST", f"{PAGE}/{path}", data={"name": "x"}).status_code == 404


def test_each_change_is_an_audit_event_of_the_operator(operator: Visit, database: Database) -> None:
    operator("POST", f"{PAGE}/add", data={"kind": "slack", "name": "ops", "url": URL})
    operator("POST", f"{PAGE}/edit", data={"name": "ops", "url": URL})
    operator("POST", f"{PAGE}/remove", data={"name": "ops", "confirmed": "yes"})
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT event_type, data FROM event_log WHERE event_type GLOB 'access.target_*' ORDER BY rowid"
        ).fetchall()
    assert [event_type.rpartition("_")[2] for event_type, _ in rows] == ["added", "changed", "removed"]
    assert {json.loads(data)["by"] for _, data in rows} == {f"user:{operator.name}"}  # type: ignore[attr-defined]
