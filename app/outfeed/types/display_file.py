"""Displays as a TOML file with one table for each type. No I/O."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping

from outfeed.display import Display
from outfeed.errors import InvalidDisplay

FIELDS = ("icon", "label", "level")


def written(displays: Mapping[str, Display]) -> str:
    """Return *displays*, by type, as TOML."""
    return "\n".join(map(_table, displays, displays.values()))


def _table(name: str, display: Display) -> str:
    # A JSON string without control characters is a basic string of TOML.
    fields = [f"{field} = {json.dumps(value, ensure_ascii=False)}\n" for field, value in display.as_dict().items()]
    return "".join([f'["{name}"]\n', *fields])


def parsed(text: str) -> dict[str, Display]:
    """Return the displays of a file, by type.

    Raises InvalidDisplay, which names the first mistake.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidDisplay(f"not TOML: {error}") from None
    return {name: _display(name, table) for name, table in tables.items()}


def _display(name: str, table: object) -> Display:
    if not isinstance(table, dict):
        raise InvalidDisplay(f'{name}: must be a table, ["{name}"], with {", ".join(FIELDS)}')
    if not table:
        raise InvalidDisplay(f"{name}: has no icon, label or level")
    if isinstance(next(iter(table.values())), dict):
        raise InvalidDisplay(f'{name}: quote the whole type, ["{name}.{next(iter(table))}"]')
    if unknown := [field for field in table if field not in FIELDS]:
        raise InvalidDisplay(f"{name}: {unknown[0]:.80}: is an unknown field; known are {', '.join(FIELDS)}")
    return Display.checked(name, **table)
