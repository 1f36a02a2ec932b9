"""Who may: tokens for programs, one-time sign-in codes, and the sessions of operators who used one.

All three are secrets of 256 random bits of which only the SHA-256 is stored: enough for what nobody can guess, and
quick to look up (scrypt would cost 96 ms a check). Nothing is cached, so every process knows of a change at once.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from app import clock
from app.errors import NameTaken, UnknownName
from app.store.database import Database

READ, WRITE, ADMIN = "read", "write", "admin"
SCOPES = (READ, WRITE, ADMIN)
TOKEN_PREFIX = "outfeed_"
MAX_NAME_CHARS = 100
SESSION_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the secret itself is not."""

    name: str
    scopes: tuple[str, ...]
    created_at: str


# --- tokens -----------------------------------------------------------------------------------------------------------


def create_token(database: Database, name: str, scopes: Iterable[str]) -> str:
    """Make a token and return its secret, which can't be shown again.

    Raises ValueError for a bad name or scope, NameTaken.
    """
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = (check_name(name), _hash(secret), ",".join(check_scopes(scopes)), clock.timestamp())
    with database.transaction() as connection:
        try:
            connection.execute("INSERT INTO token (name, hash, scopes, created_at) VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise NameTaken(
                f"there is already a token named {name!r}; revoke it first or choose another name"
            ) from None
    return secret


def list_tokens(database: Database) -> list[Token]:
    """Return every token, by name."""
    with database.connection() as connection:
        rows = connection.execute("SELECT name, scopes, created_at FROM token ORDER BY name").fetchall()
    return [_token(row) for row in rows]


def revoke_token(database: Database, name: str) -> None:
    """Delete the token of that name. Raises UnknownName."""
    with database.transaction() as connection:
        if not connection.execute("DELETE FROM token WHERE name = ?", (name,)).rowcount:
            raise UnknownName(f"there is no token named {name!r}; `outfeed token list` shows them all")


def find_token(database: Database, secret: str) -> Token | None:
    """Return the token with that secret, None where there is none or it was revoked."""
    with database.connection() as connection:
        query = "SELECT name, scopes, created_at FROM token WHERE hash = ?"
        row = connection.execute(query, (_hash(secret),)).fetchone()
    return _token(row) if row else None


def check_name(name: str) -> str:
    """Return *name* if a token may have it, else raise ValueError."""
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        raise ValueError(f"a name has 1 to {MAX_NAME_CHARS} printable characters, got {name!r:.120}")
    return name


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return *scopes* each once and in the order of SCOPES. Raises ValueError when one is unknown or there is none."""
    wanted = set(scopes)
    if not wanted or not wanted <= set(SCOPES):
        raise ValueError(f"scopes are any of {', '.join(SCOPES)}, got {', '.join(sorted(wanted)) or 'none'}")
    return tuple(scope for scope in SCOPES if scope in wanted)


def _token(row: tuple[str, str, str]) -> Token:
    name, scopes, created_at = row
    return Token(name, tuple(scopes.split(",")), created_at)


# --- signing in -------------------------------------------------------------------------------------------------------


def create_code(database: Database, lifetime: timedelta) -> str:
    """Return a new code that signs an operator in once, within *lifetime*. Expired ones are purged."""
    code, now = secrets.token_urlsafe(32), clock.now()
    with database.transaction() as connection:
        connection.execute("DELETE FROM sign_in_code WHERE expires_at <= ?", (clock.isoformat(now),))
        row = (_hash(code), clock.isoformat(now + lifetime))
        connection.execute("INSERT INTO sign_in_code (hash, expires_at) VALUES (?, ?)", row)
    return code


def redeem_code(database: Database, code: str) -> bool:
    """Use *code* up and return whether it was good. Of any number of callers at once, one gets True."""
    wanted = (_hash(code), clock.timestamp())
    with database.connection() as connection:
        query = "SELECT 1 FROM sign_in_code WHERE hash = ? AND expires_at > ?"
        if not connection.execute(query, wanted).fetchone():
            return False  # before the write lock: a stranger's guesses must not make writers wait
    with database.transaction() as connection:
        statement = "DELETE FROM sign_in_code WHERE hash = ? AND expires_at > ?"
        return connection.execute(statement, wanted).rowcount == 1


def create_session(database: Database) -> str:
    """Return the random key of a new operator session, good for SESSION_LIFETIME. Expired ones are purged."""
    key, now = secrets.token_urlsafe(32), clock.now()
    row = (_hash(key), clock.isoformat(now), clock.isoformat(now + SESSION_LIFETIME))
    with database.transaction() as connection:
        connection.execute("DELETE FROM session WHERE expires_at <= ?", (clock.isoformat(now),))
        connection.execute("INSERT INTO session (hash, created_at, expires_at) VALUES (?, ?, ?)", row)
    return key


def has_session(database: Database, key: str) -> bool:
    """Return whether *key* opens a session that has neither ended nor expired."""
    with database.connection() as connection:
        query = "SELECT 1 FROM session WHERE hash = ? AND expires_at > ?"
        return connection.execute(query, (_hash(key), clock.timestamp())).fetchone() is not None


def end_session(database: Database, key: str) -> None:
    """Make *key* worthless, also to whoever copied the cookie."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM session WHERE hash = ?", (_hash(key),))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
