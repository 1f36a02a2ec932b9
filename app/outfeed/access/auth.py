"""Authentication of requests: tokens, tickets, sessions and CSRF.

Each route declares the permission that it needs (http/permission.py). A request is public, has a token or a ticket, or
belongs to a signed-in user. A cookie adds nothing to a bearer token. Every response gets the headers that protect a
browser.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

from flask import Flask, Response, current_app, g, redirect, request, url_for
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect

from outfeed.access.grants import Grants
from outfeed.access.rights import Rights
from outfeed.access.store import user
from outfeed.config import Settings
from outfeed.errors import ConfigError, SourceError
from outfeed.http import limits, origins, permission
from outfeed.http.headers import HEADERS
from outfeed.http.permission import Permission
from outfeed.http.problems import answer, problem, wants_page
from outfeed.http.services import services, serving
from outfeed.principal import ROLES, Principal
from outfeed.store import files

_FORM_REFUSED = {
    "csrf": "Your session changed. Go back, reload the page and try again.",
    "origin": "This form comes from another site.",
}
_SEND_TOKEN = "Send it as the header X-CSRFToken or the form field csrf_token."
csrf = CSRFProtect()


class Visitor(UserMixin):
    """A signed-in person, in the form that Flask-Login needs.

    Its id is the session's random key.
    """

    def __init__(self, key: str, principal: Principal | None = None) -> None:
        self.id = key
        self.principal = principal

    @classmethod
    def load(cls, key: str) -> Visitor | None:
        """Return the visitor of the session with that key, if it is valid."""
        principal = _grants().find_session(key)
        return cls(key, principal) if principal else None

    @property
    def name(self) -> str:
        return self.principal.name if self.principal else ""

    @property
    def has_password(self) -> bool:
        """Whether the user can sign in without a link."""
        return user.password_hash(services().database, self.name) is not None


class _Sessions(SecureCookieSessionInterface):
    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Send the session's cookie, except with static files.

        Browsers keep a static file longer than the cookie is valid.
        """
        if not request.path.startswith("/static/"):
            super().save_session(app, session, response)


def init_app(app: Flask) -> None:
    """Check every request to *app*.

    Call this before any other request handler is registered.
    """
    settings = app.extensions["outfeed"].settings
    app.config.update(
        SECRET_KEY=(key := secret_key(settings)),
        SESSION_COOKIE_NAME=cookie_name(key),
        SESSION_COOKIE_PATH=settings.prefix or "/",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=int(settings.session_days * 86_400),
        WTF_CSRF_SSL_STRICT=False,  # `refused_form` also checks Origin and Sec-Fetch-Site
        WTF_CSRF_CHECK_DEFAULT=False,  # `_admit` checks it, and only for requests that a cookie admits
        WTF_CSRF_TIME_LIMIT=None,  # a page stays open all day
    )
    app.session_interface = _Sessions()
    logins = LoginManager(app, add_context_processor=False)
    # The proxy instead of the user: it reads the database only if a template uses it. An outage's page must not read.
    app.context_processor(lambda: {"current_user": current_user, "visitor": visitor})
    logins.user_loader(Visitor.load)
    csrf.init_app(app)
    app.before_request(_admit)
    app.after_request(_add_headers)


def visitor() -> Principal | None:
    """Return the request's principal, for a page's menu.

    On a public page it is that of the browser's session. Returns None without a session, or if the database can't be
    read.
    """
    if "principal" in g:
        found: Principal = g.principal
        return found
    with suppress(SourceError):
        return current_user.principal if current_user.is_authenticated else None
    return None


# --- admission --------------------------------------------------------------------------------------------------------


def _admit() -> ResponseReturnValue | None:
    """Return the refusal of the request, or None if it is admitted."""
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
    if not needed.takes_only_tokens and current_user.is_authenticated and not _is_foreign_socket(needed):
        return _admit_visitor(needed.scope)
    return _refuse_unauthenticated(needed)


def _refuse_connection(needed: Permission) -> Response | None:
    """Count the attempt, and reject pages of sites that are not allowed.

    This happens before any lookup.
    """
    attempts = serving().settings.connection_attempts_per_minute
    if refusal := limits.refusal("connection attempts", limits.client(), attempts):
        return refusal
    mismatch = origins.why_foreign_origin() if needed.takes_tickets else None
    if mismatch is None or origins.is_allowed():
        return None
    note_refusal("origin", mismatch)
    return problem(403, f"the origin of this page is not allowed to open the feed: {mismatch}")


def _is_foreign_socket(needed: Permission) -> bool:
    """Return whether another site's page opens a socket.

    A cookie does not count for such a page, even if its site is allowed.
    """
    return needed.takes_tickets and origins.why_foreign_origin() is not None


def _admit_token(secret: str, scope: str) -> Response | None:
    found = _grants().find_token(secret)
    if found is None:
        return _challenge('Bearer error="invalid_token"', "this token is unknown, expired or revoked")
    if refusal := limits.refusal("requests", found.grant, serving().settings.requests_per_minute):
        return refusal
    serving().part(Rights).note_use(found.grant)
    return _require(found, scope)


def _admit_ticket(ticket: str, scope: str) -> Response | None:
    found = _grants().redeem_ticket(ticket)
    if found is None:
        return _challenge("Bearer", "this ticket is used or expired; request a new one")
    return _require(found, scope)


