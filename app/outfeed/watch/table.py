"""A table's schema as a value. No I/O."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

TEXT, NUMERIC, INTEGER, REAL, BLOB = "TEXT", "NUMERIC", "INTEGER", "REAL", "BLOB"
ROWID_NAMES = ("rowid", "_rowid_", "oid")
_WORDS = re.compile(r"[_\-\s]+|(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=\d)(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Rules of sqlite.org/datatype3.html, section 3.1, in their order.
_AFFINITIES = (
    (INTEGER, ("INT",)),
    (TEXT, ("CHAR", "CLOB", "TEXT")),
    (BLOB, ("BLOB",)),
    (REAL, ("REAL", "FLOA", "DOUB")),
)


@dataclass(frozen=True, slots=True)
class WatchedColumn:
    """A column.

    *default* is SQL, None if there is none. *generated* is None, `virtual` or `stored`.
    """

    name: str
    declared: str = ""
    is_not_null: bool = False
    default: str | None = None
    generated: str | None = None

    @property
    def affinity(self) -> str:
        declared = self.declared.upper()
        if not declared:
            return BLOB
        for affinity, parts in _AFFINITIES:
            if any(part in declared for part in parts):
                return affinity
        return NUMERIC

    @property
    def is_json(self) -> bool:
        return "JSON" in self.declared.upper()


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A UNIQUE or PRIMARY KEY constraint or index.

    Its columns are pairs of name and collation. *where* is the condition of a partial index, as SQL.
    """

    columns: tuple[tuple[str, str], ...]
    where: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table that can be watched.

    *primary_key* names the columns of the PRIMARY KEY in its order; empty if there is none. *rowid* is the name by
    which the rowid is read: that of the INTEGER PRIMARY KEY, else a name that no column has, else None. *uniques*
    include the PRIMARY KEY, unless it is the rowid. *uncovered* names UNIQUE indexes on expressions or generated
    columns.
    """

    name: str
    columns: tuple[WatchedColumn, ...]
    primary_key: tuple[str, ...] = ()
    rowid: str | None = "rowid"
    has_rowid: bool = True
    uniques: tuple[UniqueIndex, ...] = ()
    uncovered: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def has_integer_key(self) -> bool:
        """Whether the PRIMARY KEY is the rowid."""
        return self.has_rowid and len(self.primary_key) == 1 and self.rowid == self.primary_key[0]

    def column(self, name: str) -> WatchedColumn | None:
        """Return the column of that name, without case as in SQLite, or None."""
        return next((column for column in self.columns if folded(column.name) == folded(name)), None)


def folded(name: str) -> str:
    """Return *name* as SQLite compares names: ASCII letters without case."""
    return "".join(char.lower() if char.isascii() else char for char in name)


def is_secret(column: str, secret_names: Iterable[str]) -> bool:
    """Return whether one of *secret_names* occurs in the name as words.

    `password` occurs in `user_passwordHash`.
    """
    words = _words(column)
    return any(_occurs(_words(name), words) for name in secret_names)


@functools.lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORDS.split(name) if word)


def _occurs(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return bool(part) and any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))
