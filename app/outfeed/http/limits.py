"""Limits of connections at once and of calls a minute.

Each worker counts its own clients, and checks before any handshake. 0 means no limit.
"""

from __future__ import annotations

import math

from flask import Flask, Response, g, request

from outfeed.http.admission import Admission, AdmissionSlot
from outfeed.http.problems import problem
from outfeed.http.proxies import client_key
from outfeed.http.server.incoming import note_admitted, resumed_in
from outfeed.http.services import serving

RETRY_AFTER_SECS = 5


def init_app(app: Flask) -> None:
    """Release every slot when its request has ended.

    A request that is served again after a wait has its slot from the start, so that it is released after any error.
    """
    app.before_request(_take_slot_back)
    app.teardown_request(_release_slot)


def client() -> str:
    """Return the key that the request's limits are counted by."""
    return client_key(request.remote_addr)


def refusal(action: str, caller: str, per_minute: int) -> Response | None:
    """Count one call, or return the 429 if the limit is reached.

    *action* is in the plural, such as "requests". *caller* is the key that the limit is counted by. A limit of 0 allows
    every call. A request that is served again after a wait was counted before.
    """
    if not per_minute or resumed_in(request.environ):
        return None
    wait_secs = serving().rates.count_call(action, caller, per_minute)
    if not wait_secs:
        return None
    serving().metrics.note_refusal(action.replace(" ", "_"), caller=caller, limit=per_minute)
    return retry_later(429, f"more than {per_minute} {action} per minute", math.ceil(wait_secs))


def retry_later(status: int, detail: str, wait_secs: int) -> Response:
    """Return a problem with Retry-After."""
    response = problem(status, f"{detail}; try again in {wait_secs} s")
    response.headers["Retry-After"] = str(wait_secs)
    return response


# --- connections that stay open, and exports --------------------------------------------------------------------------


def admit_connection() -> Response | None:
    """Acquire a slot for the request's connection until it ends.

    Returns the refusal if no slot is free.
    """
    refusal = admit_wait()
    if refusal is None:
        note_admitted(request.environ)
    return refusal


def admit_wait() -> Response | None:
    """Acquire a slot of the connections for a request that waits.

    It holds no thread while it waits (http/parking.py). Returns the refusal if no slot is free.
    """
    return _admit(serving().admission, "connections")


def admit_export() -> Response | None:
    """Acquire a slot for an export.

    Returns the refusal if too many exports run. `hold_slot` holds the slot until the response is sent.
    """
    return _admit(serving().exports, "exports")


def hold_slot(response: Response) -> None:
    """Hold the request's slot until all of *response* is sent.

    Without this call Flask ends the request, and releases the slot, before it streams the response.
    """
    response.call_on_close(hand_over_slot().release)


def hand_over_slot() -> AdmissionSlot:
    """Return the request's slot, for a caller that releases it."""
    found: AdmissionSlot = g.pop("slot")
    return found


def _admit(admission: Admission, kind: str) -> Response | None:
    address = client()
    match admission.acquire(address):
        case "server":
            serving().metrics.note_refusal(kind, address=address)
            return retry_later(503, f"too many {kind}", RETRY_AFTER_SECS)
        case "address":
            serving().metrics.note_refusal(f"{kind}_of_address", address=address)
            return retry_later(429, f"too many {kind} from your address", RETRY_AFTER_SECS)
    g.slot = AdmissionSlot(admission, address)
    return None


def _take_slot_back() -> None:
    if found := resumed_in(request.environ):
        g.slot = found.slot


def _release_slot(_: BaseException | None) -> None:
    if "slot" in g:
        hand_over_slot().release()
