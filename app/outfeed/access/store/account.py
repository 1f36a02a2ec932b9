"""Credentials: tokens, sign-in codes, sessions and tickets.

Each has 256 random bits, and only its SHA-256 is stored. A fast hash is enough, because a random secret can't be
guessed. scrypt would cost 96 ms a check. Nothing is cached, so every process sees a change at once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from outfeed import clock
from outfeed.errors import NameTaken, UnknownName
from outfeed.principal import READ, ROLES, SCOPES, Principal, check_patterns
from outfeed.store import audit
from outfeed.store import database as db
from outfeed.store.database import Connection, Database, IntegrityError

TOKEN_PREFIX = "outfeed_"
MAX_NAME_CHARS = 100
FIRST_OPERATOR = "operator"
CODE_LIFETIME = timedelta(days=1)
TICKET_LIFETIME = timedelta(minutes=1)

_PRINCIPAL_OF_TOKEN = "SELECT name, scopes, types, expires_at FROM outfeed_token WHERE hash = ?"
_PRINCIPAL_OF_SESSION = """
    SELECT user.name, user.role, session.expires_at
    FROM outfeed_session AS session JOIN outfeed_user AS user ON user.name = session.user
    WHERE session.hash = ? AND NOT user.is_disabled
"""


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret. Empty *types* means all types."""

    name: str
    scopes: tuple[str, ...]
    types: tuple[str, ...]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


# --- principals -------------------------------------------------------------------------------------------------------


def principal_of(database: Database, grant: str) -> Principal | None:
    """Return the current principal of *grant*.

    Returns None if the grant is revoked or expired.
    """
    kind, _, rest = grant.partition(":")
    if kind == "ticket":
        owner = principal_of(database, rest)
        return bearer_of_ticket(owner) if owner else None
    with database.connection() as connection:
        if kind == "token":
            row = connection.execute(_PRINCIPAL_OF_TOKEN, (rest,)).fetchone()
            found = row and Principal(row[0], _listed(row[1]), grant, _listed(row[2]), _moment(row[3]))
        else:
            row = connection.execute(_PRINCIPAL_OF_SESSION, (rest,)).fetchone()
            found = row and Principal(row[0], ROLES[row[1]], grant, (), _moment(row[2]))
    return found if found and not found.has_expired(clock.now()) else None


def bearer_of_ticket(owner: Principal) -> Principal | None:
    """Return the principal of a ticket, which may only read.

    It can't read the audit, because it acts for a page of another site.
    """
    return replace(owner, scopes=(READ,), grant=f"ticket:{owner.grant}") if owner.may(READ) else None


def change_counters(database: Database) -> tuple[int, int]:
    """Return the counters of revocations and erasures.

    The first changes when a permission may have been revoked, the second when events were erased.
    """
    with database.connection() as connection:
        return int(db.meta(connection, "rights")), int(db.meta(connection, "erasures"))


def every_principal(database: Database) -> list[Principal]:
    """Return the principal of every token and session.

    Sessions of disabled users are left out.
    """
    with database.snapshot() as connection:
        tokens = connection.execute("SELECT name, scopes, types, expires_at, hash FROM outfeed_token").fetchall()
        sessions = connection.execute(
            "SELECT user.name, user.role, session.expires_at, session.hash"
            " FROM outfeed_session AS session JOIN outfeed_user AS user ON user.name = session.user"
            " WHERE NOT user.is_disabled"
        ).fetchall()
    return [
        *(Principal(row[0], _listed(row[1]), f"token:{row[4]}", _listed(row[2]), _moment(row[3])) for row in tokens),
        *(Principal(row[0], ROLES[row[1]], f"session:{row[3]}", (), _moment(row[2])) for row in sessions),
    ]


def grants_version(database: Database) -> tuple[int, ...]:
    """Return a value that changes whenever `every_principal` does.

    It has the counter of revocations and the newest rows.
    """
    with database.connection() as connection:
        row = connection.execute(
            "SELECT (SELECT value FROM outfeed_meta WHERE key = 'rights'),"
            " (SELECT max(rowid) FROM outfeed_token), (SELECT max(rowid) FROM outfeed_session)"
        ).fetchone()
    return tuple(int(each or 0) for each in row)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


