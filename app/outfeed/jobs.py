"""Jobs: a table of jobs that APScheduler runs.

`http/services.py` has the table. The poll of the relay is one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from apscheduler.events import EVENT_JOB_ERROR
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from outfeed import clock

# If the wall clock has fallen behind the monotonic one by more than this, it was set back.
STEP_SECS = 0.5


class Job(NamedTuple):
    """A function to call every *secs* seconds.

    The first call comes *delay* seconds after the start.
    """

    call: Callable[[], None]
    secs: float
    delay: float = 0.0


class Every(BaseTrigger):
    """A trigger that fires *secs* after now, never for missed runs.

    APScheduler's own interval trigger enumerates every run that was missed when the clock is set forward by a week.
    """

    def __init__(self, secs: float, delay: float) -> None:
        self.interval = timedelta(seconds=secs)
        self._delay = timedelta(seconds=delay)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + (self._delay if previous_fire_time is None else self.interval)


class Jobs:
    """Runs the jobs of *table*, by name, on APScheduler.

    Each job has an executor with one thread, so that a slow job delays no other. *on_error* is called with the name of
    a job and its exception. APScheduler logs the exception and runs the job again at its next time.
    """

    def __init__(self, table: Mapping[str, Job], on_error: Callable[[str, BaseException], None] | None = None) -> None:
        # APScheduler logs two lines a run, and a warning for each run that is left out while the one before is running.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self.scheduler = BackgroundScheduler(timezone=UTC, executors={name: ThreadPoolExecutor(1) for name in table})
        for name, (call, secs, delay) in table.items():
            self.scheduler.add_job(
                call, Every(secs, delay), id=name, name=name, executor=name, misfire_grace_time=None, coalesce=True
            )
        if on_error is not None:
            self.scheduler.add_listener(lambda event: on_error(event.job_id, event.exception), EVENT_JOB_ERROR)
        self._offset = 0.0

    def start(self) -> None:
        """Start the scheduler."""
        self._offset = clock.offset()
        self.scheduler.start()

    def stop(self) -> None:
        """Wait for running jobs and start no more."""
        self.scheduler.shutdown(wait=True)

    def run_if_clock_set_back(self) -> None:
        """Run every job now if the wall clock was set back.

        Without it, each job would wait until the clock reaches its planned time again.
        """
        before, self._offset = self._offset, clock.offset()
        if self._offset < before - STEP_SECS:
            for job in self.scheduler.get_jobs():
                job.modify(next_run_time=clock.now())
