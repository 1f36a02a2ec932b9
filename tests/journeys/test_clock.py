"""The feed continues when the wall clock is set back or forward."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from outfeed import clock
from outfeed.access.rights import Rights
from outfeed.config import Settings
from outfeed.http.services import Services
from outfeed.jobs import Job, Jobs
from outfeed.store.database import Database
from tests.database_file import write_events
from tests.feed.socket_harness import Client
from tests.waits import wait_until

POLL_INTERVAL = 0.2
STEPS = {
    "an hour back": [timedelta(hours=-1)],
    "a week forward": [timedelta(days=7)],
    "to and fro": [timedelta(days=7), timedelta(days=-14), timedelta(hours=1), timedelta(seconds=-2)],
}
by_step = pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)


@contextlib.contextmanager
def settable_clock() -> Iterator[Any]:
    """The running wall clock, which a test may set."""
    with freeze_time("2026-06-15T12:00:00", tick=True) as frozen:
        yield frozen


@contextlib.contextmanager
def started(services: Services, *parts: str) -> Iterator[None]:
    """Start the process's parts that drive the feed, all or the named ones."""
    drivers = [getattr(services, part) for part in parts or ("jobs", "notifier")]
    services.part(Rights).prepare()
    services.relay.start()
    for driver in drivers:
        driver.start()
    try:
        yield
    finally:
        for driver in reversed(drivers):
            driver.stop()
        services.mark.close()
        services.database.close()


@pytest.fixture
def services(database: Database) -> Services:
    services = Services(Settings(database=database.path, poll_interval=POLL_INTERVAL, heartbeat_secs=0.5))
    services.jobs.scheduler.remove_job("prune")  # it writes an event when the clock has leapt
    return services


def set_clock(frozen: Any, step: timedelta) -> None:
    frozen.move_to(clock.now().replace(tzinfo=None) + step)


def resident_bytes() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024


def polls_a_second(services: Services) -> float:
    """Return the reads of the outbox per second, over at least a second."""
    reads, began = 0, clock.monotonic()
    read_after = services.outbox.read_after

    def counted(seq: int, limit: int) -> Any:
        nonlocal reads
        reads += 1
        return read_after(seq, limit)

    services.outbox.read_after = counted  # type: ignore[method-assign]
    threading.Event().wait(1)
    services.outbox.read_after = read_after  # type: ignore[method-assign]
    return reads / (clock.monotonic() - began)


@by_step
def test_the_feed_continues_across_steps_of_the_clock(services: Services, steps: list[timedelta]) -> None:
    with settable_clock() as frozen, started(services), Client(services) as client:
        client.subscribe()
        client.run()
        write_events(services.settings.database, id=["before"])
        client.follow(1)
        memory = resident_bytes()
        for n, step in enumerate(steps):
            # when the clock is set
            set_clock(frozen, step)
            # then events arrive
            write_events(services.settings.database, id=[f"after-{n}"])
            client.follow(2 + n)
            # and the jobs run: the next time of each is near
            wait_until(lambda: next_runs_are_near(services), "the scheduler's jobs run again", timeout=5)
            wait_until(lambda: services.relay.age < 1, "a poll completes", timeout=5)
            # and no missed run is repeated
            assert polls_a_second(services) <= 3 / POLL_INTERVAL
        assert resident_bytes() - memory < 30 * 2**20
        assert client.seen == list(range(1, len(steps) + 2))


def next_runs_are_near(services: Services) -> bool:
    now = clock.now()
    second = timedelta(seconds=1)
    return all(
        now - second < job.next_run_time < now + job.trigger.interval + second
        for job in services.jobs.scheduler.get_jobs()
    )


@by_step
def test_heartbeats_continue_across_steps_of_the_clock(services: Services, steps: list[timedelta]) -> None:
    with settable_clock() as frozen, started(services), Client(services) as client:
        client.subscribe()
        for step in steps:
            set_clock(frozen, step)
            for _ in range(2):
                assert client.take_message()["type"] == "heartbeat"


def test_the_scheduler_alone_delivers_events(services: Services) -> None:
    with started(services, "jobs"), Client(services) as client:
        client.subscribe()
        for n in range(1, 6):
            write_events(services.settings.database, id=[f"id-{n}"])
            client.follow(n)


@by_step
def test_the_commit_notifier_alone_delivers_events(services: Services, steps: list[timedelta]) -> None:
    with settable_clock() as frozen, started(services, "notifier"), Client(services) as client:
        client.subscribe()
        for n, step in enumerate([*steps, timedelta(0)], start=1):
            set_clock(frozen, step)
            write_events(services.settings.database, id=[f"id-{n}"])
            client.follow(n)


def test_the_commit_notifier_polls_if_no_scheduler_runs(services: Services) -> None:
    with started(services, "notifier"):
        wait_until(lambda: services.relay.age > 2 * POLL_INTERVAL, "no poll for a while")
        wait_until(lambda: services.relay.age < POLL_INTERVAL, "a poll without a commit", timeout=5)


# --- only the jobs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs() -> list[float]:
    return []


def test_a_week_forward_does_not_repeat_the_missed_runs(runs: list[float]) -> None:
    jobs = Jobs({"note": Job(lambda: runs.append(clock.monotonic()), 0.05)})
    with settable_clock() as frozen, running(jobs):
        wait_until(lambda: len(runs) > 3, "the job runs")
        set_clock(frozen, timedelta(days=7))
        began, before = clock.monotonic(), len(runs)
        wait_until(lambda: len(runs) > before + 5, "the job continues")
        assert len(runs) - before <= (clock.monotonic() - began) / 0.05 + 3


def test_jobs_run_again_after_an_hour_back_and_never_too_often(runs: list[float]) -> None:
    jobs = Jobs({"note": Job(lambda: runs.append(clock.monotonic()), 0.05)})
    with settable_clock() as frozen, running(jobs):
        wait_until(lambda: len(runs) > 3, "the job runs")
        set_clock(frozen, timedelta(hours=-1))
        before = len(runs)
        jobs.run_if_clock_set_back()
        wait_until(lambda: len(runs) > before + 3, "the job continues")
    # a scheduler that is woken each second does not run its jobs more often
    calm = Jobs({"note": Job(lambda: runs.append(clock.monotonic()), 60)})
    runs.clear()
    with running(calm):
        wait_until(lambda: next_run(calm) > clock.now() + timedelta(seconds=30), "its next run is set")
        before_recovery = next_run(calm)
        calm.run_if_clock_set_back()
        assert next_run(calm) == before_recovery


def next_run(jobs: Jobs) -> datetime:
    (job,) = jobs.scheduler.get_jobs()
    moment: datetime = job.next_run_time
    return moment


@contextlib.contextmanager
def running(jobs: Jobs) -> Iterator[None]:
    jobs.start()
    try:
        yield
    finally:
        jobs.stop()
