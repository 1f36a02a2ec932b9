"""Schedules of many seeds, on several processes."""

from __future__ import annotations

import logging
import multiprocessing
from functools import partial

from tests.simulation.schedule import run, schedule_of

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
