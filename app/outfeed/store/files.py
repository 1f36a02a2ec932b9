"""Files beside the database that must be whole or not there: written under another name, synced, then put in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outfeed.errors import OutfeedError


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn the system's errors in the block into an OutfeedError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise OutfeedError(f"can't {doing}: {error.strerror or error}") from error


def make_private(path: Path) -> None:
    """Make the empty file *path*, which only its owner may read. Raises OSError where there is one."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def make_folder(folder: Path) -> None:
    """Make *folder* for its owner alone, and those above it, unless it is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Never the database itself: closing drops SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
