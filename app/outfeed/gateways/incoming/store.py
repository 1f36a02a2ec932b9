"""Write-only addresses in the database.

The secret of a URL has 256 random bits, and only its SHA-256 is stored. A signing secret is stored as it is, because
the check of a signature needs it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from outfeed import clock
from outfeed.errors import NameTaken, UnknownName
from outfeed.principal import WRITE, Principal
from outfeed.store import audit
from outfeed.store.database import Database, IntegrityError

PREFIX = "outfeed_"  # with it, redaction.py and the logs hide the secret everywhere
USE_NOTED_EVERY = timedelta(minutes=1)
_COLUMNS = "name, hash, topic, source, types, mapping, signing_secret, created_at, last_used_at"
_SELECT = f"SELECT {_COLUMNS} FROM outfeed_address "  # noqa: S608 - constant columns
_INSERT = f"INSERT INTO outfeed_address ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constant columns


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that accepts events without a token. Empty *types* allows all."""

    name: str
    hash: str
    topic: str
    source: str
    types: tuple[str, ...]
    mapping: str | None
    signing_secret: str | None = field(repr=False)
    created_at: str
    last_used_at: str | None

    @property
    def principal(self) -> Principal:
        """The principal of its requests, which may only write."""
        return Principal(self.name, (WRITE,), f"address:{self.hash}", self.types)


def add(
    database: Database,
    name: str,
    *,
    topic: str,
    source: str,
    types: tuple[str, ...] = (),
    mapping: str | None = None,
    signing_secret: str | None = None,
    by: str | None = None,
) -> str:
    """Create an address and return the secret of its URL.

    Raises NameTaken.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    row = (name, _hash_of(secret), topic, source, ",".join(types), mapping, signing_secret, clock.timestamp(), None)
    with database.transaction() as connection:
        try:
            connection.execute(_INSERT, row)
        except IntegrityError:
            raise NameTaken(f"there is already an address named {name!r}; revoke it or choose another name") from None
        facts = {"name": name, "topic": topic, "types": list(types), "mapping": mapping}
        audit.record(connection, "access.address_added", by, **facts)
    return secret


def list_addresses(database: Database) -> list[Address]:
    """Return every address, by name."""
    with database.connection() as connection:
        rows = connection.execute(_SELECT + "ORDER BY name").fetchall()
    return list(map(_address, rows))


def revoke(database: Database, name: str, *, by: str | None = None) -> None:
    """Delete the address; its URL is invalid at once. Raises UnknownName."""
    with database.transaction() as connection:
        if not connection.execute("DELETE FROM outfeed_address WHERE name = ?", (name,)).rowcount:
            raise UnknownName(f"address {name!r} not found; `outfeed address list` shows all addresses")
        audit.record(connection, "access.address_revoked", by, name=name)


def find(database: Database, secret: str) -> Address | None:
    """Return the address with that secret in its URL, or None."""
    with database.connection() as connection:
        row = connection.execute(_SELECT + "WHERE hash = ?", (_hash_of(secret),)).fetchone()
    return _address(row) if row else None


def note_use(database: Database, address: Address) -> None:
    """Write that the address is used now, once in USE_NOTED_EVERY."""
    now, last = clock.now(), clock.parsed(address.last_used_at)
    if last is not None and timedelta() <= now - last < USE_NOTED_EVERY:
        return
    with database.transaction() as connection:
        row = (clock.isoformat(now), address.hash)
        connection.execute("UPDATE outfeed_address SET last_used_at = ? WHERE hash = ?", row)


def _address(row: tuple[str, ...]) -> Address:
    name, hash_, topic, source, types, *more = row
    return Address(name, hash_, topic, source, tuple(filter(None, types.split(","))), *more)


def _hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
