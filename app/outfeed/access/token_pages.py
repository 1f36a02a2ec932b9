"""/admin/tokens: create, rotate and revoke the credentials of programs.

Each action is that of a command of `outfeed token`.
"""

from __future__ import annotations

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.access import fields
from outfeed.access.publish import published
from outfeed.access.store import account
from outfeed.errors import NameTaken
from outfeed.http import forms
from outfeed.http.admin import Secret, actor, done, secret_page, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN

PAGE = "token_pages.show"
SCOPES = (
    ("read", "read", "Follows the feed and queries the log."),
    ("write", "write", "Writes events."),
    ("admin", "admin", "Does everything that an operator does."),
)
NOTE = "Programs send it as the header “Authorization: Bearer outfeed_…”."
token_pages = Blueprint("token_pages", __name__, url_prefix="/admin/tokens")


@token_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every token without its secret, and the form of one."""
    return _page(_form())


@token_pages.post("")
@requires(ADMIN, is_page=True)
def create() -> ResponseReturnValue:
    """Create a token, and show its secret once."""
    form = _form()
    with form.catch(name=NameTaken):
        given = forms.read(
            name=account.check_name,
            scopes=fields.scopes,
            types=forms.optional(fields.types),
            expires=forms.optional(fields.expiry),
        )
        secret = account.create_token(
            services().database,
            given["name"],
            given["scopes"],
            types=given["types"] or (),
            expires_at=given["expires"],
            by=actor(),
        )
        return _secret_page(given["name"], secret)
    return _page(form), 422


@token_pages.post("/rotate")
@requires(ADMIN, is_page=True)
def rotate() -> ResponseReturnValue:
    """Replace the secret of a token, after a confirmation, and show it once."""
    name = forms.named()
    account.find_token_named(services().database, name)
    effects = ["The present secret is invalid at once, and connections that use it end.", "Its scopes and types stay."]
    if page := unconfirmed(f"Rotate the token {name}?", effects, "Make a new secret", PAGE):
        return page
    return _secret_page(name, account.rotate_token(services().database, name, by=actor()))


@token_pages.post("/revoke")
@requires(ADMIN, is_page=True)
def revoke() -> ResponseReturnValue:
    """Revoke a token, after a confirmation."""
    name = forms.named()
    used_at = account.find_token_named(services().database, name).last_used_at
    effects = [
        "Programs that use it get 401 at once, and their connections end. This can't be undone.",
        f"It was last used {clock.ago(used_at)}." if used_at else "It was never used.",
    ]
    if page := unconfirmed(f"Revoke the token {name}?", effects, f"Revoke {name}", PAGE):
        return page
    account.revoke_token(services().database, name, by=actor())
    return done(f"The token {name} is revoked.", PAGE, warning=published(services()))


def _form() -> Form:
    return Form(scopes=["read"])


def _page(form: Form) -> str:
    now = clock.timestamp()
    tokens = account.list_tokens(services().database)
    return render_template("tokens.html", tokens=tokens, form=form, scopes=SCOPES, now=now)


def _secret_page(name: str, secret: str) -> str:
    title = f"Secret of the token {name}"
    return secret_page(title, [Secret("Token", secret)], PAGE, note=NOTE, warning=published(services()))
