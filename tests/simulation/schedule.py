"""Schedules: the steps of one run, made from a seed, run and shrunk."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from outfeed.feed import tail
from tests.simulation.world import World

# Weights of the steps of `World`.
WEIGHTS = {
    "write": 20, "write_unnoticed": 8, "tick": 14, "poll_one": 6, "join": 8, "resubscribe": 5, "leave": 4,
    "come_back": 8, "stall": 7, "drain": 8, "step_one": 6, "prune": 4, "back_up": 2, "restore": 1, "replace": 1,
    "crash": 2,
}  # fmt: skip
# Small, so that short runs read the source as well.
TAIL_EVENTS = 20


class Step(NamedTuple):
    """One step of a schedule, and its two numbers."""

    name: str
    a: int
    b: int


def schedule_of(seed: int) -> list[Step]:
    """Return the schedule of *seed*. It is always the same."""
    dice = random.Random(seed)
    names = dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=dice.randint(10, 80))
    return [Step(name, dice.randrange(2**16), dice.randrange(2**16)) for name in names]


def run(steps: list[Step]) -> Exception | None:
    """Run *steps* in a new world. Return the breach, if there is one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tail, "TAIL_EVENTS", TAIL_EVENTS)
        world = World(monkeypatch)
        try:
            for step in steps:
                getattr(world, step.name)(step.a, step.b)
                world.settle()
            world.finish()
        except Exception as error:  # noqa: BLE001 - any error of the core is a finding
            return error
    return None


def shrink(steps: list[Step]) -> list[Step]:
    """Return a short schedule that fails alike, by leaving out steps."""
    kind = _kind_of(run(steps))
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            shorter = steps[:at] + steps[at + size :]
            if _kind_of(run(shorter)) != kind:
                at += size
            else:
                steps = shorter
        size //= 2
    return steps


def _kind_of(error: Exception | None) -> str:
    return getattr(error, "sentence", type(error).__name__)


def report(seed: int, error: Exception) -> str:
    """Return what a reader needs to see the failure again."""
    shortest = shrink(schedule_of(seed))
    lines = [f"seed {seed} fails: {error}", *(f"  {step.name}({step.a}, {step.b})" for step in shortest)]
    return "\n".join([*lines, f"  {run(shortest)}"])
