"""A backup that kills its own process at a given statement."""

from __future__ import annotations

from pathlib import Path

from outfeed.store import database as db
from outfeed.upkeep import backups
from tests.killed import kill_at_statement


def make(path: Path, folder: Path, last: int, told: Path) -> None:
    """Back up the database up to statement number *last*.

    Writes the number of statements to *told*.
    """
    statements = kill_at_statement(last)
    backups.make(db.at(path), folder, 5, by="tests")
    told.write_text(str(statements()))
