"""The notes of the triggers: rows that a REPLACE may remove.

Those of ignored inserts and of UPSERTs stay.
"""

from __future__ import annotations

from outfeed.store.database import Connection


def empty(connection: Connection) -> None:
    """Delete all notes, in the caller's transaction.

    No statement can still need them: it would hold the write lock.
    """
    connection.execute("DELETE FROM outfeed_replaced")
