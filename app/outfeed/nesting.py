"""Nesting: a bound on the depth of JSON, and deeper values as text.

No recursion and no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# The bound at every entrance. Deeper values that another program wrote are read as text. Recursive code, of Outfeed or
# of a library, can process this depth from any stack.
MAX_DEPTH = 64
# A complete string, or a bracket outside of strings.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_CONTAINERS = (dict, list, tuple)
# The depth of an object's values.
_OF_OBJECT = {"[": 2, "{": 2}


def is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Return whether *value* has containers in more than *most* levels."""
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
    """Return whether the JSON *text* has enough brackets to be deep.

    It is a quick check.
    """
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{") > MAX_DEPTH
    return text.count("[") + text.count("{") > MAX_DEPTH


def flattened(text: str, depths: Mapping[str, int] = _OF_OBJECT) -> str:
    """Return the JSON *text* with each deep value as a string of its text.

    `flattened` is set beside such a value. *depths* is the depth of the values, by the bracket at depth two. By default
    the values are those of an object.
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
