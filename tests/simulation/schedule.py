"""Schedules: the steps of one run, made from a seed, run and shrunk."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.simulation.world import World

# Weights of the steps of `World`.
WEIGHTS = {
    "write": 20, "write_unnoticed": 6, "flow": 1, "tick": 14, "hold": 8, "join": 8, "resubscribe": 6, "unsubscribe": 1,
    "acknowledge": 3, "ping": 3, "leave": 4, "come_back": 8, "stall": 7, "drain": 8, "prune": 4, "erase": 2,
    "back_up": 2, "restore": 1, "replace": 1, "rewind": 1, "fail": 2, "crash": 2,
    "lose_engine": 2, "revive_engine": 3, "flush_engine": 1, "evict": 1, "replicate": 3, "fail_over": 2,
    "drop_replies": 2, "fill_engine": 1, "lose_mark": 3, "reconnect_all": 2, "claim_foreign": 2,
}  # fmt: skip
# A burst: a step of the first kind, whose threads are held inside a call, and then two of the second kind.
CALLS = {
    "ping": 3, "resubscribe": 3, "join": 1, "come_back": 1, "acknowledge": 1, "reconnect_all": 1, "write": 1,
    "write_unnoticed": 1,
}  # fmt: skip
CHANGES = {"write": 4, "join": 1, "stall": 2, "drain": 1, "erase": 1, "prune": 1, "restore": 1, "leave": 1}
ALWAYS = {"write": 20, "tick": 10, "join": 8}
# In each schedule some steps are rare and some are frequent.
FACTORS = (0, 1, 1, 1, 5)
# How many seams a turn has on average, and how many turns follow a step. With few turns the next step comes while
# threads are inside a call. Without a number the threads come to rest.
HASTY: tuple[tuple[int, int | None], ...] = ((2, 0), (2, 6), (3, 30), (6, 25), (20, 200), (4, None), (200, None))
PUNCTUAL: tuple[tuple[int, int | None], ...] = ((2, None), (4, None), (20, None), (200, None))


class Step(NamedTuple):
    """One step of a schedule: two numbers, and the turns after it.

    *dice* is the seed of their order. *seams* and *turns* are their lengths and their number.
    """

    name: str
    a: int
    b: int
    dice: int
    seams: int
    turns: int | None


def schedule_of(seed: int) -> list[Step]:
    """Return the schedule of *seed*. It is always the same."""
    dice = random.Random(seed)
    weights = {name: weight * dice.choice(FACTORS) for name, weight in WEIGHTS.items()} | ALWAYS
    paces = HASTY if dice.random() < 0.7 else PUNCTUAL
    burst_share = dice.choice((0, 0.1, 0.4))
    kinds = [dice.randrange(2**16) for _ in range(dice.choice((1, 2, 8)))]  # of viewers, so that some share a cohort
    steps = list[Step]()
    for name in _names(dice, weights, dice.randint(10, 60)):
        steps.append(_step(dice, name, kinds, dice.choice(paces)))
        if dice.random() < burst_share:
            burst = [*_names(dice, CALLS, 1), "hold", *_names(dice, CHANGES, 2)]
            steps += [_step(dice, each, kinds, (2, dice.randrange(15))) for each in burst]
    return steps


def _step(dice: random.Random, name: str, kinds: list[int], pace: tuple[int, int | None]) -> Step:
    return Step(name, dice.choice(kinds) if name == "join" else dice.randrange(2**16), *_numbers(dice), *pace)


def _names(dice: random.Random, weights: dict[str, int], count: int) -> list[str]:
    return dice.choices(list(weights), list(weights.values()), k=count)


def _numbers(dice: random.Random) -> tuple[int, int]:
    return dice.randrange(2**16), dice.randrange(2**16)


def run(
    steps: list[Step], trace: Callable[[str], None] = lambda _: None, traces: Path | None = None
) -> Exception | None:
    """Run *steps* in a new world. Return the breach, if there is one.

    *trace* receives each step and each turn. The processes write their traces to the folder *traces*.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, traces)
        world.actors.trace = trace
        try:
            world.start()
            for step in steps:
                trace(step.name)
                getattr(world, step.name)(step.a, step.b)
                world.run(random.Random(step.dice), step.seams, step.turns)
            world.finish()
        except Exception as error:  # noqa: BLE001 - any error of the core is a finding
            return error
        finally:
            world.close()
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
    lines = [f"seed {seed} fails: {error}", *(f"  {step}" for step in shortest)]
    return "\n".join([*lines, f"  {run(shortest)}"])
