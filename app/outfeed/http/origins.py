"""Origins: which site's page sends a request, and what pages of other sites may use of this one.

A page is this server's own if the browser says so (Sec-Fetch-Site), or if its origin has a host that the server is
known by: the Host of the request, X-Forwarded-Host of a trusted proxy, or the host of OUTFEED_PUBLIC_URL.

Pages of sites that OUTFEED_ALLOWED_ORIGINS names get the module with those that it imports, its table of event types,
and the feed; never with a cookie. A page's server asks for a ticket in its own name (access/tickets.py), and the page
opens one WebSocket with it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import Response, request

from outfeed.http.proxies import FORWARDED_HOST
from outfeed.http.services import services
from outfeed.text import escaped

SHARED_PATHS = re.compile(r"/static/event-feed(/[a-z-]+)?\.js|/static/event-types\.json|/api/feed")
PREFLIGHT_SECS = 600
MAX_SHOWN_CHARS = 200
_SITE = "Sec-Fetch-Site"
_PORTS = {"http": ":80", "https": ":443"}
_ADVICE = "set OUTFEED_PUBLIC_URL, or have a trusted proxy send X-Forwarded-Host"


# --- which page sends it ----------------------------------------------------------------------------------------------


def own_hosts() -> dict[str, str]:
    """Return each host that this server is known by, with its port, by what says so."""
    found = {"Host": request.host}
    if forwarded := request.environ.get(FORWARDED_HOST):
        found["X-Forwarded-Host"] = forwarded
    if public_url := services().settings.public_url:
        found["OUTFEED_PUBLIC_URL"] = urlsplit(public_url).netloc
    return found


def why_foreign_origin() -> str | None:
    """Return why the request's Origin is another site's; None for an own one and for none."""
    origin = request.headers.get("Origin")
    if origin is None or request.headers.get(_SITE) == "same-origin":
        return None
    return _mismatch("Origin", origin)


def why_foreign_form() -> str | None:
    """Return why what is sent over TLS is not from a page of this site. The token in the form counts besides."""
    return None if request.headers.get(_SITE) == "same-origin" else why_foreign()


def why_foreign() -> str | None:
    """Return why the request can't be said to come from a page of this site, or from a person by the address bar.

    Browsers send Sec-Fetch-Site over TLS and to loopback only. Elsewhere Origin or Referer has to name a host of this
    server, since a link on another site's page sends the cookie as well.
    """
    site, origin = request.headers.get(_SITE), request.headers.get("Origin")
    if origin is not None and (mismatch := _mismatch("Origin", origin)):
        return mismatch
    if site is not None:
        return None if site in ("same-origin", "none") else f"Sec-Fetch-Site is {_shown(site)}, and not 'same-origin'"
    if origin is not None:
        return None
    if page := re.match(r"https?://[^/?#]+", request.headers.get("Referer", ""), re.IGNORECASE):
        return _mismatch("Referer", page[0])
    return "neither Sec-Fetch-Site, Origin nor Referer says which page sent it"


def _mismatch(header: str, origin: str) -> str | None:
    """Return what *origin* does not match, None if it matches. Over TLS the page itself must have come over TLS."""
    scheme, _, place = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    is_weaker = request.is_secure and scheme == "http"
    hosts = own_hosts()
    if (
        port
        and not is_weaker
        and place.removesuffix(port) in {host.lower().removesuffix(port) for host in hosts.values()}
    ):
        return None
    ours = ", ".join(f"{_shown(host)} ({name})" for name, host in hosts.items())
    scheme = " over https" if is_weaker else ""
    return f"{header} is {_shown(origin)}, and this server is {ours}{scheme}: {_ADVICE}"


def _shown(value: str) -> str:
    return f"'{escaped(value[:MAX_SHOWN_CHARS])}'"


# --- what other sites may use -----------------------------------------------------------------------------------------


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
