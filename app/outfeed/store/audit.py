"""The audit: what was done to rights and to history, as events of the log."""

from __future__ import annotations

import sqlite3
from typing import Any

from outfeed.store.event_log import append_audit

SOURCE = "outfeed"


def record(connection: sqlite3.Connection, event_type: str, by: str | None, **data: Any) -> None:
    """Write the event in the caller's transaction, so that nothing is done without it.

    *by* is who asked for it; None where nobody did, as in a fixture, and then nothing is written.
    """
    if by is not None:
        append_audit(connection, event_type, SOURCE, {**data, "by": by})
