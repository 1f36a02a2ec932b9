"""Cursor file: the position of a reader, kept between processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from outfeed.client.shapes import Cursor
from outfeed.errors import Refused

MAX_FILE_BYTES = 4096


def read_cursor(path: Path) -> Cursor | None:
    """Return the cursor in *path*, or None if there is no such file.

    Raises Refused if the content is not a cursor.
    """
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(MAX_FILE_BYTES))
        return Cursor(int(fields["seq"]), str(fields["epoch"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(f"{path} holds no cursor ({error}); delete it to start over") from None


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Write the cursor to *path* atomically.

    If the process ends at any point, the file has the old cursor or the new one.
    """
    path = path.resolve()  # a rename onto a link would replace the link
    if path.exists() and not path.is_file():
        raise Refused(f"{path} is not a regular file; choose another file for the cursor")
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.write_text(json.dumps({"seq": cursor.seq, "epoch": cursor.epoch}) + "\n", encoding="utf-8")
    draft.replace(path)
