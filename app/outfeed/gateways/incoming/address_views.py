"""The views of /admin/addresses.

Each action is that of a command of `outfeed address`.
"""

from __future__ import annotations

from typing import Any

from flask import render_template, url_for
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.errors import InvalidRequest, NameTaken, UnknownName
from outfeed.gateways.incoming import new_address, store
from outfeed.gateways.incoming.mapping import FieldTable
from outfeed.gateways.incoming.topic import check_topic
from outfeed.http import addresses, forms
from outfeed.http.admin import Secret, actor, done, secret_page, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.services import services
from outfeed.text import check_short_name

PAGE = "address_pages.show"
SIGNATURES = (
    ("new", "A new secret", "It is shown once, for the sender's settings."),
    ("given", "The sender's secret", "Enter it below."),
    ("none", "No signature", "Every client that knows the URL can write."),
)


def show() -> ResponseReturnValue:
    """Return the page."""
    return _page(_form())


def add() -> ResponseReturnValue:
    """Create the address of the form."""
    form = _form()
    with form.catch(name=NameTaken, topic=InvalidRequest):
        given = forms.read(
            name=check_short_name,
            topic=forms.optional(check_topic),
            source=forms.optional(new_address.check_source),
            types=new_address.types,
            mapping=forms.optional(_mapping),
            signature=_signature,
        )
        return _created(given)
    return _page(form), 422


def revoke() -> ResponseReturnValue:
    """Revoke the address that the form names."""
    name = forms.named()
    found = next((each for each in store.list_addresses(services().database) if each.name == name), None)
    if found is None:
        raise UnknownName(f"address {name!r:.80} not found; `outfeed address list` shows all addresses")
    effects = [
        "Requests to its URL get 404 at once. This can't be undone: a new address has another URL.",
        f"It was last used {clock.ago(found.last_used_at)}." if found.last_used_at else "It was never used.",
    ]
    if page := unconfirmed(f"Revoke the address {name}?", effects, f"Revoke {name}", PAGE):
        return page
    store.revoke(services().database, name, by=actor())
    return done(f"The address {name} is revoked.", PAGE)


def _created(given: dict[str, Any]) -> str:
    """Create the address of the checked fields, and return its secrets."""
    name, mapping = given["name"], given["mapping"]
    table = new_address.mappings(services().settings)[mapping] if mapping else None
    signing_secret = _signing_secret(table, given["signature"])
    secret = store.add(
        services().database,
        name,
        topic=given["topic"] or new_address.default_topic(mapping or name),
        source=given["source"] or name,
        types=given["types"],
        mapping=mapping,
        signing_secret=signing_secret,
        by=actor(),
    )
    shown = [Secret("URL", addresses.absolute(url_for("incoming.post_at_address", address=secret)))]
    if signing_secret and given["signature"] == "new":
        shown.append(Secret("Secret with which the sender signs", signing_secret))
    note = "Every client that knows the URL can write events under its topic, and nothing else."
    return secret_page(f"Write-only address {name}", shown, PAGE, note=note)


def _signing_secret(table: FieldTable | None, choice: str) -> str | None:
    """Return the signing secret, of which a mapping without one has none."""

    def check(text: str) -> str | None:
        given = text if choice == "given" else None
        return new_address.signing_secret(table, given, is_unsigned=choice == "none")

    if not new_address.is_signed(table):
        return None
    found: str | None = forms.read(signing_secret=check)["signing_secret"]
    return found


def _mapping(name: str) -> str:
    if name not in new_address.mappings(services().settings):
        raise ValueError(f"mapping {name!r:.80} not found")
    return name


def _signature(choice: str) -> str:
    if choice not in [value for value, *_ in SIGNATURES]:
        raise ValueError("choose one of the three")
    return choice


def _form() -> Form:
    return Form(signature="new", mapping="")


def _page(form: Form) -> str:
    tables = new_address.mappings(services().settings)
    described = [(name, f"{name}: {table.description}") for name, table in tables.items()]
    return render_template(
        "addresses.html",
        addresses=store.list_addresses(services().database),
        form=form,
        mappings=[("", "none: text, a form or JSON"), *described],
        signatures=SIGNATURES,
        signed=[name for name, table in tables.items() if new_address.is_signed(table)],
    )
