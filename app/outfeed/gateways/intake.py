"""Intake: the only way in which gateways write events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from outfeed.errors import InvalidRequest
from outfeed.http.api.operation import json_answer
from outfeed.http.services import services
from outfeed.principal import Principal
from outfeed.store import event_log

MAX_EVENTS = 1000  # of a request, as for POST /api/events


def record(principal: Principal, events: Sequence[Mapping[str, Any]], *, keeps_known: bool = False) -> Response:
    """Append *events* as *principal*, all or none; answer with receipts.

    The events have the names of `log_event`. The status is 201 if any event is new, else 200. With *keeps_known*, an
    event whose id exists stays as it is, also if its content differs. Raises Forbidden, InvalidEvent, EventConflict,
    InvalidRequest.
    """
    if len(events) > MAX_EVENTS:
        raise InvalidRequest("invalid_event", f"a request has at most {MAX_EVENTS:,} events, got {len(events):,}")
    for event_type in dict.fromkeys(event["event_type"] for event in events):
        principal.require_write(event_type)
    current = services()
    recorded = event_log.record(current.database, events, current.settings.max_event_bytes, keeps_known=keeps_known)
    receipts = [{"id": one.event.id, "seq": one.seq, "epoch": one.epoch} for one in recorded]
    return json_answer(receipts, 201 if any(one.is_new for one in recorded) else 200)
