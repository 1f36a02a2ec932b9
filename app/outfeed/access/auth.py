"""Who may: tokens, tickets, sessions, CSRF and the headers that defend a browser.

Each route declares the permission that it needs (web/permission.py). A request is public, or bears a token or a ticket,
or belongs to a person who signed in; a bearer token is never topped up by a cookie.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import quote, urlencode

from flask import Flask, Response, g, redirect, request
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect

from outfeed.access.rights import Rights
from outfeed.access.store import account, user
from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.http import limits, origins, permission
from outfeed.http.permission import Permission
from outfeed.http.problems import answer, problem, wants_page
from outfeed.http.services import services
from outfeed.principal import Principal
from outfeed.store.database import Database

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    "object-src 'none'; img-src 'self' data:",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not no-referrer: over TLS Flask-WTF compares the referrer with the host.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

csrf = CSRFProtect()


class Visitor(UserMixin):
    """A person who signed in, as Flask-Login wants one; its id is the session's random key."""

    def __init__(self, key: str, principal: Principal | None = None) -> None:
        self.id = key
        self.principal = principal

    @classmethod
    def load(cls, key: str) -> Visitor | None:
        """Return whom the session with that key belongs to, if it is still good."""
        principal = account.find_session(_database(), key)
        return cls(key, principal) if principal else None

    @property
    def name(self) -> str:
        """The user's name."""
        return self.principal.name if self.principal else ""

    @property
    def has_password(self) -> bool:
        """Whether they can come back without a link."""
        return user.password_hash(_database(), self.name) is not None


class _Sessions(SecureCookieSessionInterface):
    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Not with what is static: browsers keep one copy of it, whatever becomes of the cookie."""
        if not request.path.startswith("/static/"):
            super().save_session(app, session, response)


def init_app(app: Flask) -> None:
    """Guard every route of *app*. Call it before anything else handles requests."""
    settings = app.extensions["outfeed"].settings
    app.config.update(
        SECRET_KEY=secret_key(settings),
        SESSION_COOKIE_NAME="outfeed_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=int(settings.session_days * 86_400),
        WTF_CSRF_CHECK_DEFAULT=False,  # `_admit` asks for it, only where a cookie is what lets a request in
        WTF_CSRF_TIME_LIMIT=None,  # a page stays open all day
    )
    app.session_interface = _Sessions()
    logins = LoginManager(app, add_context_processor=False)
    # The proxy, not the user: it reads the database only where a template asks, and the page of an outage must not.
    app.context_processor(lambda: {"current_user": current_user})
    logins.user_loader(Visitor.load)
    csrf.init_app(app)
    app.before_request(_admit)
    app.after_request(_add_headers)


# --- who may ----------------------------------------------------------------------------------------------------------


def _admit() -> ResponseReturnValue | None:
    """Let the request pass, or return its refusal."""
    needed = permission.of_request()
    if needed.scope is None:
        return None
    if needed.is_connection and (refusal := _refuse_connection(needed)):
        return refusal
    if answered := origins.preflight():
        return answered
    if request.authorization and request.authorization.type == "bearer":
        return _admit_token(request.authorization.token or "", needed.scope)
    if needed.takes_tickets and "ticket" in request.args:
        return _admit_ticket(request.args["ticket"], needed.scope)
    if current_user.is_authenticated and not _is_from_elsewhere(needed):
        return _admit_visitor(needed.scope)
    return _turn_away(needed)


def _refuse_connection(needed: Permission) -> Response | None:
    """Count the attempt, before anything is looked up, and refuse pages of sites that we don't know."""
    attempts = services().settings.connection_attempts_per_minute
    if refusal := limits.refusal("connection attempts", limits.client(), attempts):
        return refusal
    if _is_from_elsewhere(needed) and not origins.is_allowed():
        return problem(403, "this page's origin may not open the feed")
    return None


def _is_from_elsewhere(needed: Permission) -> bool:
    """Return whether another site's page opens a socket: allowed or not, our cookie doesn't speak for it."""
    return needed.takes_tickets and origins.is_foreign(request.headers.get("Origin"), request.host)


def _admit_token(secret: str, scope: str) -> Response | None:
    found = account.find_token(_database(), secret)
    if found is None:
        return _challenge('Bearer error="invalid_token"', "this token is unknown, has expired or was revoked")
    if refusal := limits.refusal("requests", found.grant, services().settings.requests_per_minute):
        return refusal
    services().part(Rights).note_use(found.grant)
    return _require(found, scope)


def _admit_ticket(ticket: str, scope: str) -> Response | None:
    found = account.redeem_ticket(_database(), ticket)
    if found is None:
        return _challenge("Bearer", "this ticket was used or has expired; ask for another")
    return _require(found, scope)


def _admit_visitor(scope: str) -> Response | None:
    if "consumer" in request.args and not origins.is_asked_by_own_page():
        services().metrics.note_refusal("forbidden")
        return answer(
            403,
            "consumer: a session may use a consumer only from a page of this site (Sec-Fetch-Site, Origin or Referer"
            " must say so); send a token as `Authorization: Bearer outfeed_…`",
        )
    try:
        csrf.protect()
    except CSRFError as error:
        if wants_page():
            return answer(403, "You have signed in anew since this page was loaded. Go back, reload it, and try again.")
        return answer(403, f"{error.description} Send it as the header X-CSRFToken or the form field csrf_token.")
    return _require(current_user.principal, scope)


def _require(found: Principal, scope: str) -> Response | None:
    """Take *found* for the request's principal; return the refusal if it lacks *scope*."""
    g.principal = found
    if found.may(scope):
        return None
    services().metrics.note_refusal("forbidden", path=request.path, principal=found.name, scope=scope)
    return answer(403, f"this needs the scope {scope}")


def _turn_away(needed: Permission) -> ResponseReturnValue:
    """Send a stranger who wants a page to the sign-in, and refuse any other."""
    accepts_html = not request.accept_mimetypes or request.accept_mimetypes.accept_html
    if needed.is_page and request.method in ("GET", "HEAD") and accepts_html:
        query = request.query_string.decode("ascii", "replace")
        target = quote(request.path) + (f"?{query}" if query else "")
        return redirect("/login?" + urlencode({"next": target}))
    if wants_page():  # a form that was open for longer than its session
        return _challenge("Bearer", "You are signed out, and nothing was done.")
    return _challenge("Bearer", "sign in, or send a token as `Authorization: Bearer outfeed_…`")


def _challenge(scheme: str, detail: str) -> Response:
    services().metrics.note_refusal("unauthorized", path=request.path, address=limits.client())
    response = answer(401, detail)
    response.headers["WWW-Authenticate"] = scheme
    return response


def _database() -> Database:
    return services().database


# --- headers and the key ----------------------------------------------------------------------------------------------


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    origins.add_headers(response)
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
