"""Limits: how many connections at once, how often a minute. Each worker counts for itself.

Asked before any handshake. 0 is no limit.
"""

from __future__ import annotations

import math

from flask import Flask, Response, g, request

from outfeed.http.admission import Admission
from outfeed.http.problems import problem
from outfeed.http.proxies import client_key
from outfeed.http.server.incoming import note_admitted
from outfeed.http.services import services

RETRY_AFTER_SECS = 5


def init_app(app: Flask) -> None:
    """Have every place given back when its request has ended."""
    app.teardown_request(_give_back)


def client() -> str:
    """Return whom the request's limits are counted for."""
    return client_key(request.remote_addr)


def refusal(what: str, whose: str, per_minute: int) -> Response | None:
    """Count one more *what* of *whose*; return the 429 where that is one too many."""
    if not per_minute:
        return None
    wait_secs = services().rates.take(what, whose, per_minute)
    if not wait_secs:
        return None
    services().metrics.note_refusal(what.replace(" ", "_"), whose=whose, limit=per_minute)
    return later(429, f"more than {per_minute} {what} per minute", math.ceil(wait_secs))


def later(status: int, detail: str, wait_secs: int) -> Response:
    """Return the problem with the seconds after which to try again."""
    response = problem(status, f"{detail}; try again in {wait_secs} s")
    response.headers["Retry-After"] = str(wait_secs)
    return response


# --- connections that stay open, and exports --------------------------------------------------------------------------


def admit_connection() -> Response | None:
    """Take a place for the request's connection until it ends; return the refusal where there is none."""
    refusal = _admit(services().admission, "connections")
    if refusal is None:
        note_admitted(request.environ)
    return refusal


def admit_export() -> Response | None:
    """Take a place for an export; return the refusal if too many are on their way. `keep_place` holds it."""
    return _admit(services().exports, "exports")


def keep_place(response: Response) -> None:
    """Keep the request's place until all of *response* is sent: Flask ends a request before it streams the answer."""
    admission, address = g.pop("place")
    response.call_on_close(lambda: admission.give_back(address))


def _admit(admission: Admission, what: str) -> Response | None:
    address = client()
    match admission.take(address):
        case "server":
            services().metrics.note_refusal(what, address=address)
            return later(503, f"too many {what}", RETRY_AFTER_SECS)
        case "address":
            services().metrics.note_refusal(f"{what}_of_address", address=address)
            return later(429, f"too many {what} from your address", RETRY_AFTER_SECS)
    g.place = admission, address
    return None


def _give_back(_: BaseException | None) -> None:
    if (place := g.pop("place", None)) is not None:
        admission, address = place
        admission.give_back(address)
