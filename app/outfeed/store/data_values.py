"""Values in SQL: rows of `event_log` by a value in their data.

`data` is JSON, and a raw writer may have stored any text. Values are compared as the text that pages show.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from typing import Any

import orjson

from outfeed.history import loads_leniently

_FUNCTION = "outfeed_data_is"
# Read as bytes: a text that is not UTF-8 would make the call fail.
IS = f"CASE typeof(data) WHEN 'text' THEN {_FUNCTION}(CAST(data AS BLOB), ?, ?) ELSE 0 END"
_JSON_NAMES = {None: "null", True: "true", False: "false"}


def register(connection: sqlite3.Connection) -> None:
    """Add the function that reads values to *connection*."""
    connection.create_function(_FUNCTION, 3, _is_at, deterministic=True)


def as_path(keys: tuple[str, ...]) -> str:
    """Return *keys* in the form of the first value of `IS`.

    The second one is the text of the wanted value.
    """
    return json.dumps(keys)


def text_of(value: Any) -> str | None:
    """Return the text of a value, or None for a list or an object."""
    if isinstance(value, dict | list):
        return None
    return _JSON_NAMES[value] if value is None or isinstance(value, bool) else str(value)


def is_at(data: Any, keys: tuple[str, ...], wanted: str) -> bool:
    """Return whether parsed *data* has the value *wanted* under *keys*."""
    value = data
    for key in keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            return False
    return text_of(value) == wanted


def _is_at(raw: bytes, path: str, wanted: str) -> bool:
    return is_at(_parsed(raw), _keys(path), wanted)


@functools.lru_cache(256)
def _keys(path: str) -> tuple[str, ...]:
    return tuple(json.loads(path))


def _parsed(raw: bytes) -> Any:
    """Return the parsed JSON, or None for a text that is not JSON."""
    try:
        return orjson.loads(raw)
    except ValueError:
        pass
    try:
        return loads_leniently(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
