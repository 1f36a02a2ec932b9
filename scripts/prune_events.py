#!/usr/bin/env python3
"""Delete old events from the log; for cron: `scripts/prune_events.py --older-than-days 30 [--archive DIR] [--dry-run]`.

The same as `outfeed prune`, run from a checkout. Exit 0: done, 1: failed, 2: misused.
"""

import sys

import _outfeed


def main() -> None:
    """Prune, by the arguments of this process."""
    _outfeed.enter()
    from outfeed.cli import main as outfeed

    outfeed(["prune", *sys.argv[1:]], prog_name="outfeed")


if __name__ == "__main__":
    main()
