"""Audit: changes of permissions and of history, as events of the log."""

from __future__ import annotations

import sqlite3
from typing import Any

from outfeed.store.event_log import append_audit

SOURCE = "outfeed"


def record(connection: sqlite3.Connection, event_type: str, by: str | None, **data: Any) -> None:
    """Write an audit event in the caller's transaction.

    The change and its event are committed together. *by* is the principal that requested the change. If it is None, as
    in a fixture, no event is written.
    """
    if by is not None:
        append_audit(connection, event_type, SOURCE, {**data, "by": by})
