#!/usr/bin/env python3
"""Back up the live database and keep the newest backups.

For cron: `scripts/backup_feed.py --to DIR [--keep 14] [--json]`. Each backup is checked before an older one is removed,
and the new one always stays. Exit status 0: done, 1: failed, 2: wrong usage.
"""

import argparse
import glob
import json
import sys
from pathlib import Path

import _outfeed


def main() -> None:
    """Back up and rotate, by the command's arguments."""
    arguments = read_arguments()
    _outfeed.enter()
    from outfeed import clock
    from outfeed.config import settings
    from outfeed.errors import OutfeedError
    from outfeed.store import database
    from outfeed.upkeep import backup

    stem = settings().database.stem
    made = arguments.to / f"{stem}-{clock.now():%Y%m%dT%H%M%SZ}.db"
    try:
        content = backup.backup(database.default(), made)
        removed = rotate(arguments.to, stem, arguments.keep, made)
    except (OutfeedError, OSError) as error:
        sys.exit(f"Error: {error}")
    if arguments.json:
        facts = {"file": str(made), **content._asdict(), "removed": [path.name for path in removed]}
        print(json.dumps(facts))
    else:
        print(f"Backed up {content.events:,} events to {made}, and verified the copy. Removed {len(removed)} old ones.")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Back up the live database and keep the newest backups.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the backups")
    parser.add_argument("--keep", type=positive, default=14, metavar="N", help="number of backups kept (default: 14)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text!r}")
    return int(text)


def rotate(folder: Path, stem: str, keep: int, made: Path) -> list[Path]:
    """Remove all but the newest *keep* backups. Return the removed ones.

    Only files of this script count. *made* is never removed.
    """
    stamp = f"{'[0-9]' * 8}T{'[0-9]' * 6}Z"
    others = sorted(path for path in folder.glob(f"{glob.escape(stem)}-{stamp}.db") if path != made)
    removed = others[: max(0, len(others) + 1 - keep)]
    for path in removed:
        path.unlink()
    return removed


if __name__ == "__main__":
    main()
