"""/admin/consumers: the position of each durable consumer.

Each action is that of a command of `outfeed consumer`.
"""

from __future__ import annotations

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.errors import InvalidRequest, UnknownName
from outfeed.feed.subscription import MAX_SEQ
from outfeed.history import CONSUMER_NAME
from outfeed.http import forms
from outfeed.http.admin import actor, done, unconfirmed
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.store import checkpoint
from outfeed.store.checkpoint import Checkpoint
from outfeed.text import sentence

PAGE = "consumer_pages.show"
CLOSES = "An open connection of the consumer is closed with 4009."
consumer_pages = Blueprint("consumer_pages", __name__, url_prefix="/admin/consumers")


@consumer_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every consumer."""
    return _page()


@consumer_pages.post("/reset")
@requires(ADMIN, is_page=True)
def reset() -> ResponseReturnValue:
    """Move a consumer's acknowledged position, after a confirmation."""
    name, seq = _name(), forms.read(seq=forms.optional(_seq))["seq"]
    plan = checkpoint.plan_reset(services().database, name, seq)
    effects = [_effect(plan), CLOSES]
    button = f"Move to {plan.after:,}"
    decided = {"seq": str(plan.after)}  # the head may move on
    if page := unconfirmed(f"Reset the consumer {name}?", effects, button, PAGE, decided=decided):
        return page
    position = checkpoint.reset(services().database, name, seq, by=actor())
    return done(f"The consumer {name} continues after {position:,}.", PAGE)


@consumer_pages.post("/remove")
@requires(ADMIN, is_page=True)
def remove() -> ResponseReturnValue:
    """Delete a consumer, after a confirmation."""
    name = _name()
    found = _found(name)
    effects = [
        f"The position {found.seq:,} is forgotten: a consumer of the same name begins at the head.",
        f"Pruning no longer keeps events for it. {CLOSES}" if found.is_protected else CLOSES,
        f"It was last seen {clock.ago(found.seen_at)}.",
    ]
    if page := unconfirmed(f"Remove the consumer {name}?", effects, f"Remove {name}", PAGE):
        return page
    checkpoint.remove(services().database, name, by=actor())
    return done(f"The consumer {name} is removed.", PAGE)


@consumer_pages.errorhandler(InvalidRequest)
def refuse(error: InvalidRequest) -> ResponseReturnValue:
    """Show the page with the reason why a consumer was not changed."""
    return _page(sentence(str(error))), 422


def _page(problem: str = "") -> str:
    return render_template("consumers.html", consumers=checkpoint.list_named(services().database), problem=problem)


def _found(name: str) -> Checkpoint:
    with services().database.snapshot() as connection:
        return checkpoint.find(connection, name)


def _name() -> str:
    """Return the name in the form of a row; webhooks' consumers have others.

    Raises UnknownName.
    """
    name = forms.named()
    if not CONSUMER_NAME.fullmatch(name):
        raise UnknownName(f"no consumer can be named {name!r:.80}")
    return name


def _seq(text: str) -> int:
    digits = text.replace(",", "")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_SEQ)) and int(digits) <= MAX_SEQ):
        raise ValueError(f"must be a seq like 1200, or empty for the head (got {text!r:.40})")
    return int(digits)


def _effect(plan: checkpoint.PositionChange) -> str:
    if plan.after < plan.before:
        return f"It moves back from {plan.before:,} to {plan.after:,}: it gets the events after {plan.after:,} again."
    if plan.after > plan.before:
        return f"It moves from {plan.before:,} to {plan.after:,}: it never gets the events between them."
    return f"It stays at {plan.after:,}."
