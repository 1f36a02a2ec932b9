"""Owner file, `<database>.uplink`: which origin a database is.

Copies of a database have the same epoch and the same seqs, and then write different events. The owner file is not
copied with the database by SQLite, Litestream or `outfeed backup`. It is ignored if the database has another inode or
is on another machine.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import NamedTuple

import orjson

from outfeed.store import files

_MACHINE = Path("/etc/machine-id")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Ownership(NamedTuple):
    """The identity of one database as an origin.

    *epoch* is the epoch that this database has published and no other has, empty if there is none. *is_since_boot*: it
    was saved since the boot of this machine, on the same device.
    """

    origin: str
    epoch: str = ""
    is_since_boot: bool = False


class OwnerFile:
    """Keeps the ownership of one database for its next uplink."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = Path(f"{database}.uplink")

    def load(self) -> Ownership:
        """Return the saved ownership, or a new one.

        A saved one that belongs to another database is ignored.
        """
        try:
            kept = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            kept = None
        if not isinstance(kept, dict) or kept.get("place") != self._place():
            return Ownership(secrets.token_hex(16))
        return Ownership(str(kept.get("origin")), str(kept.get("epoch")), kept.get("boot") == self._boot())

    def save(self, ownership: Ownership) -> Ownership:
        """Save *ownership* and return it as `load` does. Raises OSError."""
        content = {**ownership._asdict(), "place": self._place(), "boot": self._boot()}
        draft = Path(f"{self._path}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        files.make_private(draft)
        with draft.open("wb") as file:
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
        files.sync(self._path.parent)
        return ownership._replace(is_since_boot=True)

    def _place(self) -> list[str]:
        return [_text(_MACHINE), str(os.stat(self._database).st_ino)]

    def _boot(self) -> list[str]:
        """Return what differs on a cloned disk, and after a reboot."""
        return [_text(_BOOT), str(os.stat(self._database).st_dev)]


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
