"""The page of the watches, for operators.

It changes nothing: a watch changes an application's schema, so only commands do so.
"""

from __future__ import annotations

from flask import Blueprint, render_template

from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.store.database import Connection
from outfeed.watch.store import generate, schema, snapshot, watches
from outfeed.watch.store.watches import Watch

page = Blueprint("watches", __name__)


@page.get("/watches")
@requires(ADMIN, is_page=True)
def show() -> str:
    """Show operators each watch: its rules, columns and triggers."""
    with services().database.snapshot() as connection:
        found = watches.list_watches(connection)
        entries = [
            {
                "watch": each,
                "snapshot": snapshot.describe(each),
                **_columns(each, connection),
                "triggers": watches.present_triggers(connection, each.number),
            }
            for each in found
        ]
    return render_template("watches.html", entries=entries)


def _columns(watch: Watch, connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the columns that events have, and the hidden ones of them."""
    table = schema.read(connection, watch.table) if watch.state != watches.WAITING else None
    if table is None:
        return {}
    return {
        "reported": generate.reported_columns(watch.definition, table),
        "hidden": generate.hidden_columns(watch.definition, table, watch.secrets),
    }
