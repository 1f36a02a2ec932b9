"""/admin/displays: how events of each type read, with a preview.

Each action is that of a command of `outfeed type`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace

import orjson
from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from outfeed.display import MAX_ICON_CHARS, MAX_LABEL_CHARS, Display, Level, Look, level_of, look_of
from outfeed.errors import InvalidDisplay, UnknownName
from outfeed.events import Event
from outfeed.http import forms
from outfeed.http.admin import actor, done, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.text import sentence
from outfeed.types import operations, store

PAGE = "display_pages.show"
MAX_TYPES = 200
MAX_SAMPLE_BYTES = 16_384
LEVELS = (
    (Level.INFO.value, "Info", "A plain row."),
    (Level.WARNING.value, "Warning", "A row with the colour of a warning."),
    (Level.ERROR.value, "Error", "A row with the colour of an error. It counts as failed."),
)
_PLACES = re.compile(r"\{([^{}]*)\}")
display_pages = Blueprint("display_pages", __name__, url_prefix="/admin/displays")


@display_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators the displays that were set, and types without one."""
    return _list_page()


@display_pages.get("/edit")
@requires(ADMIN, is_page=True)
def show_form() -> ResponseReturnValue:
    """Show the display of one type with a preview."""
    name = request.args.get("type", "").strip()
    if refusal := _refusal_of(name):
        return _list_page(refusal), 422
    found = services().displays.current().by_type.get(name, Display(level=None))
    display = replace(found, level=found.level or level_of(name, None, {}))
    return _edit_page(name, _form_of(display), display)


@display_pages.post("/edit")
@requires(ADMIN, is_page=True)
def edit() -> ResponseReturnValue:
    """Set the display of one type, or only preview it."""
    name = request.form.get("type", "").strip()
    if refusal := _refusal_of(name):
        return _list_page(refusal), 422
    form = Form()
    with form.catch(label=InvalidDisplay):
        given = forms.read(**{field: _checked(name, field) for field in ("icon", "label", "level")})
        display = Display.checked(name, **{field: value for field, value in given.items() if value})
        if request.form.get("do") == "preview":
            return _edit_page(name, form, display)
        operations.set_display(services().database, name, display, actor())
        return done(f"Set the display of {name}.", PAGE)
    return _edit_page(name, form, None), 422


@display_pages.post("/reset")
@requires(ADMIN, is_page=True)
def reset() -> ResponseReturnValue:
    """Remove the display of one type, after a confirmation."""
    name = request.form.get("type", "")
    if name not in operations.read(services().database).by_type:
        raise UnknownName(f"the type {name!r:.80} has no display")
    effects = ["Its events show their type and their first values, and the icon of their level."]
    if page := unconfirmed(f"Reset the display of {name}?", effects, "Reset", PAGE):
        return page
    operations.remove(services().database, name, actor())
    return done(f"The display of {name} is the built-in one.", PAGE)


def _refusal_of(name: str) -> str:
    """Return why the type can't have a display, or an empty text."""
    try:
        Display.checked(name)
    except InvalidDisplay as error:
        return sentence(str(error))
    return ""


def _checked(name: str, field: str) -> Callable[[str], str]:
    """Return the check of one field, whose error leaves the names out."""

    def check(value: str) -> str:
        try:
            if value or field == "level":
                Display.checked(name, **{field: value})
        except InvalidDisplay as error:
            raise ValueError(str(error).removeprefix(f"{name}: ").removeprefix(f"{field}: ")) from error
        return value

    return check


def _form_of(found: Display) -> Form:
    return Form(**{"icon": "", "label": "", **found.as_dict()})


def _list_page(problem: str = "") -> str:
    database = services().database
    found = operations.read(database)
    present = store.types_in_log(database, MAX_TYPES)
    plain = [name for name in present if name not in found.by_type and not _refusal_of(name)]
    return render_template("displays.html", found=found, plain=plain, problem=problem)


def _edit_page(name: str, form: Form, display: Display | None) -> str:
    """Return the page of one type. Without a *display*, it has no preview."""
    sample = store.newest_of(services().database, name)
    found = operations.read(services().database).by_type
    return render_template(
        "display.html", name=name, form=form, is_set=name in found, levels=LEVELS, sample=sample,
        sample_json=_sample_json(sample), max_icon=MAX_ICON_CHARS, max_label=MAX_LABEL_CHARS,
        look=_look(name, sample, display) if display else None,
    )  # fmt: skip


def _look(name: str, sample: Event | None, display: Display) -> Look:
    return look_of(sample or _made_up(name, display.label or ""), {name: display})


def _made_up(name: str, label: str) -> Event:
    """Return an event whose values are the names of the label's places."""
    names = [re.sub(r":\d+$", "", place).split("|")[0] for place in _PLACES.findall(label)]
    data = {each.removeprefix("was."): each for each in names}
    return Event("", name, "source", None, None, data or None, "")


def _sample_json(sample: Event | None) -> str:
    """Return the sample for the script; empty if it is missing or too large."""
    if sample is None:
        return ""
    raw = orjson.dumps(asdict(sample), default=str)
    return raw.decode() if len(raw) <= MAX_SAMPLE_BYTES else ""