# --- tokens -----------------------------------------------------------------------------------------------------------


def create_token(
    database: Database,
    name: str,
    scopes: Iterable[str],
    *,
    types: Iterable[str] = (),
    expires_at: datetime | None = None,
    by: str | None = None,
) -> str:
    """Create a token and return its secret, which is not stored.

    Empty *types* means all types. Raises ValueError for an invalid name, scope or type, and NameTaken.
    """
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    scopes, types = check_scopes(scopes), check_patterns(types)
    expiry = clock.isoformat(expires_at) if expires_at else None
    row = (check_name(name), hash_of(secret), ",".join(scopes), ",".join(types), clock.timestamp(), expiry)
    with database.transaction() as connection:
        try:
            connection.execute(
                "INSERT INTO outfeed_token (name, hash, scopes, types, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
        except IntegrityError:
            raise NameTaken(
                f"there is already a token named {name!r}; revoke it first or choose another name"
            ) from None
        facts = {"name": name, "scopes": list(scopes), "types": list(types), "expires_at": expiry}
        audit.record(connection, "access.token_created", by, **facts)
    return secret


def list_tokens(database: Database) -> list[Token]:
    """Return every token, by name."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT name, scopes, types, created_at, expires_at, last_used_at FROM outfeed_token ORDER BY name"
        ).fetchall()
    return [Token(row[0], _listed(row[1]), _listed(row[2]), *row[3:]) for row in rows]


def find_token_named(database: Database, name: str) -> Token:
    """Return the token with that name. Raises UnknownName."""
    found = next((token for token in list_tokens(database) if token.name == name), None)
    if found is None:
        raise _unknown_token(name)
    return found


def _unknown_token(name: str) -> UnknownName:
    return UnknownName(f"token {name!r:.120} not found; `outfeed token list` shows all tokens")


def revoke_token(database: Database, name: str, *, by: str | None = None) -> None:
    """Delete the token with that name. Raises UnknownName."""
    with database.transaction() as connection:
        if not connection.execute("DELETE FROM outfeed_token WHERE name = ?", (name,)).rowcount:
            raise _unknown_token(name)
        audit.record(connection, "access.token_revoked", by, name=name)


def rotate_token(database: Database, name: str, *, by: str | None = None) -> str:
    """Replace the secret of the token with that name; return the new one.

    The old secret is invalid from the commit on. Raises UnknownName.
    """
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    with database.transaction() as connection:
        sql = "UPDATE outfeed_token SET hash = ? WHERE name = ?"
        if not connection.execute(sql, (hash_of(secret), name)).rowcount:
            raise _unknown_token(name)
        audit.record(connection, "access.token_rotated", by, name=name)
    return secret


def find_token(database: Database, secret: str) -> Principal | None:
    """Return the principal of the token with that secret.

    Returns None if the token is unknown, revoked or expired.
    """
    return principal_of(database, f"token:{hash_of(secret)}")


def note_uses(database: Database, uses: Mapping[str, str]) -> None:
    """Write when tokens were last used.

    *uses* maps grants to times. This makes no audit event and revokes no permission.
    """
    rows = [(at, grant.removeprefix("token:"), at) for grant, at in uses.items()]
    with database.transaction() as connection:
        connection.executemany(
            "UPDATE outfeed_token SET last_used_at = ? WHERE hash = ? AND coalesce(last_used_at, '') < ?", rows
        )


def check_name(name: str) -> str:
    """Return *name* if it is valid for a token or user.

    Raises ValueError otherwise.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        raise ValueError(f"a name must have 1 to {MAX_NAME_CHARS} printable characters, got {name!r:.120}")
    return name


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return *scopes* without duplicates, in the order of SCOPES.

    Raises ValueError if a scope is unknown or if there is none.
    """
    wanted = set(scopes)
    if not wanted or not wanted <= set(SCOPES):
        raise ValueError(f"scopes are any of {', '.join(SCOPES)}, got {', '.join(sorted(wanted)) or 'none'}")
    return tuple(scope for scope in SCOPES if scope in wanted)


# --- sign-in codes ----------------------------------------------------------------------------------------------------


def create_code(database: Database, lifetime: timedelta, user: str | None = None) -> str:
    """Return a new code that signs *user* in once, within *lifetime*.

    Without *user* it is for the first operator. Expired codes are deleted.
    """
    with database.transaction() as connection:
        return add_code(connection, lifetime, user)


def add_code(connection: Connection, lifetime: timedelta, user: str | None) -> str:
    """Return a new code, as `create_code`, in the caller's transaction."""
    code, now = secrets.token_urlsafe(32), clock.now()
    connection.execute("DELETE FROM outfeed_sign_in_code WHERE expires_at <= ?", (clock.isoformat(now),))
    row = (hash_of(code), user, clock.isoformat(now + lifetime))
    connection.execute("INSERT INTO outfeed_sign_in_code (hash, user, expires_at) VALUES (?, ?, ?)", row)
    return code


def find_code(database: Database, code: str) -> str | None:
    """Return the name of the user that *code* would sign in.

    Returns None for a used, expired or unknown code. Only reads. For the first operator it returns the name that
    `redeem_code` would choose now.
    """
    with database.connection() as connection:
        return _user_of_code(connection, code)


def redeem_code(database: Database, code: str) -> str | None:
    """Use *code* and return the name of the user that it signs in.

    Returns None like `find_code`. If several callers redeem one code at once, one of them gets the name. If there is no
    operator yet, this creates the first one.
    """
    if find_code(database, code) is None:
        return None  # before the write lock: an unauthenticated client's guesses must not delay writers
    with database.transaction() as connection:
        name = _user_of_code(connection, code)
        if name is not None:
            connection.execute("DELETE FROM outfeed_sign_in_code WHERE hash = ?", (hash_of(code),))
            row = (name, clock.timestamp())  # ignored if the user exists
            connection.execute(
                "INSERT OR IGNORE INTO outfeed_user (name, role, created_at) VALUES (?, 'operator', ?)", row
            )
        return name


def _user_of_code(connection: Connection, code: str) -> str | None:
    query = "SELECT user FROM outfeed_sign_in_code WHERE hash = ? AND expires_at > ?"
    row = connection.execute(query, (hash_of(code), clock.timestamp())).fetchone()
    if row is None:
        return None
    if row[0] is None:
        return _first_operator(connection)
    found = connection.execute("SELECT name FROM outfeed_user WHERE name = ? AND NOT is_disabled", row).fetchone()
    return found[0] if found else None


def has_operator_with_password(database: Database) -> bool:
    """Return whether an operator can sign in without a code."""
    with database.connection() as connection:
        return _has_operator_with_password(connection)


def _has_operator_with_password(connection: Connection) -> bool:
    query = "SELECT 1 FROM outfeed_user WHERE role = 'operator' AND password IS NOT NULL AND NOT is_disabled"
    return connection.execute(query).fetchone() is not None


def end_codes_of_first_operator(connection: Connection) -> None:
    """Delete the first operator's codes if an operator has a password.

    Otherwise the codes would be valid again once that operator is disabled.
    """
    if _has_operator_with_password(connection):
        connection.execute("DELETE FROM outfeed_sign_in_code WHERE user IS NULL")


def _first_operator(connection: Connection) -> str | None:
    """Return the first operator without a password, or a free name.

    Returns None if an operator has a password.
    """
    if _has_operator_with_password(connection):
        return None
    row = connection.execute(
        "SELECT name FROM outfeed_user WHERE role = 'operator' AND NOT is_disabled ORDER BY created_at, name LIMIT 1"
    ).fetchone()
    return row[0] if row else _free_name(connection)


def _free_name(connection: Connection) -> str:
    taken = {name for (name,) in connection.execute("SELECT name FROM outfeed_user")}
    name, number = FIRST_OPERATOR, 1
    while name in taken:
        number += 1
        name = f"{FIRST_OPERATOR}-{number}"
    return name


# --- sessions ---------------------------------------------------------------------------------------------------------


def create_session(
    database: Database, user: str, lifetime: timedelta, *, how: str = "link", by: str | None = None, address: str = ""
) -> str:
    """Create a session of *user* and return its random key.

    Expired sessions are deleted. *how* (link, password), *by* and *address* are for the audit.
    """
    key, now = secrets.token_urlsafe(32), clock.now()
    row = (hash_of(key), user, clock.isoformat(now), clock.isoformat(now + lifetime))
    with database.transaction() as connection:
        connection.execute("DELETE FROM outfeed_session WHERE expires_at <= ?", (clock.isoformat(now),))
        connection.execute("INSERT INTO outfeed_session (hash, user, created_at, expires_at) VALUES (?, ?, ?, ?)", row)
        audit.record(connection, "access.signed_in", by, name=user, how=how, address=address)
    return key


def note_refusal(database: Database, user: str | None, *, how: str, address: str) -> None:
    """Write the audit event of a rejected sign-in.

    *user* is a known name or None: any other typed name may be a secret.
    """
    with database.transaction() as connection:
        audit.record(connection, "access.sign_in_refused", "anonymous", name=user, how=how, address=address)


def count_sessions(database: Database) -> dict[str, int]:
    """Return the number of valid sessions of each user that has one."""
    query = "SELECT user, count(*) FROM outfeed_session WHERE expires_at > ? GROUP BY user"
    with database.connection() as connection:
        return dict(connection.execute(query, (clock.timestamp(),)).fetchall())


def find_session(database: Database, key: str) -> Principal | None:
    """Return the principal of the session with *key*.

    Returns None if the session has ended or expired, or if the user is disabled.
    """
    return principal_of(database, f"session:{hash_of(key)}")


def session_began_at(database: Database, grant: str) -> datetime | None:
    """Return when the session of *grant* began.

    Returns None if it has ended, and for a grant that is not a session.
    """
    kind, _, hashed = grant.partition(":")
    if kind != "session":
        return None
    with database.connection() as connection:
        row = connection.execute("SELECT created_at FROM outfeed_session WHERE hash = ?", (hashed,)).fetchone()
    return datetime.fromisoformat(row[0]) if row else None


def end_session(database: Database, key: str) -> None:
    """End the session with *key*, for every copy of its cookie."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM outfeed_session WHERE hash = ?", (hash_of(key),))


# --- tickets ----------------------------------------------------------------------------------------------------------


def create_ticket(database: Database, principal: Principal) -> str:
    """Return a ticket that opens one WebSocket as *principal*.

    It may only read, and is valid for TICKET_LIFETIME.
    """
    ticket, now = secrets.token_urlsafe(32), clock.now()
    row = (hash_of(ticket), principal.grant, clock.isoformat(now + TICKET_LIFETIME))
    with database.transaction() as connection:
        connection.execute("DELETE FROM outfeed_ticket WHERE expires_at <= ?", (clock.isoformat(now),))
        connection.execute("INSERT INTO outfeed_ticket (hash, rests_on, expires_at) VALUES (?, ?, ?)", row)
    return ticket


def redeem_ticket(database: Database, ticket: str) -> Principal | None:
    """Use *ticket* and return its principal, or None if it is invalid."""
    wanted = (hash_of(ticket), clock.timestamp())
    query = "SELECT rests_on FROM outfeed_ticket WHERE hash = ? AND expires_at > ?"
    with database.connection() as connection:
        row = connection.execute(query, wanted).fetchone()
    if row is None:
        return None  # before the write lock, as with codes
    with database.transaction() as connection:
        if connection.execute("DELETE FROM outfeed_ticket WHERE hash = ?", wanted[:1]).rowcount != 1:
            return None
    return principal_of(database, f"ticket:{row[0]}")


def hash_of(secret: str) -> str:
    """Return the hash that is stored of *secret*."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
