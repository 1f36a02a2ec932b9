"""/admin/addresses: each action does what its command does, with an event."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from outfeed import list_events
from outfeed.gateways.incoming import store
from outfeed.store.database import Database
from tests.http.admin_pages import Administration, secrets_of
from tests.http.visitors import signed_in


@pytest.fixture
def admin(database: Database) -> Administration:
    return Administration(database)


def test_a_new_address_is_shown_once_and_takes_events(admin: Administration) -> None:
    fields = {"name": "nightly", "topic": "backup.done", "source": "nas", "types": "backup.*", "signature": "new"}
    (url,) = secrets_of(admin.post("/admin/addresses", **fields))
    assert url.startswith("http://localhost/in/at/outfeed_")
    path = url.removeprefix("http://localhost")
    assert admin.app.test_client().post(path, data="done", content_type="text/plain").status_code == 201
    (event,) = list_events("backup.done")
    assert (event.source, event.data) == ("nas", {"message": "done"})
    page = admin.visit("GET", "/admin/addresses").text
    assert url not in page
    assert path.rpartition("/")[2] not in page
    facts = {"name": "nightly", "topic": "backup.done", "types": ["backup.*"], "mapping": None}
    assert admin.types_and_data() == [("access.address_added", facts)]


def test_empty_fields_have_the_defaults_of_the_command(admin: Administration) -> None:
    admin.post("/admin/addresses", name="my-backups", signature="new")
    admin.post("/admin/addresses", name="repo", mapping="github", signature="none")
    found = {each.name: each for each in store.list_addresses(admin.database)}
    assert (found["my-backups"].topic, found["my-backups"].source) == ("my_backups", "my-backups")
    assert (found["repo"].topic, found["repo"].mapping, found["repo"].signing_secret) == ("github", "github", None)


@pytest.mark.parametrize("choice", ["new", "given"])
def test_a_signed_mapping_takes_only_requests_with_its_secret(admin: Administration, choice: str) -> None:
    fields = {"name": "repo", "mapping": "github", "signature": choice, "signing_secret": "0123456789abcdef"}
    url, *shown = secrets_of(admin.post("/admin/addresses", **fields))
    secret = shown[0] if choice == "new" else "0123456789abcdef"
    assert len(shown) == (choice == "new")
    body = json.dumps({"repository": {"full_name": "a/b"}, "sender": {"login": "ann"}, "zen": "x"}).encode()
    signature = "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()

    def post(signed: str) -> int:
        headers = {"X-GitHub-Event": "ping", "X-GitHub-Delivery": "d-1", "X-Hub-Signature-256": signed}
        client = admin.app.test_client()
        path = url.removeprefix("http://localhost")
        return client.post(path, data=body, content_type="application/json", headers=headers).status_code

    assert (post("sha256=0"), post(signature)) == (401, 201)
    assert secret not in admin.visit("GET", "/admin/addresses").text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "a b"}, "A name has up to 55 letters, digits, dots, dashes and underscores."),
        ({"name": "taken"}, "There is already an address named 'taken'"),
        ({"name": "9"}, "9 can't be a topic; give one, such as backups."),
        ({"topic": "Not A Topic"}, "Must be lower-case words joined by dots"),
        ({"source": "x" * 300}, "Must have 1 to"),
        ({"types": "task*"}, "A type is like task.created"),
        ({"mapping": "nothing"}, "Mapping 'nothing' not found."),
        ({"signature": "maybe"}, "Choose one of the three."),
        ({"mapping": "github", "signature": "given", "signing_secret": "tooshort"}, "A secret must have at least"),
        ({"mapping": "github", "signature": "given", "signing_secret": ""}, "A secret must have at least"),
    ],
)
def test_an_invalid_field_keeps_the_input_and_adds_no_address(
    admin: Administration, fields: dict[str, Any], problem: str
) -> None:
    store.add(admin.database, "taken", topic="a", source="b")
    given = {"name": "new", "topic": "", "source": "", "types": "", "mapping": "", "signature": "new", **fields}
    page = admin.refused("/admin/addresses", **given)
    assert problem.lower() in page.lower()
    answer = admin.post("/admin/addresses", **given)
    assert f'value="{given["types"]}" id="field-types"' in answer.text
    assert "tooshort" not in answer.text
    assert [each.name for each in store.list_addresses(admin.database)] == ["taken"]
    assert admin.events() == []


def test_an_address_is_revoked_after_a_confirmation(admin: Administration) -> None:
    secret = store.add(admin.database, "backups", topic="backups", source="backups")
    assert "It was never used." in admin.asked("/admin/addresses/revoke", name="backups")
    assert store.find(admin.database, secret) is not None
    assert "The address backups is revoked." in admin.done("/admin/addresses/revoke", name="backups")
    assert store.list_addresses(admin.database) == []
    assert admin.types_and_data() == [("access.address_revoked", {"name": "backups"})]


def test_an_unknown_address_is_not_found(admin: Administration) -> None:
    assert admin.post("/admin/addresses/revoke", name="none", confirmed="yes").status_code == 404


def test_a_form_without_a_csrf_token_changes_nothing(admin: Administration, database: Database) -> None:
    store.add(database, "backups", topic="backups", source="backups")
    forged = signed_in(admin.app, database, csrf=False)
    for path, name in (("", "new"), ("/revoke", "backups")):
        fields = {"name": name, "signature": "new", "confirmed": "yes"}
        assert forged("POST", f"/admin/addresses{path}", data=fields).status_code == 403
    assert [each.name for each in store.list_addresses(database)] == ["backups"]
