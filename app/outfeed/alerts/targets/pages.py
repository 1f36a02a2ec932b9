"""/admin/targets: the places that notices of alerts are sent to.

Each action is that of a command of `outfeed target`. A secret is written, and no page shows it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from outfeed.alerts.store import notices
from outfeed.alerts.targets import managing, store
from outfeed.alerts.targets.kind import Kind
from outfeed.alerts.targets.kinds import KINDS
from outfeed.errors import InvalidTarget, NameTaken, TargetForbidden, UnknownName
from outfeed.http import forms, limits
from outfeed.http.admin import Secret, actor, done, secret_page, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.text import check_short_name, sentence

PAGE = "target_pages.show"
OFFERED = {kind.name: kind for kind in KINDS.values() if kind.is_for_pages}
target_pages = Blueprint("target_pages", __name__, url_prefix="/admin/targets")


class ShownTarget(NamedTuple):
    """A row of the page."""

    name: str
    label: str
    place: str
    rules: list[str]
    created_at: str
    waiting: int
    trouble: str


@target_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every target."""
    return _page()


@target_pages.get("/add")
@requires(ADMIN, is_page=True)
def ask_new() -> ResponseReturnValue:
    """Show the form of a new target of the kind `kind`."""
    return _form_page(_new_kind(), Form(security="starttls"))


@target_pages.post("/add")
@requires(ADMIN, is_page=True)
def add() -> ResponseReturnValue:
    """Add a target. A new secret of a webhook is shown once."""
    kind, form, current = _new_kind(), Form(), services()
    with form.catch(name=NameTaken, **_address_error(kind)):
        name = forms.read(name=check_short_name)["name"]
        try:
            made = managing.add(current.database, current.settings, name, kind.name, _given(kind), actor())
        except InvalidTarget as error:
            form.errors[error.setting] = sentence(error.problem)
        else:
            return _added(name, made)
    return _form_page(kind, form), 422


def _added(name: str, made: managing.Change) -> ResponseReturnValue:
    warning = sentence(made.warning) if made.warning else ""
    if made.secret:
        note = "The target checks the signature of each notice with it."
        return secret_page(f"Secret of {name}", [Secret("Secret", made.secret)], PAGE, note=note, warning=warning)
    return done(f"Target {name} is added. Send a test to try it.", PAGE, warning=warning)


@target_pages.get("/edit")
@requires(ADMIN, is_page=True)
def ask_changes() -> ResponseReturnValue:
    """Show the settings of the target `name`, without its secrets."""
    name, kind, settings = _existing(request.args.get("name", ""))
    shown = {each.name: settings.get(each.name, "") for each in kind.settings if not each.is_secret}
    return _form_page(kind, Form(**shown), name)


@target_pages.post("/edit")
@requires(ADMIN, is_page=True)
def edit() -> ResponseReturnValue:
    """Change a target. An empty secret keeps the old one."""
    name, kind, _ = _existing(request.form.get("name", ""))
    form, current = Form(), services()
    secrets = {each.name for each in kind.settings if each.is_secret}
    changes = {key: value for key, value in _given(kind).items() if value or key not in secrets}
    with form.catch(**_address_error(kind)):
        try:
            made = managing.edit(current.database, current.settings, name, changes, actor())
        except InvalidTarget as error:
            form.errors[error.setting] = sentence(error.problem)
        else:
            return done(f"Target {name} is changed.", PAGE, warning=sentence(made.warning) if made.warning else "")
    return _form_page(kind, form, name), 422


@target_pages.post("/test")
@requires(ADMIN, is_page=True)
def test() -> ResponseReturnValue:
    """Send a test notice, and show the answer of the target."""
    name, _, _ = _existing(request.form.get("name", ""))
    if refusal := limits.admit_export():  # it may take as long as an export
        return refusal
    outcome, secs = managing.send_test(services().database, services().settings, name)
    if outcome.is_delivered:
        return done(f"Target {name} accepted the test in {secs * 1000:,.0f} ms.", PAGE)
    return _page(f"Target {name} failed the test: {outcome.error}"), 422


@target_pages.post("/remove")
@requires(ADMIN, is_page=True)
def remove() -> ResponseReturnValue:
    """Remove a target, after a confirmation."""
    name, _, _ = _existing(request.form.get("name", ""))
    rules = managing.rules_of(services().database, name)
    effects = [f"These rules no longer send to it: {', '.join(rules)}."] if rules else []
    effects.append("Its address and secrets are deleted. Notices that wait for it are not sent.")
    if page := unconfirmed(f"Remove {name}?", effects, f"Remove {name}", PAGE):
        return page
    managing.remove(services().database, name, actor(), is_forced=True)
    return done(f"Target {name} is removed.", PAGE)


def _new_kind() -> Kind:
    kind = OFFERED.get(request.values.get("kind", "webhook"))
    if kind is None:
        raise NotFound("The page offers no such kind of target.")
    return kind


def _existing(name: str) -> tuple[str, Kind, Mapping[str, str]]:
    """Return name, kind and settings of a target.

    An unknown name is 404, and so is a kind that only the command changes.
    """
    try:
        found = store.find(services().database, name)
    except UnknownName as error:
        raise NotFound(sentence(str(error))) from None
    if found.kind not in KINDS:
        raise NotFound(f"This version of Outfeed has no targets of the kind {found.kind}.")
    return found.name, KINDS[found.kind], found.settings


def _given(kind: Kind) -> dict[str, str]:
    return {each.name: request.form.get(each.name, "") for each in kind.settings}


def _address_error(kind: Kind) -> dict[str, type[TargetForbidden]]:
    """Return the field that shows a forbidden address."""
    return {"server" if kind.name == "email" else "url": TargetForbidden}


def _form_page(kind: Kind, form: Form, name: str = "") -> str:
    return render_template("target_form.html", kind=kind, form=form, name=name)


def _page(problem: str = "") -> str:
    database = services().database
    queues = {each.target: each for each in notices.queues(database)}
    return render_template(
        "targets.html",
        targets=[_shown(row, queues.get(row.target.name)) for row in store.list_targets(database)],
        kinds=OFFERED.values(),
        problem=problem,
    )


def _shown(row: store.TargetRow, queue: notices.TargetQueue | None) -> ShownTarget:
    name, kind = row.target.name, KINDS.get(row.target.kind)
    return ShownTarget(
        name=name,
        label=kind.label if kind else row.target.kind,
        place=kind.place(row.target.settings) if kind else "",
        rules=managing.rules_of(services().database, name),
        created_at=row.created_at,
        waiting=queue.waiting if queue else 0,
        trouble=(queue.last_error or "") if queue else "",
    )
