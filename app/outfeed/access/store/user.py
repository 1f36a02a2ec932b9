"""Users: people with a role and, optionally, a password.

A password arrives here as a hash and is never read out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outfeed import clock
from outfeed.access.store.account import CODE_LIFETIME, add_code, check_name, end_codes_of_first_operator
from outfeed.errors import InvalidUserChange, NameTaken, UnknownName
from outfeed.principal import ROLES
from outfeed.store import audit
from outfeed.store.database import Connection, Database, IntegrityError

_COLUMNS = "name, role, password IS NOT NULL, is_disabled, created_at"


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
    with database.transaction() as connection:
        _insert(connection, name, role, by)


def invite(database: Database, name: str, role: str, *, by: str | None = None) -> str:
    """Create a user, and return a code that signs the user in once.

    Raises ValueError for an invalid name or role, and NameTaken.
    """
    with database.transaction() as connection:
        _insert(connection, name, role, by)
        return add_code(connection, CODE_LIFETIME, name)


def _insert(connection: Connection, name: str, role: str, by: str | None) -> None:
    row = (check_name(name), check_role(role), clock.timestamp())
    try:
        connection.execute("INSERT INTO outfeed_user (name, role, created_at) VALUES (?, ?, ?)", row)
    except IntegrityError:
        raise NameTaken(f"there is already a user named {name!r}") from None
    audit.record(connection, "access.user_added", by, name=name, role=role)


def list_all(database: Database) -> list[User]:
    """Return every user, by name."""
    with database.connection() as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_user ORDER BY name").fetchall()  # noqa: S608 - a constant
    return list(map(_user, rows))


def find(database: Database, name: str) -> User | None:
    """Return the user with that name, or None."""
    with database.connection() as connection:
        return _find(connection, name)


def _find(connection: Connection, name: str) -> User | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_user WHERE name = ?", (name,)).fetchone()  # noqa: S608 - a constant
    return _user(row) if row else None


def _user(row: tuple[Any, ...]) -> User:
    name, role, has_password, is_disabled, created_at = row
    return User(name, role, bool(has_password), bool(is_disabled), created_at)


def set_role(database: Database, name: str, role: str, *, by: str | None = None) -> None:
    """Give the user another role.

    Open connections are affected at once. Raises ValueError, UnknownName, and InvalidUserChange if *by* is the user or
    if no operator would be left.
    """
    with database.transaction() as connection:
        if check_role(role) != "operator":
            _require_other_operator(connection, name, by)
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
        _end_sessions(connection, name)
        audit.record(connection, "access.password_changed", by, name=name)


def set_disabled(database: Database, name: str, is_disabled: bool, *, by: str | None = None) -> None:
    """Disable or enable the user.

    The user's sessions and sign-in links end and are not restored. Raises UnknownName, and InvalidUserChange if *by* is
    the user or if no operator would be left.
    """
    with database.transaction() as connection:
        if is_disabled:
            _require_other_operator(connection, name, by)
        _update(connection, name, "is_disabled = ?", int(is_disabled))
        end_codes_of_first_operator(connection)
        _end_sessions(connection, name)
        audit.record(connection, "access.user_disabled" if is_disabled else "access.user_enabled", by, name=name)


def require(database: Database, name: str) -> User:
    """Return the user with that name. Raises UnknownName."""
    with database.connection() as connection:
        return _require(connection, name)


def check_disabling(database: Database, name: str, *, by: str | None = None) -> None:
    """Raise what `set_disabled` would raise, and change nothing."""
    with database.connection() as connection:
        _require(connection, name)
        _require_other_operator(connection, name, by)


def end_sessions(database: Database, name: str, *, by: str | None = None) -> int:
    """End the user's sessions and sign-in links.

    Returns the number of sessions. Raises UnknownName.
    """
    with database.transaction() as connection:
        _require(connection, name)
        count = _end_sessions(connection, name)
        audit.record(connection, "access.sessions_ended", by, name=name, sessions=count)
    return count


def create_link(database: Database, name: str, *, by: str | None = None) -> str:
    """Return a new code that signs the user in once, within CODE_LIFETIME.

    Raises UnknownName, and InvalidUserChange for a disabled user.
    """
    with database.transaction() as connection:
        if _require(connection, name).is_disabled:
            raise InvalidUserChange(f"the user {name} is disabled; enable the user first")
        audit.record(connection, "access.link_created", by, name=name)
        return add_code(connection, CODE_LIFETIME, name)


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
        raise _unknown(name)


def _require(connection: Connection, name: str) -> User:
    found = _find(connection, name)
    if found is None:
        raise _unknown(name)
    return found


def _unknown(name: str) -> UnknownName:
    return UnknownName(f"user {name!r:.120} not found; `outfeed user list` shows all users")


def _require_other_operator(connection: Connection, name: str, by: str | None) -> None:
    """Raise InvalidUserChange unless an operator is left without the user.

    No operator removes their own permission either.
    """
    found = _find(connection, name)
    if found is None or found.role != "operator" or found.is_disabled:
        return
    if by == f"user:{name}":
        raise InvalidUserChange("you can't do this to your own account; ask another operator")
    query = "SELECT 1 FROM outfeed_user WHERE role = 'operator' AND NOT is_disabled AND name <> ?"
    if not connection.execute(query, (name,)).fetchone():
        raise InvalidUserChange(f"the user {name} is the last operator; make another user an operator first")


def _end_sessions(connection: Connection, name: str) -> int:
    """End the user's sessions and sign-in links; return how many sessions."""
    connection.execute("DELETE FROM outfeed_sign_in_code WHERE user = ?", (name,))
    return connection.execute("DELETE FROM outfeed_session WHERE user = ?", (name,)).rowcount
