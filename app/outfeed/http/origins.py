"""Origins: what pages of other sites may use of this one, if OUTFEED_ALLOWED_ORIGINS names them.

They get the module with those that it imports, its table of event types, and the feed; never with a cookie. A page's
server asks for a ticket in its own name (web/tickets.py), and the page opens one WebSocket with it.
"""

from __future__ import annotations

import re

from flask import Response, request

from outfeed.http.services import services

SHARED_PATHS = re.compile(r"/static/event-feed(/[a-z-]+)?\.js|/static/event-types\.json|/api/feed")
PREFLIGHT_SECS = 600


def is_foreign(origin: str | None, host: str) -> bool:
    """Return whether a browser sent *origin* for a page of another host or port. An absent one is not foreign."""
    if origin is None:
        return False
    scheme, found, place = origin.lower().partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme)
    return not (found and port) or place.removesuffix(port) != host.lower().removesuffix(port)


def is_asked_by_own_page() -> bool:
    """Return whether the browser says that a page of this site sends the request, or a person by the address bar.

    Browsers send Sec-Fetch-Site over TLS and to loopback only. Elsewhere Origin or Referer has to name this host, since
    a link on another site's page sends the cookie as well.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if is_foreign(origin, request.host):
        return False
    if site is not None:
        return site in ("same-origin", "none")
    page = re.match(r"https?://[^/?#]+", request.headers.get("Referer", ""), re.IGNORECASE)
    return origin is not None or (page is not None and not is_foreign(page[0], request.host))


def is_allowed() -> bool:
    """Return whether the request comes from a page of another site that we know."""
    origin = request.headers.get("Origin", "").lower()
    return origin in services().settings.allowed_origins


def preflight() -> Response | None:
    """Return the answer to a browser that asks whether it may (Fetch standard, section 3.2.2), where it may."""
    is_asked = request.method == "OPTIONS" and request.headers.get("Access-Control-Request-Method") in ("GET", "HEAD")
    if not (is_asked and _is_shared() and is_allowed()):
        return None
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = "GET"
    response.headers["Access-Control-Allow-Headers"] = "Authorization"
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECS)
    return response


def add_headers(response: Response) -> Response:
    """Let the page that asked read the answer. No Allow-Credentials: a cookie never counts for another site."""
    if _is_shared() and services().settings.allowed_origins:
        response.vary.add("Origin")
        if is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _is_shared() -> bool:
    return SHARED_PATHS.fullmatch(request.path) is not None
