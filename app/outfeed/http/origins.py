"""Origins: which site's page sends a request, and what it may use.

A page is this server's own if the browser says so (Sec-Fetch-Site), or if its origin has a host that the server is
known by: the Host of the request, X-Forwarded-Host of a trusted proxy, or the host of OUTFEED_PUBLIC_URL.

Pages of sites that OUTFEED_ALLOWED_ORIGINS names may load the module with its imports, its tables of event types,
and the feed. A cookie never counts for them. Such a page's own server requests a ticket with its token
(access/tickets.py), and the page opens one WebSocket with the ticket.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import Response, request

from outfeed.http.proxies import FORWARDED_HOST
from outfeed.http.services import serving
from outfeed.text import escaped

SHARED_PATHS = re.compile(r"/static/event-feed(/[a-z-]+)?\.js|/static/event-types\.json|/api/(feed|types)")
PREFLIGHT_SECS = 600
MAX_SHOWN_CHARS = 200
_SITE = "Sec-Fetch-Site"
_PORTS = {"http": ":80", "https": ":443"}
_ADVICE = "set OUTFEED_PUBLIC_URL, or have a trusted proxy send X-Forwarded-Host"


# --- the page that sends the request ----------------------------------------------------------------------------------


def own_hosts() -> dict[str, str]:
    """Return each host, with its port, that this server is known by.

    The keys are the headers or settings that name the hosts.
    """
    found = {"Host": request.host}
    if forwarded := request.environ.get(FORWARDED_HOST):
        found["X-Forwarded-Host"] = forwarded
    if public_url := serving().settings.public_url:
        found["OUTFEED_PUBLIC_URL"] = urlsplit(public_url).netloc
    return found


def why_foreign_origin() -> str | None:
    """Return why the request's Origin is another site's.

    Returns None if the Origin is this site's, or absent.
    """
    origin = request.headers.get("Origin")
    if origin is None or request.headers.get(_SITE) == "same-origin":
        return None
    return _mismatch("Origin", origin)


def why_foreign_form() -> str | None:
    """Return why a form that was sent over TLS is not from this site.

    The token in the form is checked too.
    """
    return None if request.headers.get(_SITE) == "same-origin" else why_foreign()


def why_foreign() -> str | None:
    """Return why the request is not from a page of this site.

    A request that a person makes in the address bar counts as this site's. Browsers send Sec-Fetch-Site only over TLS
    and to loopback. Without it, Origin or Referer must name a host of this server, because a link on another site's
    page sends the cookie too.
    """
    site, origin = request.headers.get(_SITE), request.headers.get("Origin")
    if origin is not None and (mismatch := _mismatch("Origin", origin)):
        return mismatch
    if site is not None:
        return None if site in ("same-origin", "none") else f"Sec-Fetch-Site is {_quoted(site)}, not 'same-origin'"
    if origin is not None:
        return None
    if page := re.match(r"https?://[^/?#]+", request.headers.get("Referer", ""), re.IGNORECASE):
        return _mismatch("Referer", page[0])
    return "neither Sec-Fetch-Site, Origin nor Referer names the page that sent it"


def _mismatch(header: str, origin: str) -> str | None:
    """Return how *origin* differs from this server, or None if it matches.

    Over TLS an origin without TLS does not match.
    """
    scheme, _, netloc = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    is_weaker = request.is_secure and scheme == "http"
    hosts = own_hosts()
    if (
        port
        and not is_weaker
        and netloc.removesuffix(port) in {host.lower().removesuffix(port) for host in hosts.values()}
    ):
        return None
    known_as = ", ".join(f"{_quoted(host)} ({name})" for name, host in hosts.items())
    scheme = " over https" if is_weaker else ""
    return f"{header} is {_quoted(origin)}, and this server is {known_as}{scheme}: {_ADVICE}"


def _quoted(value: str) -> str:
    return f"'{escaped(value[:MAX_SHOWN_CHARS])}'"


# --- access by other sites --------------------------------------------------------------------------------------------


def is_allowed() -> bool:
    """Return whether OUTFEED_ALLOWED_ORIGINS lists the request's Origin."""
    origin = request.headers.get("Origin", "").lower()
    return origin in serving().settings.allowed_origins


def preflight() -> Response | None:
    """Return the response to an allowed CORS preflight, else None.

    Source: Fetch standard, section 3.2.2.
    """
    is_asked = request.method == "OPTIONS" and request.headers.get("Access-Control-Request-Method") in ("GET", "HEAD")
    if not (is_asked and _is_shared() and is_allowed()):
        return None
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = "GET"
    response.headers["Access-Control-Allow-Headers"] = "Authorization"
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECS)
    return response


def add_headers(response: Response) -> Response:
    """Allow the requesting page to read the response.

    Allow-Credentials is never sent: a cookie does not count for another site.
    """
    if _is_shared() and serving().settings.allowed_origins:
        response.vary.add("Origin")
        if is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _is_shared() -> bool:
    return SHARED_PATHS.fullmatch(request.path) is not None
