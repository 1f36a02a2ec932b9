"""Limits of connections at once and of calls a minute.

Each worker counts its own clients, and checks before any handshake. 0 means no limit.
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
    """Return every place when its request has ended."""
    app.teardown_request(_give_back)


def client() -> str:
    """Return the key that the request's limits are counted by."""
    return client_key(request.remote_addr)


def refusal(what: str, whose: str, per_minute: int) -> Response | None:
    """Count one call, or return the 429 if the limit is reached.

    The call is *what* by the client *whose*. A limit of 0 allows every call.
    """
    if not per_minute:
        return None
    wait_secs = services().rates.take(what, whose, per_minute)
    if not wait_secs:
        return None
    services().metrics.note_refusal(what.replace(" ", "_"), whose=whose, limit=per_minute)
    return later(429, f"more than {per_minute} {what} per minute", math.ceil(wait_secs))


def later(status: int, detail: str, wait_secs: int) -> Response:
    """Return a problem with Retry-After."""
    response = problem(status, f"{detail}; try again in {wait_secs} s")
    response.headers["Retry-After"] = str(wait_secs)
    return response


# --- connections that stay open, and exports --------------------------------------------------------------------------


def admit_connection() -> Response | None:
    """Take a place for the request's connection until it ends.

    Returns the refusal if no place is free.
    """
    refusal = _admit(services().admission, "connections")
    if refusal is None:
        note_admitted(request.environ)
    return refusal


def admit_export() -> Response | None:
    """Take a place for an export.

    Returns the refusal if too many exports run. `keep_place` keeps the place until the response is sent.
    """
    return _admit(services().exports, "exports")


def keep_place(response: Response) -> None:
    """Keep the request's place until all of *response* is sent.

    Without this call Flask ends the request, and returns the place, before it streams the response.
    """
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