def _admit_visitor(scope: str) -> Response | None:
    if "consumer" in request.args and (mismatch := origins.why_foreign()):
        note_refusal("origin", mismatch)
        return answer(
            403,
            f"consumer: a session may use a consumer only from a page of this site ({mismatch}); send a token as"
            " `Authorization: Bearer outfeed_…`",
        )
    if refusal := refused_form():
        if wants_page():
            return answer(403, f"{_FORM_REFUSED[refusal.reason]} ({refusal.detail})")
        return answer(403, f"{refusal.detail} {_SEND_TOKEN}" if refusal.reason == "csrf" else refusal.detail)
    return _require(current_user.principal, scope)


class Refusal(NamedTuple):
    """The reason of a rejected form: origin or csrf, and the mismatch."""

    reason: str
    detail: str


def refused_form() -> Refusal | None:
    """Return why the request is not from a form or script of this site.

    Returns None for safe methods too. Over TLS the page's origin is checked in addition to its CSRF token. A refusal is
    counted and logged.
    """
    if request.method not in current_app.config["WTF_CSRF_METHODS"]:
        return None
    if request.is_secure and (mismatch := origins.why_foreign_form()):
        return _refuse_form("origin", mismatch)
    try:
        csrf.protect()
    except CSRFError as error:
        name = current_app.config["SESSION_COOKIE_NAME"]
        why = error.description if name in request.cookies else f"{error.description} The cookie {name} is missing."
        return _refuse_form("csrf", why)
    return None


def _refuse_form(reason: str, detail: str) -> Refusal:
    note_refusal(reason, detail)
    return Refusal(reason, detail)


def note_refusal(reason: str, detail: str) -> None:
    """Count the request's refusal and log *detail*, the mismatch.

    The first refusal of each reason in a minute is logged.
    """
    serving().metrics.note_refusal(reason, path=request.path, address=request.remote_addr, detail=detail)


def _require(found: Principal, scope: str) -> Response | None:
    """Set *found* as the request's principal.

    Returns the refusal if it lacks *scope*.
    """
    g.principal = found
    if found.may(scope):
        return None
    serving().metrics.note_refusal("forbidden", path=request.path, principal=found.name, scope=scope)
    return answer(403, _missing_permission(found, scope))


def _missing_permission(found: Principal, scope: str) -> str:
    """Return what *found* needs for *scope*.

    A person needs a role, and a program needs the scope.
    """
    if not found.is_session:
        return f"this needs the scope {scope}"
    role = next(role for role, scopes in ROLES.items() if scope in scopes)
    aim = "to view this page" if wants_page() and request.method in permission.SAFE_METHODS else "for this"
    return f"You need the {role} role {aim}. You're signed in as {found.name} ({found.role})."


def _refuse_unauthenticated(needed: Permission) -> ResponseReturnValue:
    """Redirect a browser to the sign-in. Reject any other request."""
    accepts_html = not request.accept_mimetypes or request.accept_mimetypes.accept_html
    if needed.is_page and request.method in ("GET", "HEAD") and accepts_html:
        _grants().find_session("")  # an outage raises here, not after the redirect to the sign-in
        query = request.query_string.decode("ascii", "replace")
        target = quote(request.script_root + request.path) + (f"?{query}" if query else "")
        return redirect(f"{url_for('sign_in.login')}?{urlencode({'next': target})}")
    if wants_page():  # the session ended while its form was open
        return _challenge("Bearer", "Your session ended; nothing was saved. Sign in and try again.")
    return _challenge("Bearer", "sign in, or send a token as `Authorization: Bearer outfeed_…`")


def _challenge(scheme: str, detail: str) -> Response:
    serving().metrics.note_refusal("unauthorized", path=request.path, address=limits.client())
    response = answer(401, detail)
    response.headers["WWW-Authenticate"] = scheme
    return response


def _grants() -> Grants:
    return serving().part(Rights).grants


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
    """Return the key that signs session cookies.

    It is OUTFEED_SECRET_KEY, else the key in a file beside the database. The first call creates the file with mode
    0600. Processes that start at the same time get the same key. Raises ConfigError.
    """
    check_key(settings)
    if settings.secret_key:
        return settings.secret_key.get_secret_value()
    path = _key_file(settings)
    with _translate_errors(path):
        if not path.exists():
            _make_key(path)
        return path.read_text(encoding="ascii").strip()


def cookie_name(key: str) -> str:
    """Return the name of the session's cookie.

    Cookies ignore the port, so two servers on one host need two names.
    """
    return f"outfeed_session_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def check_key(settings: Settings) -> None:
    """Raise ConfigError if the key file can't be used. Creates no file."""
    path = _key_file(settings)
    with _translate_errors(path):
        if settings.secret_key or not path.exists():
            return
        key = path.read_text(encoding="ascii").strip()
    if len(key) < 16:
        raise ConfigError(f"{path} holds no usable key; delete it, or set OUTFEED_SECRET_KEY")


def _key_file(settings: Settings) -> Path:
    return Path(f"{settings.database}.secret")


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't keep a secret key in {path} ({error}); set OUTFEED_SECRET_KEY") from error


def _make_key(path: Path) -> None:
    """Write a new key to *path* atomically.

    If another process was first, its key stays.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        files.give_to_owner_of_folder(draft)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
