"""The command: `python -m tests.simulation --schedules N`.

Exits 1 with the shortest schedule that fails.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
from functools import partial

from tests.simulation.schedule import report, run, schedule_of

CHUNK = 100


def first_failure(first: int, schedules: int, processes: int = 1) -> tuple[int, Exception] | None:
    """Run the schedules of *schedules* seeds from *first* on.

    Returns a seed that fails, and the breach.
    """
    chunks = [range(at, min(at + CHUNK, first + schedules)) for at in range(first, first + schedules, CHUNK)]
    seed = _failing_seed(chunks, processes)
    error = None if seed is None else run(schedule_of(seed))
    return None if seed is None or error is None else (seed, error)


def _failing_seed(chunks: list[range], processes: int) -> int | None:
    if processes == 1:
        return next((seed for seed in map(_failing_seed_of, chunks) if seed is not None), None)
    with multiprocessing.get_context("spawn").Pool(processes, partial(logging.disable, logging.CRITICAL)) as pool:
        return next((seed for seed in pool.imap_unordered(_failing_seed_of, chunks) if seed is not None), None)


def _failing_seed_of(seeds: range) -> int | None:
    """Return the first seed that fails, or None.

    The caller repeats it: an error does not go through a pipe unchanged.
    """
    return next((seed for seed in seeds if run(schedule_of(seed))), None)


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
