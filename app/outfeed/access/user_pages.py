"""/admin/users: invite people, change their roles, and sign them out.

Each action is that of a command of `outfeed user`.
"""

from __future__ import annotations

from flask import Blueprint, render_template, url_for
from flask.typing import ResponseReturnValue

from outfeed.access.publish import published
from outfeed.access.store import account
from outfeed.access.store import user as users
from outfeed.errors import InvalidUserChange, NameTaken
from outfeed.http import addresses, forms
from outfeed.http.admin import Secret, actor, done, secret_page, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.text import sentence

PAGE = "user_pages.show"
ROLES = (
    ("viewer", "Viewer", "Reads the feed and the log."),
    ("producer", "Producer", "Also writes events."),
    ("operator", "Operator", "Also manages this server: users, tokens and everything here."),
)
DEFAULTS = {"role": "viewer"}
user_pages = Blueprint("user_pages", __name__, url_prefix="/admin/users")


@user_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every user, and the form of an invitation."""
    return _page(Form(**DEFAULTS))


@user_pages.post("")
@requires(ADMIN, is_page=True)
def invite() -> ResponseReturnValue:
    """Create a user, and show the sign-in link once."""
    form = Form(**DEFAULTS)
    with form.catch(name=NameTaken):
        given = forms.read(name=account.check_name, role=users.check_role)
        code = users.invite(services().database, given["name"], given["role"], by=actor())
        return _link_page(given["name"], code)
    return _page(form), 422


@user_pages.post("/role")
@requires(ADMIN, is_page=True)
def set_role() -> ResponseReturnValue:
    """Give a user another role."""
    name, role = forms.named(), forms.read(role=users.check_role)["role"]
    users.set_role(services().database, name, role, by=actor())
    return done(f"{name} has the role {role}.", PAGE, warning=published(services()))


@user_pages.post("/disable")
@requires(ADMIN, is_page=True)
def disable() -> ResponseReturnValue:
    """Disable a user, after a confirmation."""
    name = forms.named()
    users.check_disabling(services().database, name, by=actor())
    effects = [f"{name} can't sign in any more. {_sessions(name)}", "You can enable the user again."]
    if page := unconfirmed(f"Disable {name}?", effects, f"Disable {name}", PAGE):
        return page
    users.set_disabled(services().database, name, True, by=actor())
    return done(f"{name} is disabled and signed out.", PAGE, warning=published(services()))


@user_pages.post("/enable")
@requires(ADMIN, is_page=True)
def enable() -> ResponseReturnValue:
    """Enable a user again."""
    name = forms.named()
    users.set_disabled(services().database, name, False, by=actor())
    return done(f"{name} is enabled.", PAGE, warning=published(services()))


@user_pages.post("/sign-out")
@requires(ADMIN, is_page=True)
def sign_out() -> ResponseReturnValue:
    """End a user's sessions and sign-in links, after a confirmation."""
    name = users.require(services().database, forms.named()).name
    effects = [_sessions(name), f"{name} can sign in again."]
    if page := unconfirmed(f"Sign {name} out everywhere?", effects, f"Sign {name} out", PAGE):
        return page
    users.end_sessions(services().database, name, by=actor())
    return done(f"{name} is signed out everywhere.", PAGE, warning=published(services()))


@user_pages.post("/link")
@requires(ADMIN, is_page=True)
def create_link() -> ResponseReturnValue:
    """Show a new sign-in link of a user once."""
    name = forms.named()
    return _link_page(name, users.create_link(services().database, name, by=actor()))


@user_pages.errorhandler(InvalidUserChange)
def refuse(error: InvalidUserChange) -> ResponseReturnValue:
    """Show the page with the reason why a user was not changed."""
    return _page(Form.unposted(**DEFAULTS), sentence(str(error))), 422


def _sessions(name: str) -> str:
    count = account.count_sessions(services().database).get(name, 0)
    ended = {0: "No session is open", 1: "One open session ends"}.get(count, f"{count:,} open sessions end")
    return f"{ended}, and unused sign-in links end."


def _page(form: Form, problem: str = "") -> str:
    database = services().database
    return render_template(
        "users.html",
        users=users.list_all(database),
        sessions=account.count_sessions(database),
        form=form,
        roles=ROLES,
        problem=problem,
    )


def _link_page(name: str, code: str) -> ResponseReturnValue:
    link = addresses.absolute(url_for("sign_in.login", code=code))
    note = f"Send it to {name}. It works once, within a day."
    return secret_page(f"Sign-in link for {name}", [Secret("Link", link)], PAGE, note=note)
