"""The table of scheduled jobs; starts and stops APScheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from app import clock

# A wall clock that has fallen behind the monotonic one by this much was set back.
STEP_SECS = 0.5


class Every(BaseTrigger):
    """Fires *secs* after now, never for what was missed: an interval trigger enumerates every run of a week's step."""

    def __init__(self, secs: float) -> None:
        self._interval = timedelta(seconds=secs)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now if previous_fire_time is None else now + self._interval


class Jobs:
    """Runs each of *table*, a name with (call, seconds between runs), on APScheduler.

    Each has an executor of its own, with one thread: one that takes long delays no other.
    """

    def __init__(self, table: Mapping[str, tuple[Callable[[], None], float]]) -> None:
        logging.getLogger("apscheduler").setLevel(logging.WARNING)  # it writes two lines a run
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={name: ThreadPoolExecutor(1) for name in table})
        for name, (call, secs) in table.items():
            self._scheduler.add_job(
                call, Every(secs), id=name, name=name, executor=name, misfire_grace_time=None, coalesce=True
            )
        self._offset = 0.0

    def start(self) -> None:
        """Begin to run them, each at once."""
        self._offset = _offset()
        self._scheduler.start()

    def stop(self) -> None:
        """Wait for runs that are at work, and start no more."""
        self._scheduler.shutdown(wait=True)

    def mend(self) -> None:
        """Run every job now where the wall clock was set back: each would wait until that time comes round again."""
        before, self._offset = self._offset, _offset()
        if self._offset < before - STEP_SECS:
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=clock.now())


def _offset() -> float:
    return clock.now().timestamp() - clock.monotonic()
