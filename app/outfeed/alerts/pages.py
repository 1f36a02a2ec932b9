"""/admin/alerts: add, try, change, pause and remove alerts.

Each action is that of a command of `outfeed alert`.
"""

from __future__ import annotations

from functools import partial

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from outfeed.alerts import trial
from outfeed.alerts.api import require_targets
from outfeed.alerts.rule import AlertRule, Condition, checked_query, seconds, short_span, split_names
from outfeed.alerts.store import notices, rules
from outfeed.errors import InvalidForm, InvalidRequest, NameTaken
from outfeed.http import forms
from outfeed.http.admin import actor, done, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.text import check_short_name, sentence

PAGE = "alert_pages.show"
ONE = "alert_pages.show_one"
MAX_NOTICES = 50
CONDITIONS = (
    ("any", "Any event", "A matching event. More of them within the pause come in one notice."),
    ("count", "More than a number", "More matching events than the number, within the window."),
    ("absence", "Nothing", "No matching event for the window."),
)
DEFAULTS = {"condition": "any", "threshold": "10", "window": "5m", "pause": "5m"}
alert_pages = Blueprint("alert_pages", __name__, url_prefix="/admin/alerts")


@alert_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every alert, and the form of a new one."""
    return _page(Form(**DEFAULTS))


@alert_pages.post("")
@requires(ADMIN, is_page=True)
def add() -> ResponseReturnValue:
    """Add an alert, or try it on the past."""
    form = Form(**DEFAULTS)
    with form.catch(name=NameTaken, query=InvalidRequest):
        if "try" in request.form:
            return _page(form, found=trial.run(services().database, _given("trial")))
        rule = _given(forms.read(name=check_short_name)["name"])
        rules.add(services().database, rule, actor())
        return done(f"The alert {rule.name} is active: {rule.when}.", PAGE)
    return _page(form), 422


@alert_pages.get("/rule/<name>")
@requires(ADMIN, is_page=True)
def show_one(name: str) -> ResponseReturnValue:
    """Show operators an alert, its notices, and a form to change it."""
    return _page_of(name, None)


@alert_pages.post("/rule/<name>")
@requires(ADMIN, is_page=True)
def edit(name: str) -> ResponseReturnValue:
    """Change an alert, or try the change on the past."""
    rules.find(services().database, name)
    form = Form()
    with form.catch(query=InvalidRequest):
        rule = _given(name)
        if "try" in request.form:
            return _page_of(name, form, found=trial.run(services().database, rule))
        rules.edit(services().database, rule, actor())
        return done(f"The alert {name} is changed: {rule.when}.", PAGE)
    return _page_of(name, form), 422


@alert_pages.post("/pause")
@requires(ADMIN, is_page=True)
def pause() -> ResponseReturnValue:
    """Pause an alert."""
    name = request.form.get("name", "")
    rules.pause(services().database, name, actor())
    return done(f"The alert {name} is paused.", ONE, name=name)


@alert_pages.post("/resume")
@requires(ADMIN, is_page=True)
def resume() -> ResponseReturnValue:
    """Resume an alert, from now on."""
    name = request.form.get("name", "")
    rules.resume(services().database, name, actor())
    return done(f"The alert {name} is active.", ONE, name=name)


@alert_pages.post("/remove")
@requires(ADMIN, is_page=True)
def remove() -> ResponseReturnValue:
    """Remove an alert, after a confirmation."""
    name = rules.find(services().database, request.form.get("name", "")).name
    effects = ["Its notices that still wait are not sent.", "Events about earlier alerts stay in the log."]
    if page := unconfirmed(f"Remove the alert {name}?", effects, f"Remove {name}", PAGE):
        return page
    rules.remove(services().database, name, actor())
    return done(f"The alert {name} is removed.", PAGE)


def _given(name: str) -> AlertRule:
    """Return the checked rule of the form. Raises InvalidForm."""
    given = forms.read(
        query=checked_query, condition=Condition, threshold=_number, window=partial(seconds, "window"),
        pause=partial(seconds, "pause"),
        targets=split_names,
    )  # fmt: skip
    condition = given["condition"]
    rule = AlertRule(
        name,
        given["query"],
        condition,
        given["threshold"] if condition is Condition.COUNT else 0,
        0 if condition is Condition.ANY else given["window"],
        given["pause"],
        given["targets"],
    )
    try:
        checked = rule.checked()
        require_targets(checked)
    except InvalidRequest as error:
        field, _, problem = str(error).partition(": ")
        raise InvalidForm({field: sentence(problem)}) from None
    return checked


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError("must be a number")
    return int(text)


def _form_of(rule: AlertRule) -> Form:
    """Return the form with the values of a rule."""
    return Form(
        query=rule.query,
        condition=rule.condition.value,
        threshold=str(rule.threshold or DEFAULTS["threshold"]),
        window=short_span(rule.window_secs) if rule.window_secs else DEFAULTS["window"],
        pause=short_span(rule.pause_secs),
        targets=", ".join(rule.targets),
    )


def _page(form: Form, *, found: trial.Trial | None = None) -> str:
    return render_template(
        "alerts.html", alerts=rules.list_alerts(services().database), form=form, conditions=CONDITIONS, trial=found
    )


def _page_of(name: str, form: Form | None, *, found: trial.Trial | None = None) -> str:
    alert = rules.find(services().database, name)
    return render_template(
        "alert.html",
        alert=alert,
        notices=notices.list_notices(services().database, name, MAX_NOTICES),
        form=form or _form_of(alert.rule),
        conditions=CONDITIONS,
        trial=found,
    )
