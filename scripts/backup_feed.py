#!/usr/bin/env python3
"""Back the live database up and keep the newest few; for cron: `scripts/backup_feed.py --to DIR [--keep 14] [--json]`.

Each backup is checked before an old one goes, and the one just made always stays. Exit 0: done, 1: failed, 2: misused.
"""

import argparse
import glob
import json
import sys
from pathlib import Path

import _outfeed


def main() -> None:
    """Back up and rotate, by the arguments of this process."""
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
        gone = rotate(arguments.to, stem, arguments.keep, made)
    except (OutfeedError, OSError) as error:
        sys.exit(f"Error: {error}")
    if arguments.json:
        facts = {"file": str(made), **content._asdict(), "removed": [path.name for path in gone]}
        print(json.dumps(facts))
    else:
        print(f"Backed up {content.events:,} events to {made}, checked; removed {len(gone)} older.")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Back the live database up and keep the newest few.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder of the backups")
    parser.add_argument("--keep", type=positive, default=14, metavar="N", help="how many stay (default: 14)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text!r}")
    return int(text)


def rotate(folder: Path, stem: str, keep: int, made: Path) -> list[Path]:
    """Remove all but the newest *keep* backups by this script, never *made*; return what is gone."""
    stamp = f"{'[0-9]' * 8}T{'[0-9]' * 6}Z"
    others = sorted(path for path in folder.glob(f"{glob.escape(stem)}-{stamp}.db") if path != made)
    gone = others[: max(0, len(others) + 1 - keep)]
    for path in gone:
        path.unlink()
    return gone


if __name__ == "__main__":
    main()
