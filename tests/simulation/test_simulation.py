"""The simulated processes keep the protocol under any schedule."""

from __future__ import annotations

from tests.simulation.schedule import report, run, schedule_of

SCHEDULES = 300


def test_the_core_keeps_the_protocol_under_three_hundred_schedules() -> None:
    for seed in range(SCHEDULES):
        if error := run(schedule_of(seed)):
            raise AssertionError(report(seed, error)) from error


def test_a_seed_always_gives_the_same_turns() -> None:
    for seed in range(20):
        first, second = list[str](), list[str]()
        run(schedule_of(seed), first.append)
        run(schedule_of(seed), second.append)
        assert first == second
        assert first
