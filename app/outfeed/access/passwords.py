"""Passwords: werkzeug's scrypt, with a limit of concurrent checks."""

from __future__ import annotations

import threading

from werkzeug.security import check_password_hash, generate_password_hash

from outfeed.errors import TooManyChecks

MIN_CHARS = 8
MAX_CHARS = 1024
# One check takes a tenth of a second of a core and 32 MB. The limit protects the server from unauthenticated clients.
_checking = threading.BoundedSemaphore(2)
_WAIT_SECS = 5.0
# The hash of an unused password. The check of an unknown name uses it, so that its refusal takes the same time.
_DUMMY_HASH = (
    "scrypt:32768:8:1$BKCtHinMMUDmpF97$7bd51f40ea4a7fa047b11cb5629347a5d5a185e2aa7a6f8f74f56fd32059f327"
    "f0875ed106b97e4c5e9e6e078f019ba7ad9c4fb5c24b8ec7aaa008ad1e084012"
)


def hash_of(password: str) -> str:
    """Return the hash of *password* for storage.

    Raises ValueError with the reason if the password is invalid.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise ValueError(f"use {MIN_CHARS} to {MAX_CHARS:,} characters")
    return generate_password_hash(password)


def matches(stored: str | None, password: str) -> bool:
    """Return whether *password* matches the hash *stored*.

    Without a stored hash it returns False after the same time. Raises TooManyChecks.
    """
    if not _checking.acquire(timeout=_WAIT_SECS):
        raise TooManyChecks("too many sign-ins at the same time; try again")
    try:
        return check_password_hash(stored or _DUMMY_HASH, password[:MAX_CHARS]) and stored is not None
    finally:
        _checking.release()
