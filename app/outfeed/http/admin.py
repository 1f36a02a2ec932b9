"""The administration: its index and navigation, and what its pages share.

The pages are those of `Feature.admin_pages`. They work without JavaScript:

- A form that is not accepted shows its page again, with the input and an error at each field (http/forms.py), as 422.
- An action that is done redirects with 303 to a page that says so (`done`).
- An action that destroys something asks first (`unconfirmed`).
- A new secret is the response itself (`secret_page`), because it is stored nowhere and may stand in no address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.feature import AdminFact, AdminGroup, AdminPage, registered
from outfeed.http import identity
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN

DONE, WARNING = "done", "warning"
admin = Blueprint("admin", __name__)


@admin.get("/admin")
@requires(ADMIN, is_page=True)
def index() -> str:
    """Show operators every page of the administration."""
    facts: dict[str, AdminFact] = {}
    for feature in registered():
        facts |= feature.admin_facts(services())
    return render_template("admin_index.html", facts=facts)


@admin.app_template_global()
def admin_pages() -> dict[AdminGroup, list[AdminPage]]:
    """Return the pages by group, for the navigation."""
    pages = [page for feature in registered() for page in feature.admin_pages]
    groups = {group: [page for page in pages if page.group is group] for group in AdminGroup}
    return {group: found for group, found in groups.items() if found}


@admin.app_template_filter("distance")
def distance(moment: str | None) -> str:
    """Return the time to or since *moment*, like `in 2 d`."""
    return clock.ago(moment)


def actor() -> str:
    """Return the principal of the request, as audit events name it.

    It is `user:NAME` or `token:NAME`.
    """
    return identity.principal().owner


def done(text: str, endpoint: str, *, warning: str = "", **values: Any) -> ResponseReturnValue:
    """Redirect to the page of *endpoint*, which shows *text* once.

    *warning* is shown in addition. *values* are those of the page's address.
    """
    if identity.principal().is_session:  # a program has no session that could keep the text
        for kind, each in ((DONE, text), (WARNING, warning)):
            if each:
                flash(each, kind)
    return redirect(url_for(endpoint, **values), 303)


def unconfirmed(
    question: str,
    effects: Iterable[str],
    button: str,
    endpoint: str,
    *,
    decided: Mapping[str, str] | None = None,
    **values: Any,
) -> str | None:
    """Return the page that asks *question*, or None if the form is confirmed.

    The page says what will happen, one sentence for each of *effects*. Its button posts the same form again, with the
    fields *decided*: what the question names, and what may change until the answer. Its other link leads to *endpoint*.
    """
    if request.form.get("confirmed") == "yes":
        return None
    known = decided or {}
    posted = request.form.items(multi=True)
    fields = [(name, value) for name, value in posted if name not in ("csrf_token", *known)]
    fields += known.items()
    return render_template(
        "admin_confirm.html",
        question=question,
        effects=list(effects),
        button=button,
        fields=fields,
        back=url_for(endpoint, **values),
    )


class Secret(NamedTuple):
    """A new secret, and what it is."""

    label: str
    text: str


def secret_page(
    title: str, secrets: Iterable[Secret], endpoint: str, *, note: str = "", warning: str = "", **values: Any
) -> str:
    """Return the page that shows new secrets once, with buttons that copy.

    *note* says how a secret is used. The link below leads to *endpoint*.
    """
    return render_template(
        "admin_secret.html",
        title=title,
        secrets=list(secrets),
        note=note,
        warning=warning,
        back=url_for(endpoint, **values),
    )
