"""/admin/watches: the watches, for operators.

It changes nothing: a watch changes an application's schema, so only commands do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Blueprint, render_template

from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.store.database import Connection
from outfeed.text import sentence
from outfeed.watch.store import activity, generate, repair, schema, snapshot, watches
from outfeed.watch.store.repair import WatchProblem
from outfeed.watch.store.watches import Watch

page = Blueprint("watches", __name__)


@page.get("/admin/watches")
@requires(ADMIN, is_page=True)
def show() -> str:
    """Show operators each watch: its state, rate, trouble, rules and triggers."""
    with services().database.snapshot() as connection:
        found = watches.list_watches(connection)
        faults = repair.problems(connection, services().settings)
        active = activity.read(connection)
        entries = [_entry(each, connection, faults, active) for each in found]
    orphans = [sentence(str(each)) for each in faults if each.watch is None]
    return render_template("watches.html", entries=entries, orphans=orphans)


def _entry(
    watch: Watch, connection: Connection, faults: list[WatchProblem], active: activity.WatchActivity
) -> dict[str, Any]:
    return {
        "watch": watch,
        "snapshot": snapshot.describe(watch),
        "rate": active.of(watch.definition.types),
        "is_whole": active.is_whole,
        "troubles": [sentence(each) for each in _troubles(watch, faults)],
        **_columns(watch, connection),
        "triggers": watches.present_triggers(connection, watch.number),
    }


def _troubles(watch: Watch, faults: list[WatchProblem]) -> Iterator[str]:
    """Yield what is wrong with the watch, in words."""
    if watch.state == watches.WAITING:
        yield f"the table {watch.table} does not exist, and the watch waits for it"
    for each in faults:
        if each.watch is not None and each.watch.number == watch.number:
            yield f"the table {each}; the server repairs it, as `outfeed doctor --fix` does"
    for difference in repair.differences(watch, services().settings):
        yield f"the watch {difference}"
    described = snapshot.describe(watch)
    if described.startswith("ended"):
        yield f"the snapshot {described}"


def _columns(watch: Watch, connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the columns that events have, and the hidden ones of them."""
    table = schema.read(connection, watch.table) if watch.state != watches.WAITING else None
    if table is None:
        return {}
    return {
        "reported": generate.reported_columns(watch.definition, table),
        "hidden": generate.hidden_columns(watch.definition, table, watch.secrets),
    }
