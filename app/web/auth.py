"""Who may: tokens, the operator's session, CSRF and the headers that defend a browser.

Decided before routing, so that a stranger can't tell which paths exist. A request is public, or bears a token, or
belongs to a signed-in operator; a bearer token is never topped up by a cookie.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from flask import Flask, Response, current_app, g, redirect, render_template, request, session
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_wtf.csrf import CSRFError, CSRFProtect

from app.config import Settings
from app.errors import ConfigError
from app.store import account
from app.store.database import Database
from app.web.problems import answer, problem

PUBLIC_PATHS = {"/healthz", "/readyz", "/login"}
MACHINE_PATHS = {"api", "ws", "metrics"}  # first segments; a stranger gets 401 there, never a page
DOCS = "/api/docs"  # the one page among them
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
HOME = "/swarm/live"
OPERATOR = "operator"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    "img-src 'self' data:",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not no-referrer: over TLS Flask-WTF compares the referrer with the host.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = logging.getLogger(__name__)
_csrf = CSRFProtect()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from: a token by its name, or the operator."""

    name: str
    scopes: tuple[str, ...]

    def may(self, scope: str) -> bool:
        """Return whether *scope* is granted; `admin` includes the others."""
        return scope in self.scopes or account.ADMIN in self.scopes


class _Operator(UserMixin):
    """A signed-in operator as Flask-Login wants one; its id is the session's random key."""

    def __init__(self, key: str) -> None:
        self.id = key


class _Sessions(SecureCookieSessionInterface):
    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def init_app(app: Flask) -> None:
    """Guard every route of *app*, and add /login and /logout. Call it before anything else handles requests."""
    app.config.update(
        SESSION_COOKIE_NAME="outfeed_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=account.SESSION_LIFETIME,
        WTF_CSRF_CHECK_DEFAULT=False,  # `_admit` asks for it, only where a cookie is what lets a request in
        WTF_CSRF_TIME_LIMIT=None,  # a page stays open all day
    )
    app.session_interface = _Sessions()
    logins = LoginManager(app)
    logins.user_loader(_load_operator)
    _csrf.init_app(app)
    app.before_request(_admit)
    app.after_request(_add_headers)
    app.add_url_rule("/login", view_func=login, methods=["GET"])
    app.add_url_rule("/logout", view_func=logout, methods=["POST"])


def current_principal() -> Principal | None:
    """Return who this request comes from; None only on public paths."""
    return g.get("principal")


# --- who may ----------------------------------------------------------------------------------------------------------


def _admit() -> ResponseReturnValue | None:
    """Let the request pass, or return its refusal."""
    if request.path in PUBLIC_PATHS or request.path.startswith("/static/"):
        return None
    if request.path == "/ws" and _is_foreign(request.headers.get("Origin"), request.host):
        return problem(403, "this page's origin may not open the feed")
    if request.authorization and request.authorization.type == "bearer":
        return _admit_token(request.authorization.token or "")
    if current_user.is_authenticated:
        return _admit_operator()
    return _turn_away()


def _admit_token(secret: str) -> Response | None:
    token = account.find_token(_database(), secret)
    if token is None:
        return _challenge('Bearer error="invalid_token"', "this token is unknown or was revoked")
    g.principal = Principal(token.name, token.scopes)
    needed = account.READ if request.method in SAFE_METHODS else account.WRITE
    if g.principal.may(needed):
        return None
    return problem(403, f"this token lacks the scope {needed}")


def _admit_operator() -> Response | None:
    try:
        _csrf.protect()
    except CSRFError as error:
        return answer(403, f"{error.description} Send it as the header X-CSRFToken or the form field csrf_token.")
    g.principal = Principal(OPERATOR, account.SCOPES)
    return None


def _turn_away() -> ResponseReturnValue:
    """Send a stranger who wants a page to the sign-in, and refuse any other."""
    accepts_html = not request.accept_mimetypes or request.accept_mimetypes.accept_html
    is_page = request.path == DOCS or request.path.split("/")[1] not in MACHINE_PATHS
    if is_page and request.method in ("GET", "HEAD") and accepts_html:
        query = request.query_string.decode("ascii", "replace")
        target = quote(request.path) + (f"?{query}" if query else "")
        return redirect("/login?" + urlencode({"next": target}))
    return _challenge("Bearer", "sign in, or send a token as `Authorization: Bearer outfeed_…`")


def _challenge(scheme: str, detail: str) -> Response:
    response = problem(401, detail)
    response.headers["WWW-Authenticate"] = scheme
    return response


def _is_foreign(origin: str | None, host: str) -> bool:
    """Return whether a browser sent *origin* for a page of another host or port. An absent one is not foreign."""
    if origin is None:
        return False
    scheme, found, place = origin.lower().partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme)
    return not (found and port) or place.removesuffix(port) != host.lower().removesuffix(port)


def _load_operator(key: str) -> _Operator | None:
    return _Operator(key) if account.has_session(_database(), key) else None


def _database() -> Database:
    return current_app.extensions["outfeed"].database


# --- signing in and out -----------------------------------------------------------------------------------------------


def login() -> ResponseReturnValue:
    """Sign the operator in with a one-time code, or show how to get one. HEAD doesn't use the code up."""
    target, code = _local(request.args.get("next", HOME)), request.args.get("code")
    if code is None or request.method == "HEAD":
        return redirect(target) if current_user.is_authenticated else _login_page(target)
    if not account.redeem_code(_database(), code):
        log.warning("sign-in refused address=%s", request.remote_addr)
        return _login_page(target, "This link has been used or has expired. Restart the server to get a new one."), 401
    session.clear()
    session.permanent = True
    login_user(_Operator(account.create_session(_database())))
    log.info("signed in name=%s address=%s", OPERATOR, request.remote_addr)
    return redirect(target)


def logout() -> ResponseReturnValue:
    """End the session, here and for any copy of its cookie."""
    if current_user.is_authenticated:
        account.end_session(_database(), current_user.get_id())
        logout_user()
        session.clear()
        log.info("signed out name=%s address=%s", OPERATOR, request.remote_addr)
    return redirect("/login", 303)


def _login_page(target: str, refusal: str | None = None) -> str:
    return render_template("login.html", problem=refusal, next=target)


def _local(target: str) -> str:
    """Return *target* if it is a path on this server, else the home page. Browsers read a backslash as a slash."""
    is_local = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_local else HOME


# --- headers and the key ----------------------------------------------------------------------------------------------


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def secret_key(settings: Settings) -> str:
    """Return what signs the session cookies: OUTFEED_SECRET_KEY, else the key kept beside the database.

    Made on the first call, mode 0600; processes that start at once get the same one. Raises ConfigError.
    """
    if settings.secret_key:
        return settings.secret_key.get_secret_value()
    path = Path(f"{settings.database}.secret")
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't keep a secret key in {path} ({error}); set OUTFEED_SECRET_KEY") from error
    if len(key) < 16:
        raise ConfigError(f"{path} holds no usable key; delete it, or set OUTFEED_SECRET_KEY")
    return key


def _make_key(path: Path) -> None:
    """Write a new key to *path*, whole or not at all; where another process was first, its key stays."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
