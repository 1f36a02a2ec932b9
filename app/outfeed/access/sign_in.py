"""Sign-in by link or password, sign-out, and changes of passwords."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_user, logout_user

from outfeed.access import auth, passwords
from outfeed.access.rights import OriginRights
from outfeed.access.store import account, user
from outfeed.http import addresses, identity, limits
from outfeed.http.permission import public, requires
from outfeed.http.problems import answer
from outfeed.http.services import services
from outfeed.log_message import LogMessage
from outfeed.principal import READ

FORM_REFUSED = {
    "csrf": "The form expired. Please try again.",
    "origin": "The form comes from another site.",
}
LINK_ENDED = "This link is used or expired. Request a new one, or sign in with your password."
log = logging.getLogger(__name__)
sign_in = Blueprint("sign_in", __name__)


@sign_in.get("/login")
@public(is_page=True)
def login() -> ResponseReturnValue:
    """Show the form, or the button of a sign-in link.

    With `again`, a user who is signed in gets the form, too: some pages need a fresh sign-in. Changes nothing, because
    scanners follow links.
    """
    target, code = addresses.local(request.args.get("next", "")), request.args.get("code")
    if code is not None:
        return _link_page(target, code)
    if not current_user.is_authenticated:
        return _login_page(target)
    if "again" not in request.args:
        return redirect(target)
    return _login_page(target, name=current_user.name, is_again=True)


@sign_in.post("/login")
@public(is_page=True)
def begin() -> ResponseReturnValue:
    """Sign in with the code of a link, or with name and password."""
    target, code = addresses.local(request.form.get("next", "")), request.form.get("code")
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    # Without this, another site could sign a visitor in as another user.
    if refused := auth.refused_form():
        refusal = f"{FORM_REFUSED[refused.reason]} ({refused.detail})"
        if code is not None:
            return _link_page(target, code, refusal)
        return _login_page(target, refusal, name), 403
    if limit := _count_attempt():
        return limit
    if code is not None:
        return _sign_in_by_code(target, code)
    return _sign_in_by_password(target, name, password)


def _sign_in_by_code(target: str, code: str) -> ResponseReturnValue:
    name = account.redeem_code(services().database, code)
    if name is None:
        _note_refusal(None, "link")
        return _login_page(target, LINK_ENDED), 401
    _begin_session(name, "link")
    return redirect(target, 303)


def _sign_in_by_password(target: str, name: str, password: str) -> ResponseReturnValue:
    """Sign in with name and password.

    A wrong name and a wrong password get the same response after the same time.
    """
    if not passwords.matches(user.password_hash(services().database, name), password):
        _note_refusal(name, "password")
        return _login_page(target, "The name or password is wrong.", name), 401
    _begin_session(name, "password")
    return redirect(target, 303)


@sign_in.post("/logout")
@requires(READ, is_page=True)
def logout() -> ResponseReturnValue:
    """End the session for every copy of its cookie.

    Its open connections end too.
    """
    if current_user.is_authenticated:
        _end_session()
        log.info(LogMessage("signed out", name=identity.principal().name, address=request.remote_addr))
    return redirect(url_for("sign_in.login"), 303)


@sign_in.get("/password")
@requires(READ, is_page=True)
def password() -> ResponseReturnValue:
    """Show the form for the user's own password."""
    if not identity.principal().is_session:
        return answer(403, "Tokens have no password. Sign in to set yours.")
    return _password_page()


@sign_in.post("/password")
@requires(READ, is_page=True)
def set_password() -> ResponseReturnValue:
    """Set the user's own password.

    All sessions end, and this browser gets a new one.
    """
    name = identity.principal().name
    if not identity.principal().is_session:
        return answer(403, "Tokens have no password. Sign in to set yours.")
    if refusal := _count_attempt():
        return refusal
    stored = user.password_hash(services().database, name)
    if stored is not None and not passwords.matches(stored, request.form.get("current", "")):
        return _password_page("The current password is wrong."), 403
    chosen = request.form.get("password", "")
    if chosen != request.form.get("again", chosen):
        return _password_page("The passwords don't match."), 422
    try:
        user.set_password(services().database, name, passwords.hash_of(chosen), by=name)
    except ValueError as error:
        return _password_page(f"{str(error)[0].upper()}{str(error)[1:]}."), 422
    _begin_session(name, "password")
    return redirect(url_for("sign_in.password", saved=1), 303)


def _count_attempt() -> Response | None:
    return limits.refusal("attempts to sign in", limits.client(), services().settings.sign_ins_per_minute)


def _begin_session(name: str, how: str) -> None:
    """Sign *name* in with a new key.

    The new key replaces any key that another site has set in the cookie.
    """
    if current_user.is_authenticated:
        _end_session()
    session.clear()
    session.permanent = True
    lifetime = timedelta(days=services().settings.session_days)
    facts: dict[str, Any] = {"how": how, "by": name, "address": request.remote_addr or ""}
    key = account.create_session(services().database, name, lifetime, **facts)
    services().part(OriginRights).grants.share(f"session:{account.hash_of(key)}")
    login_user(auth.Visitor(key))
    log.info(LogMessage("signed in", name=name, how=how, address=request.remote_addr))


def _end_session() -> None:
    account.end_session(services().database, current_user.get_id())
    logout_user()
    session.clear()


def _note_refusal(name: str | None, how: str) -> None:
    log.warning(LogMessage("sign-in refused", how=how, address=request.remote_addr))
    known = name if name and user.find(services().database, name) else None
    account.note_refusal(services().database, known, how=how, address=request.remote_addr or "")


def _login_page(target: str, refusal: str | None = None, name: str = "", *, is_again: bool = False) -> str:
    needs_link = not account.has_operator_with_password(services().database)
    return render_template(
        "login.html", problem=refusal, next=target, name=name, needs_link=needs_link, is_again=is_again
    )


def _link_page(target: str, code: str, refusal: str | None = None) -> ResponseReturnValue:
    name = account.find_code(services().database, code)
    if name is None:
        return _login_page(target, LINK_ENDED), 401
    page = render_template("link.html", problem=refusal, next=target, code=code, name=name)
    # A full Referer would contain the code. Flask-WTF needs only the origin over TLS.
    return page, 403 if refusal else 200, {"Referrer-Policy": "strict-origin"}


def _password_page(refusal: str | None = None) -> str:
    has_one = user.password_hash(services().database, identity.principal().name) is not None
    is_saved = has_one and not refusal and "saved" in request.args
    return render_template(
        "password.html", problem=refusal, has_password=has_one, is_saved=is_saved, min_chars=passwords.MIN_CHARS
    )
