"""Schema: the numbered SQL files in migrations/.

The files are the only definition of the schema. They are read statement by statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from outfeed.errors import OutfeedError

DISTRIBUTION = "outfeed"


def migrations_dir() -> Path:
    """Return the folder with the numbered SQL files of the package."""
    folder = Path(__file__).parents[1] / "migrations"
    if not folder.is_dir():
        raise OutfeedError(f"{folder} is missing; install {DISTRIBUTION} again")
    return folder


def migrations() -> list[str]:
    """Return the names of all migrations, in order."""
    return sorted(file.stem for file in migrations_dir().glob("*.sql"))


def statements(migration: str) -> Iterator[str]:
    """Yield the SQL statements of *migration*, in order."""
    statement = ""
    for line in (migrations_dir() / f"{migration}.sql").read_text("utf-8").splitlines(keepends=True):
        statement += line
        # A trigger contains semicolons. SQLite reports the end of a statement.
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def model(names: Iterable[str]) -> sqlite3.Connection:
    """Return an empty database in memory with the migrations *names*.

    The caller closes it.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for name in names:
        for statement in statements(name):
            connection.execute(statement)
    return connection
