"""An upgrade that kills its own process at a given statement."""

from __future__ import annotations

from pathlib import Path

from outfeed.store import migrate
from tests.killed import kill_at_statement


def upgrade(path: Path, last: int, told: Path) -> None:
    """Upgrade the database up to statement number *last*.

    Writes the number of statements to *told*.
    """
    statements = kill_at_statement(last)
    migrate.upgrade(path, adopt=True)
    told.write_text(str(statements()))
