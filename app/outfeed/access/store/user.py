"""Users: people with a role and, optionally, a password.

A password arrives here as a hash and is never read out.
"""

from __future__ import annotations

from dataclasses import dataclass

from outfeed import clock
from outfeed.access.store.account import check_name, end_codes_of_first_operator
from outfeed.errors import NameTaken, UnknownName
from outfeed.principal import ROLES
from outfeed.store import audit
from outfeed.store.database import Connection, Database, IntegrityError


@dataclass(frozen=True, slots=True)
class User:
    """A user without the password."""

    name: str
    role: str
    has_password: bool
    is_disabled: bool
    created_at: str


def add(database: Database, name: str, role: str, *, by: str | None = None) -> None:
    """Create a user without a password.

    Raises ValueError for an invalid name or role, and NameTaken.
    """
    row = (check_name(name), check_role(role), clock.timestamp())
    with database.transaction() as connection:
        try:
            connection.execute("INSERT INTO outfeed_user (name, role, created_at) VALUES (?, ?, ?)", row)
        except IntegrityError:
            raise NameTaken(f"there is already a user named {name!r}") from None
        audit.record(connection, "access.user_added", by, name=name, role=role)


def list_all(database: Database) -> list[User]:
    """Return every user, by name."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT name, role, password IS NOT NULL, is_disabled, created_at FROM outfeed_user ORDER BY name"
        ).fetchall()
    return [User(name, role, bool(has), bool(disabled), created_at) for name, role, has, disabled, created_at in rows]


def find(database: Database, name: str) -> User | None:
    """Return the user with that name, or None."""
    return next((user for user in list_all(database) if user.name == name), None)


def set_role(database: Database, name: str, role: str, *, by: str | None = None) -> None:
    """Give the user another role.

    Open connections are affected at once. Raises ValueError, UnknownName.
    """
    with database.transaction() as connection:
        _update(connection, name, "role = ?", check_role(role))
        end_codes_of_first_operator(connection)
        audit.record(connection, "access.role_changed", by, name=name, role=role)


def set_password(database: Database, name: str, password_hash: str, *, by: str | None = None) -> None:
    """Replace the password, and end the user's sessions and sign-in links.

    An operator's password also ends the links for the first operator. Raises UnknownName.
    """
    with database.transaction() as connection:
        _update(connection, name, "password = ?", password_hash)
        end_codes_of_first_operator(connection)
        connection.execute("DELETE FROM outfeed_session WHERE user = ?", (name,))
        connection.execute("DELETE FROM outfeed_sign_in_code WHERE user = ?", (name,))
        audit.record(connection, "access.password_changed", by, name=name)


def set_disabled(database: Database, name: str, is_disabled: bool, *, by: str | None = None) -> None:
    """Disable or enable the user.

    The user's sessions and sign-in links end and are not restored. Raises UnknownName.
    """
    with database.transaction() as connection:
        _update(connection, name, "is_disabled = ?", int(is_disabled))
        end_codes_of_first_operator(connection)
        connection.execute("DELETE FROM outfeed_session WHERE user = ?", (name,))
        connection.execute("DELETE FROM outfeed_sign_in_code WHERE user = ?", (name,))
        audit.record(connection, "access.user_disabled" if is_disabled else "access.user_enabled", by, name=name)


def password_hash(database: Database, name: str) -> str | None:
    """Return the hash of the user's password.

    Returns None if the user is unknown, is disabled or has no password.
    """
    with database.connection() as connection:
        row = connection.execute(
            "SELECT password FROM outfeed_user WHERE name = ? AND NOT is_disabled", (name,)
        ).fetchone()
    return row[0] if row else None


def check_role(role: str) -> str:
    """Return *role* if it exists. Raises ValueError otherwise."""
    if role not in ROLES:
        raise ValueError(f"a role is one of {', '.join(ROLES)}, got {role!r:.80}")
    return role


def _update(connection: Connection, name: str, assignment: str, value: str | int) -> None:
    statement = f"UPDATE outfeed_user SET {assignment} WHERE name = ?"  # noqa: S608 - assignments are constants of this module
    if not connection.execute(statement, (value, name)).rowcount:
        raise UnknownName(f"user {name!r} not found; `outfeed user list` shows all users")
