"""The administration: its index, navigation, forms and confirmations."""

from __future__ import annotations

import pytest
from flask import Flask

from outfeed.config import Settings
from outfeed.errors import InvalidForm, NameTaken
from outfeed.feature import AdminPage, registered
from outfeed.http import forms
from outfeed.http.app import create_app
from outfeed.http.forms import Form
from outfeed.http.permission import Permission
from outfeed.principal import ADMIN
from outfeed.store.database import Database
from tests.http.visitors import Visit, show_tokens_and_names, signed_in, text_of

PAGES = [page for feature in registered() for page in feature.admin_pages]


@pytest.fixture
def app(database: Database) -> Flask:
    app = create_app(Settings(database=database.path))
    show_tokens_and_names(app)
    return app


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


def test_every_route_below_admin_is_a_page_for_operators(app: Flask) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.split("/")[1] == "admin"]
    declared = {rule.rule: app.view_functions[rule.endpoint].permission for rule in rules}  # type: ignore[attr-defined]
    assert len(declared) > len(PAGES)
    assert set(declared.values()) == {Permission(ADMIN, is_page=True)}


def test_the_index_and_the_navigation_lead_to_every_page(operator: Visit) -> None:
    index = operator("GET", "/admin")
    for page in PAGES:
        address = operator.client.application.url_map.bind("").build(page.endpoint)  # type: ignore[attr-defined]
        assert index.text.count(f'href="{address}"') == 2, page
        assert page.summary in text_of(index)
        found = operator("GET", address)
        assert f'href="{address}" aria-current="page">{page.label}<' in found.text
        assert found.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("role", ["viewer", "producer"])
def test_other_roles_see_no_link_and_no_page(app: Flask, database: Database, role: str) -> None:
    visit = signed_in(app, database, role)
    assert "/admin" not in visit("GET", "/swarm/live").text
    refused = visit("GET", "/admin", {"Accept": "text/html"})
    assert refused.status_code == 403
    assert not any(isinstance(page, AdminPage) and page.summary in refused.text for page in PAGES)
    assert "You need the operator role" in text_of(refused)


def test_operators_see_the_link_on_every_page(operator: Visit) -> None:
    assert '<a href="/admin" >Admin</a>' in operator("GET", "/swarm/live").text


# --- forms ------------------------------------------------------------------------------------------------------------


def _number(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"must be a number (got {text!r})")
    return int(text)


def test_every_invalid_field_is_named_with_its_reason(app: Flask) -> None:
    posted = {"age": "old", "size": "1", "count": ""}
    with app.test_request_context("/admin", method="POST", data=posted):
        with pytest.raises(InvalidForm) as refused:
            forms.read(age=_number, size=_number, count=_number, missing=forms.optional(_number))
        assert refused.value.problems == {"age": "Must be a number (got 'old').", "count": "Must be a number (got '')."}
        assert forms.read(size=_number, missing=forms.optional(_number)) == {"size": 1, "missing": None}


def test_several_values_of_a_field_are_joined_by_commas(app: Flask) -> None:
    with app.test_request_context("/admin", method="POST", data={"scopes": ["read", " write "]}):
        assert forms.read(scopes=str) == {"scopes": "read,write"}


def test_a_form_keeps_the_input_and_the_errors(app: Flask) -> None:
    with app.test_request_context("/admin", method="POST", data={"name": " ann ", "roles": ["a", "b"]}):
        form = Form(name="unknown", roles=["c"])
        with form.catch(name=NameTaken):
            raise NameTaken("there is already a user named 'ann'")
        assert form.errors == {"name": "There is already a user named 'ann'."}
        assert (form.value("name"), form.value("other")) == (" ann ", "")
        assert [form.has("roles", each) for each in "abc"] == [True, True, False]


def test_a_new_form_has_its_defaults(app: Flask) -> None:
    with app.test_request_context("/admin"):
        form = Form(name="unknown", roles=["c"])
        assert form.value("name") == "unknown"
        assert [form.has("roles", each) for each in "bc"] == [False, True]
        assert form.has("name", "unknown")


def test_an_error_that_the_form_does_not_expect_is_raised(app: Flask) -> None:
    with app.test_request_context("/admin", method="POST"), pytest.raises(NameTaken), Form().catch(age=InvalidForm):
        raise NameTaken("taken")
