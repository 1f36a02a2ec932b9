"""Schedules of many seeds, on several processes."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from functools import partial

from tests.simulation.schedule import run, schedule_of

CHUNK = 100
RunSeed = Callable[[int], Exception | None]


def run_seed(seed: int) -> Exception | None:
    """Run the schedule of *seed*. Return the breach, if there is one."""
    return run(schedule_of(seed))


def first_failure(
    first: int, schedules: int, processes: int = 1, run_seed: RunSeed = run_seed
) -> tuple[int, Exception] | None:
    """Run the schedules of *schedules* seeds from *first* on.

    Returns the lowest seed that fails, and the breach.
    """
    chunks = [range(at, min(at + CHUNK, first + schedules)) for at in range(first, first + schedules, CHUNK)]
    seed = _failing_seed(chunks, processes, partial(_failing_seed_of, run_seed))
    if seed is None:
        return None
    error = run_seed(seed)  # again, because an error does not go through a pipe unchanged
    assert error is not None, f"seed {seed} fails in another process only"
    return seed, error


def _failing_seed(chunks: list[range], processes: int, find: Callable[[range], int | None]) -> int | None:
    if processes == 1:
        return next((seed for seed in map(find, chunks) if seed is not None), None)
    with multiprocessing.get_context("spawn").Pool(processes, partial(logging.disable, logging.CRITICAL)) as pool:
        return next((seed for seed in pool.imap(find, chunks) if seed is not None), None)


def _failing_seed_of(run_seed: RunSeed, seeds: range) -> int | None:
    return next((seed for seed in seeds if run_seed(seed)), None)
