"""The owner's file, `<database>.uplink`.

The nonce under which this machine's uplink owned the engine last.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from outfeed.store import files

_MACHINE = (Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id"))


class OwnerFile:
    """Keeps the nonce for the next uplink of this database on this machine.

    A reboot ends it.

    A disk that was cloned, with the file on it, must not own the lease: then the file is ignored.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = Path(f"{database}.uplink")

    def read(self) -> str:
        """Return the nonce.

        Empty if there is none, or it is another machine's or database's.
        """
        try:
            kept = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return ""
        is_ours = isinstance(kept, dict) and kept.get("place") == self._place()
        return str(kept.get("nonce", "")) if is_ours else ""

    def write(self, nonce: str) -> None:
        """Keep *nonce*. Raises OSError."""
        draft = Path(f"{self._path}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        files.make_private(draft)
        draft.write_bytes(orjson.dumps({"nonce": nonce, "place": self._place()}))
        os.replace(draft, self._path)

    def _place(self) -> list[str]:
        status = os.stat(self._database)
        return [*map(_text, _MACHINE), str(status.st_dev), str(status.st_ino)]


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
