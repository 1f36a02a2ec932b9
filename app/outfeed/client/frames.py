"""Frames of the feed, parsed at any depth of nesting.

The depth of the caller's stack does not matter either.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from outfeed import nesting
from outfeed.errors import Refused

# Depth of the values of an event, by the bracket that opens a frame's payload: a list of events, or one event.
_VALUE_DEPTHS = {"[": 4, "{": 3}


def parse_frame(text: str | bytes) -> dict[str, Any]:
    """Return the frame in *text*.

    A value of an event that is nested deeper than nesting.MAX_DEPTH becomes its JSON text, and the event is marked
    `flattened`. Raises Refused if *text* is not a frame.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        frame = _loaded(text)
    except ValueError:
        frame = None
    if not isinstance(frame, dict):
        raise Refused("the server does not send a feed")
    return frame


def _loaded(text: str) -> Any:
    try:
        frame = json.loads(text)
        if not _is_deep(frame):
            return frame
    except RecursionError:
        pass
    flat = nesting.flattened(text, _VALUE_DEPTHS)
    try:
        return json.loads(flat)
    except RecursionError:  # the caller's stack is almost full, but that of a new thread is not
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(json.loads, flat).result()


def _is_deep(frame: Any) -> bool:
    """Return whether an event's value is nested deeper than MAX_DEPTH."""
    payload = frame.get("payload") if isinstance(frame, dict) else None
    return nesting.is_deep(payload, nesting.MAX_DEPTH + (2 if isinstance(payload, list) else 1))
