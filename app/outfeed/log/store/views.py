"""Views: queries that users saved by name, for themselves or shared.

A view belongs to the user or token that saved it, and is gone with that owner.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from outfeed import clock
from outfeed.errors import InvalidRequest, UnknownName
from outfeed.principal import Principal
from outfeed.redaction import redact
from outfeed.store.database import Connection, Database

TABLE = "outfeed_view"
MAX_NAME_CHARS = 60
MAX_VIEWS = 100  # of one owner
# A user who was created after the view is another one of the same name.
_HAS_OWNER = """(
    EXISTS (SELECT 1 FROM outfeed_user WHERE 'user:' || name = owner AND created_at <= outfeed_view.created_at)
    OR EXISTS (SELECT 1 FROM outfeed_token WHERE 'token:' || name = owner)
)"""
_COLUMNS = "id, name, query, owner, is_shared"


@dataclass(frozen=True, slots=True)
class View:
    """A saved query. Every principal sees a shared one."""

    id: int
    name: str
    query: str
    owner: str
    is_shared: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the view in the form of the API."""
        return asdict(self)

    def may_change(self, principal: Principal) -> bool:
        """Return whether *principal* may replace or delete the view."""
        return principal.is_operator or principal.owner == self.owner


def list_views(database: Database, principal: Principal) -> list[View]:
    """Return the principal's own views and all shared ones, by name."""
    sql = f"SELECT {_COLUMNS} FROM outfeed_view WHERE (owner = ? OR is_shared) AND {_HAS_OWNER} ORDER BY name, id"  # noqa: S608
    with database.connection() as connection:
        return [_view(row) for row in connection.execute(sql, (principal.owner,)).fetchall()]


def save(database: Database, principal: Principal, name: str, query: str, *, is_shared: bool) -> tuple[View, bool]:
    """Store a view, and return it and whether it is new.

    It replaces the principal's view of the same name. Raises InvalidRequest for an invalid name, a secret in the text,
    or too many views.
    """
    _check(name, query)
    with database.transaction() as connection:
        delete_ownerless(connection)
        old = connection.execute(
            "SELECT id FROM outfeed_view WHERE owner = ? AND name = ?", (principal.owner, name)
        ).fetchone()
        if old is None:
            _check_count(connection, principal)
        connection.execute(
            "INSERT INTO outfeed_view (owner, name, query, is_shared, created_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (owner, name) DO UPDATE SET query = excluded.query, is_shared = excluded.is_shared",
            (principal.owner, name, query, int(is_shared), clock.timestamp()),
        )
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM outfeed_view WHERE owner = ? AND name = ?",  # noqa: S608 - constant columns
            (principal.owner, name),
        ).fetchone()
    return _view(row), old is None


def delete(database: Database, principal: Principal, view_id: int) -> None:
    """Delete a view.

    Raises UnknownName if the principal may not change a view with this id.
    """
    with database.transaction() as connection:
        row = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_view WHERE id = ?", (view_id,)).fetchone()  # noqa: S608
        if row is None or not _view(row).may_change(principal):
            raise UnknownName(f"view {view_id} not found")
        connection.execute("DELETE FROM outfeed_view WHERE id = ?", (view_id,))
        connection.execute("DELETE FROM outfeed_view_notification WHERE view_id = ?", (view_id,))


def delete_ownerless(connection: Connection) -> int:
    """Delete the views whose owner no longer exists, and return their number.

    The choices of notifications for them, and of such users, are deleted too.
    """
    count = connection.execute(f"DELETE FROM outfeed_view WHERE NOT {_HAS_OWNER}").rowcount  # noqa: S608 - a constant
    connection.execute(
        "DELETE FROM outfeed_view_notification WHERE view_id NOT IN (SELECT id FROM outfeed_view) OR owner NOT IN"
        " (SELECT 'user:' || name FROM outfeed_user UNION ALL SELECT 'token:' || name FROM outfeed_token)"
    )
    return count


def count_ownerless(database: Database) -> int:
    """Return the number of views whose owner no longer exists."""
    with database.connection() as connection:
        sql = f"SELECT count(*) FROM outfeed_view WHERE NOT {_HAS_OWNER}"  # noqa: S608 - a constant
        return int(connection.execute(sql).fetchone()[0])


def _view(row: tuple[Any, ...]) -> View:
    id_, name, query, owner, is_shared = row
    return View(id_, name, query, owner, bool(is_shared))


def _check(name: str, query: str) -> None:
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        raise InvalidRequest("invalid_field", f"name: must have 1 to {MAX_NAME_CHARS} printable characters")
    if redact(name) != name or redact(query) != query:
        raise InvalidRequest("invalid_field", "query: contains a secret, which a view can't store")


def _check_count(connection: Connection, principal: Principal) -> None:
    sql = "SELECT count(*) FROM outfeed_view WHERE owner = ?"
    if connection.execute(sql, (principal.owner,)).fetchone()[0] >= MAX_VIEWS:
        raise InvalidRequest("invalid_field", f"name: {principal.name} has {MAX_VIEWS} views; delete one first")
