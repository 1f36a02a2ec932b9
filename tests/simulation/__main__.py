"""The command: `python -m tests.simulation --schedules N`.

Exits 1 with the shortest schedule that fails.
"""

from __future__ import annotations

import argparse
import logging
import sys

from tests.simulation.schedule import report
from tests.simulation.seeds import first_failure


def main() -> int:
    """Run the schedules that the arguments name. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--schedules", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-shrink", action="store_true", help="only name the seed that fails")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if found := first_failure(given.first, given.schedules, given.processes):
        print(f"seed {found[0]} fails: {found[1]}" if given.no_shrink else report(*found))
        return 1
    print(f"{given.schedules:,} schedules from seed {given.first} on keep the protocol.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
