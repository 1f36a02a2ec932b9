#!/usr/bin/env python3
"""Back up the live database and keep the newest backups.

For cron: `scripts/backup_feed.py --to DIR [--keep 14] [--json]`. Each backup is checked before an older one is removed,
and the new one always stays. Exit status 0: done, 1: failed, 2: wrong usage.
"""

import argparse
import json
import sys
from pathlib import Path

import _outfeed


def main() -> None:
    """Back up and rotate, by the command's arguments."""
    arguments = read_arguments()
    _outfeed.enter()
    from outfeed.errors import OutfeedError
    from outfeed.store import database
    from outfeed.upkeep import backups

    try:
        made = backups.make(database.default(), arguments.to, arguments.keep, by="backup_feed", wait=True)
    except (OutfeedError, OSError) as error:
        sys.exit(f"Error: {error}")
    if arguments.json:
        print(json.dumps({"file": str(made.path), **made.content._asdict(), "removed": made.removed}))
    else:
        what = f"Backed up {made.content.events:,} events to {made.path}, and verified the copy."
        print(f"{what} Removed {len(made.removed)} old ones.")


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


if __name__ == "__main__":
    main()
