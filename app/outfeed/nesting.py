"""Nesting: how deep JSON may go, and JSON that goes deeper as text. Without recursion. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# The one bound, at every way in. What another program wrote deeper is read as text. Recursive code, of ours or of a
# library, reaches it from any stack.
MAX_DEPTH = 64
# A string, passed over as a whole, or a bracket outside of strings.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_CONTAINERS = (dict, list, tuple)
# Where the values of an object stand.
_OF_OBJECT = {"[": 2, "{": 2}


def is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Return whether *value* holds containers in more than *most* levels."""
    level = [value]
    for _ in range(most):
        level = [
            child
            for node in level
            if isinstance(node, _CONTAINERS)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, _CONTAINERS)
        ]
        if not level:
            return False
    return True


def may_be_deep(text: str | bytes) -> bool:
    """Return whether the JSON *text* has enough brackets to be deep."""
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{") > MAX_DEPTH
    return text.count("[") + text.count("{") > MAX_DEPTH


def flattened(text: str, depths: Mapping[str, int] = _OF_OBJECT) -> str:
    """Return the JSON *text* with each value that is deep as a string of its text, and `flattened` set beside it.

    *depths* says at which depth the values stand, by the bracket at depth two; by default they are an object's own.
    """
    parts: list[str] = []
    done = depth = value_depth = start = deepest = 0
    for match in _TOKEN.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if depth == 2:
                value_depth = depths[bracket]
            if depth == value_depth:
                start, deepest = match.start(), depth
        elif bracket in "]}":
            if depth == value_depth and deepest - depth >= MAX_DEPTH:
                parts += [text[done:start], json.dumps(text[start : match.end()]), ',"flattened":true']
                done = match.end()
            depth -= 1
    return "".join([*parts, text[done:]])
