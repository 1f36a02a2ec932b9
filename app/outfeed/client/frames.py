"""Frames of the feed, parsed however deeply they are nested and however deep the caller's stack is."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from outfeed.errors import Refused

MAX_DEPTH = 64
# A string, passed over as a whole, or a bracket outside of strings.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
# The depth at which an event's values stand, by the bracket that opens a frame's payload: a list of events, or one.
_VALUE_DEPTHS = {"[": 4, "{": 3}


def parse_frame(text: str | bytes) -> dict[str, Any]:
    """Return the frame that *text* is. Raises Refused if it is none.

    A value of an event that is nested deeper than MAX_DEPTH is its JSON text, and the event is marked `flattened`.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        frame = _loaded(text)
    except ValueError:
        frame = None
    if not isinstance(frame, dict):
        raise Refused("the server sends something that is no feed")
    return frame


def _loaded(text: str) -> Any:
    try:
        frame = json.loads(text)
        if not _is_deep(frame):
            return frame
    except RecursionError:
        pass
    flat = _flattened(text)
    try:
        return json.loads(flat)
    except RecursionError:  # the caller's stack is almost full, and a new thread's is not
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(json.loads, flat).result()


def _is_deep(frame: Any) -> bool:
    """Return whether an event's value is nested deeper than MAX_DEPTH, without recursion."""
    payload = frame.get("payload") if isinstance(frame, dict) else None
    level = payload if isinstance(payload, list) else [payload]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _flattened(text: str) -> str:
    """Return the frame with each value that is too deep as a JSON string of its text."""
    parts: list[str] = []
    done = depth = value_depth = start = deepest = 0
    for match in _TOKEN.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if depth == 2:
                value_depth = _VALUE_DEPTHS[bracket]
            if depth == value_depth:
                start, deepest = match.start(), depth
        elif bracket in "]}":
            if depth == value_depth and deepest - depth >= MAX_DEPTH:
                parts += [text[done:start], json.dumps(text[start : match.end()]), ',"flattened":true']
                done = match.end()
            depth -= 1
    return "".join([*parts, text[done:]])
