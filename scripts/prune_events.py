#!/usr/bin/env python3
"""Delete old events from the log.

For cron: `scripts/prune_events.py --older-than-days 30 [--archive DIR] [--dry-run]`. The same as `outfeed prune`, run
from a checkout. Exit status 0: done, 1: failed, 2: wrong usage.
"""

import sys

import _outfeed


def main() -> None:
    """Prune, by the command's arguments."""
    _outfeed.enter()
    from outfeed.cli import main as outfeed

    outfeed(["prune", *sys.argv[1:]], prog_name="outfeed")


if __name__ == "__main__":
    main()
