"""Mapping files: TOML with one table of fields for each kind of sender.

`mappings/` has those of Outfeed. A file of the operator adds others, or replaces one of the same name.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from outfeed.errors import ConfigError, InvalidMapping
from outfeed.gateways.incoming.mapping import FieldTable

FOLDER = Path(__file__).parent / "mappings"
MAX_FILE_BYTES = 2**20


@functools.cache
def shipped() -> Mapping[str, FieldTable]:
    """Return the mappings of Outfeed, by name."""
    return {name: table for file in sorted(FOLDER.glob("*.toml")) for name, table in _read(file).items()}


@functools.cache
def load(path: Path | None) -> Mapping[str, FieldTable]:
    """Return all mappings, with those of the operator's file at *path*.

    A process reads each file once. Raises ConfigError, which names the file, the table and the field.
    """
    if path is None:
        return shipped()
    try:
        return {**shipped(), **_read(path)}
    except (OSError, InvalidMapping) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"OUTFEED_INCOMING_MAPPINGS: {path}: {problem}") from None


def _read(path: Path) -> dict[str, FieldTable]:
    with path.open("rb") as file:
        return parsed(file.read(MAX_FILE_BYTES + 1))


def parsed(content: bytes) -> dict[str, FieldTable]:
    """Return the mappings of a file, by name.

    Raises InvalidMapping, which names the first mistake.
    """
    if len(content) > MAX_FILE_BYTES:
        raise InvalidMapping(f"must have at most {MAX_FILE_BYTES:,} bytes")
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMapping(f"is not TOML: {error}") from None
    return {name: _table(name, table) for name, table in tables.items()}


def _table(name: str, table: object) -> FieldTable:
    if not isinstance(table, dict):
        raise InvalidMapping(f"{name:.80}: must be a table, [{name:.80}]")
    try:
        return FieldTable.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join([name, *map(str, first["loc"])])
        problem = "is an unknown field" if first["type"] == "extra_forbidden" else first["msg"]
        raise InvalidMapping(f"{place:.200}: {problem.removeprefix('Value error, ')}") from None
