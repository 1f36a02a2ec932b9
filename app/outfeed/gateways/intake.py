"""Intake: the only way in which gateways write events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Response, request

from outfeed.errors import Forbidden, InvalidEvent, InvalidRequest
from outfeed.events import make_event
from outfeed.http.api.operation import json_answer
from outfeed.http.services import services
from outfeed.principal import Principal
from outfeed.store import event_log
from outfeed.store.event_log import Recorded

MAX_EVENTS = 1000  # of a request, as for POST /api/events


def record(principal: Principal, events: Sequence[Mapping[str, Any]], *, keeps_known: bool = False) -> Response:
    """Append *events* as `append` does, and answer with receipts.

    The status is 201 if any event is new, else 200.
    """
    recorded = append(principal, events, keeps_known=keeps_known)
    return json_answer([receipt(one) for one in recorded], 201 if any(one.is_new for one in recorded) else 200)


def append(principal: Principal, events: Sequence[Mapping[str, Any]], *, keeps_known: bool = False) -> list[Recorded]:
    """Append *events* as *principal*, all or none; return them in order.

    The events have the names of `log_event`. With *keeps_known*, an event whose id exists stays as it is, also if its
    content differs. Raises Forbidden, InvalidEvent, EventConflict, InvalidRequest.
    """
    if len(events) > MAX_EVENTS:
        raise InvalidRequest("invalid_event", f"a request has at most {MAX_EVENTS:,} events, got {len(events):,}")
    for event_type in dict.fromkeys(event["event_type"] for event in events):
        principal.require_write(event_type)
    current = services()
    return event_log.record(current.database, events, current.settings.max_event_bytes, keeps_known=keeps_known)


def receipt(one: Recorded) -> dict[str, Any]:
    """Return the receipt of a written event, as the API answers with it."""
    return {"id": one.event.id, "seq": one.seq, "epoch": one.epoch}


def record_each(principal: Principal, events: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Append each valid event of *events*; return why others are rejected.

    Each event has an id, and one whose id exists stays as it is. The keys of the result are places in *events*.
    MAX_EVENTS at a time are written, all or none. So the same call may be repeated after an error.
    """
    rejected: dict[int, str] = {}
    for start in range(0, len(events), MAX_EVENTS):
        some = events[start : start + MAX_EVENTS]
        try:
            append(principal, some, keeps_known=True)
        except (Forbidden, InvalidEvent):
            found = dict(_problems(principal, some))
            rejected |= {start + index: problem for index, problem in found.items()}
            valid = [event for index, event in enumerate(some) if index not in found]
            append(principal, valid, keeps_known=True)
    return rejected


def _problems(principal: Principal, events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    forbidden = None
    for index, event in enumerate(events):
        try:
            principal.require_write(event["event_type"])
            make_event(**event, max_event_bytes=services().settings.max_event_bytes)
        except Forbidden as error:
            forbidden = error
            yield index, str(error)
        except InvalidEvent as error:
            yield index, str(error)
    if forbidden is not None:
        services().metrics.note_refusal("forbidden", path=request.path, error=forbidden)
