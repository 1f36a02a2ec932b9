"""The schedules of many seeds on several processes."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path

import pytest

from tests.simulation.seeds import first_failure
from tests.waits import wait_until

LOW, HIGH = 150, 250


class BoundError(Exception):
    """An error that no pipe can carry."""

    def __init__(self, seed: int) -> None:
        super().__init__(f"seed {seed}")
        self.again = lambda: seed


def fail_at_two_seeds(high_has_failed: Path, seed: int) -> Exception | None:
    """Fail at HIGH first, then at LOW."""
    if seed == HIGH:
        high_has_failed.touch()
    if seed == LOW:
        wait_until(high_has_failed.exists, "the higher seed has failed in the other process")
    return BoundError(seed) if seed in (LOW, HIGH) else None


def test_two_processes_find_the_lowest_seed_that_fails_with_an_error_that_can_not_be_pickled(tmp_path: Path) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(BoundError(LOW))
    found = first_failure(0, 300, processes=2, run_seed=partial(fail_at_two_seeds, tmp_path / "high"))
    assert found is not None
    seed, error = found
    assert (seed, str(error)) == (LOW, f"seed {LOW}")


def fail_elsewhere(parent: int, seed: int) -> Exception | None:
    """Fail in each process but *parent*."""
    return BoundError(seed) if os.getpid() != parent else None


def test_a_seed_that_fails_in_another_process_only_is_no_success() -> None:
    with pytest.raises(AssertionError, match="seed 7 fails in another process only"):
        first_failure(7, 1, processes=2, run_seed=partial(fail_elsewhere, os.getpid()))
