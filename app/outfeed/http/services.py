"""The parts of one serving process, wired together.

They are the store, the feed above it, and the jobs and threads that drive both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from flask import current_app

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import DatabaseError
from outfeed.feature import Part, Samples, registered, shipped_displays
from outfeed.feed.core import Core
from outfeed.feed.source import CheckpointStore, Source
from outfeed.feed.stats import FeedStats
from outfeed.feed.trace import Trace
from outfeed.history import Item
from outfeed.http import vitals
from outfeed.http.admission import Admission, RateLimiter
from outfeed.http.server.exhaustion import Exhaustion
from outfeed.http.vitals import Vitals, VitalsHistory
from outfeed.jobs import Job, Jobs
from outfeed.metrics import Metrics
from outfeed.store import database as db
from outfeed.store import outbox, triggers
from outfeed.store import serving as serving_record
from outfeed.store.checkpoint import Checkpoints
from outfeed.store.commits import CommitNotifier
from outfeed.store.displays import CurrentDisplays, DisplayCache
from outfeed.store.high_water_mark import HighWaterMark, Position
from outfeed.store.outbox import Outbox
from outfeed.store.own_errors import OwnErrors
from outfeed.store.probe import Probe
from outfeed.store.triggers import TriggerGuard

# Exports at once in a worker. Each holds a thread until its client has read it all (REQUESTS_AT_ONCE in process.py).
MAX_EXPORTS = 8
MAX_EXPORTS_PER_ADDRESS = 4
INTEGRITY_EVERY_SECS = 6 * 3600.0
# Reading every page uses a core for seconds. The delay keeps it apart from the clients that reconnect after a start.
INTEGRITY_DELAY_SECS = 300.0
P = TypeVar("P", bound=Part)


class Serving:
    """The parts of any process that serves viewers: the feed over a source.

    An origin and an edge have their own. A subclass fills *parts*, *jobs* and *displays*.
    """

    parts: list[Part]
    jobs: Jobs
    displays: CurrentDisplays

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        source: Source,
        checkpoints: CheckpointStore,
        record: Callable[[str, int, list[Item]], None],
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.checkpoints = checkpoints
        self.core = Core(
            source, checkpoints, record,
            heartbeat_secs=settings.heartbeat_secs, workers=settings.workers, stats=FeedStats(metrics),
            trace=Trace(settings.trace_file) if settings.trace_file else None,
        )  # fmt: skip
        self.hub, self.relay = self.core.hub, self.core.relay
        self.rates = RateLimiter()
        self.admission = Admission(settings.max_connections, settings.max_connections_per_ip)
        self.exports = Admission(MAX_EXPORTS, MAX_EXPORTS_PER_ADDRESS)
        self.exhaustion = Exhaustion(metrics)
        self._client_kinds: frozenset[tuple[str, str]] = frozenset()

    def part(self, kind: type[P]) -> P:
        """Return the part that a feature runs in this process.

        *kind* is its class or a base class.
        """
        return next(part for part in self.parts if isinstance(part, kind))

    def made_jobs(self, own: Mapping[str, Job]) -> Jobs:
        """Return the jobs of every process, *own*, and those of the parts."""
        return Jobs(
            {
                "poll": Job(self.relay.poll, self.settings.poll_interval),
                **({"gauges": Job(self.measure, 1.0)} if self.metrics.is_shared else {}),
                **({"trace": Job(self.core.trace.write, 0.5)} if self.core.trace else {}),
                **own,
                **{name: job for part in self.parts for name, job in part.jobs.items()},
            },
            on_error=lambda name, error: self.metrics.note_error(f"job {name}", error),
        )

    def stop_feed(self) -> None:
        """Stop the jobs and the pacer, and write the rest of the trace."""
        self.jobs.stop()
        self.core.pacer.stop()
        if self.core.trace:
            self.core.trace.close()

    def unready_reasons(self) -> list[str]:
        """Return why the feed is not current, one sentence for each reason."""
        problems = []
        if self.relay.age > 3 * self.settings.poll_interval:
            problems.append(f"the last completed poll is {self.relay.age:.1f} s old")
        if self.relay.failure:
            problems.append(f"the last poll failed: {self.relay.failure}")
        return problems + [f"out of {what}" for what in self.exhaustion.recent()]

    def problems(self) -> list[str]:
        """Return the reasons of /readyz, which anyone may see.

        They are `unready_reasons`, and others that take a query. Raises SourceError.
        """
        return self.unready_reasons()

    def samples(self) -> Mapping[str, Samples]:
        """Return the current values of the metrics that no worker counts.

        Raises SourceError.
        """
        return {}

    def measure(self) -> None:
        """Set the gauges to the present values."""
        age, counts = self.relay.age, self.hub.counts()
        self.metrics.position.set(self.hub.position)
        self.metrics.poll_age_seconds.set(age if math.isfinite(age) else math.nan)
        self.metrics.ready.set(not self.unready_reasons())
        # With several workers a gauge can't be removed: a kind of client that is gone is set to 0.
        self._client_kinds = kinds = self._client_kinds.union(counts)
        for kind in kinds:
            self.metrics.clients.labels(*kind).set(counts[kind])


class Services(Serving):
    """The parts of a serving process. Nothing runs before `start`.

    So a process may fork between construction and start.
    """

    checkpoints: Checkpoints
    displays: DisplayCache

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        metrics = metrics or Metrics()
        self.database = db.at(settings.database)
        self.own_errors = OwnErrors(self.database)
        metrics.report_errors_to(self.own_errors.note)
        self.outbox = Outbox(self.database, settings.max_event_bytes)
        self.displays = DisplayCache(self.database, shipped_displays())
        self.mark = HighWaterMark(settings.database)
        checkpoints = Checkpoints(self.database, settings.max_consumers_per_owner)
        super().__init__(settings, metrics, self.outbox, checkpoints, self._record)
        self.vitals = VitalsHistory(self._vitals)
        self.probe = Probe(self.database)
        self._noted_clients: int | None = None
        self.trigger_guard = TriggerGuard(self.database)
        self.parts = [part for feature in registered() if (part := feature.part(self)) is not None]
        self.jobs = self.made_jobs(
            {
                "mark": Job(self.mark.sync, 1.0),
                "triggers": Job(self.trigger_guard.check, 0.5),
                "probe": Job(self.probe.check, 1.0),
                "integrity": Job(self.probe.check_integrity, INTEGRITY_EVERY_SECS, delay=INTEGRITY_DELAY_SECS),
                "own errors": Job(self.own_errors.write, 1.0),
                "vitals": Job(self.vitals.take, vitals.EVERY_SECS),
                "clients": Job(self._note_clients, 1.0),
            }
        )
        self.notifier = CommitNotifier(
            settings.database, on_commit=self.relay.poll_if_wanted, on_tick=self._tick, woken=self.core.wanted
        )

    def start(self) -> None:
        """Move to the head, then poll by the scheduler and on each commit."""
        for part in self.parts:
            part.prepare()
        self.relay.start()
        self.relay.poll()  # records the position that clients may be told from now on
        self.core.pacer.start(self.relay.poll)
        for part in self.parts:
            part.start()
        self.jobs.start()
        self.notifier.start()

    def stop(self) -> None:
        """Stop all threads, wait until they have ended, and close the files."""
        self.database.interrupt_checks()
        for part in self.parts:  # before the jobs, whose end takes a wait
            part.stop()
        self.notifier.stop()
        self.stop_feed()
        for part in self.parts:
            part.close()
        self.mark.close()
        self.database.close()

    def unready_reasons(self) -> list[str]:
        """Return why the feed is not ready, one sentence for each reason.

        The feed is ready if it is current and takes events.
        """
        problems = super().unready_reasons() + self.probe.problems()
        return problems + [problem for part in self.parts for problem in part.problems()]

    def problems(self) -> list[str]:
        """Return the reasons of /readyz, without the database's folder.

        The triggers are compared too.
        """
        found = self.unready_reasons()
        try:
            found += triggers.problems(self.database)
        except DatabaseError as error:
            found.append(str(error))
        folder = f"{self.database.path.absolute().parent}{os.sep}"
        return list(dict.fromkeys(problem.replace(folder, "") for problem in found))

    def samples(self) -> Mapping[str, Samples]:
        """Return the database's metrics. Raises DatabaseError.

        No metric counts rows.
        """
        window, path = self.outbox.window(), self.database.path
        found: dict[str, Samples] = {
            "outbox_head": [([], window.last_seq)],
            "outbox_depth": [([], window.last_seq - window.first_seq + 1)],
            "database_bytes": [([], outbox.file_bytes(path))],
            "wal_bytes": [([], outbox.file_bytes(path, "-wal"))],
            "disk_free_bytes": [([], vitals.free_bytes(path.absolute()))],
        }
        for feature in registered():
            found |= feature.samples(self)
        return found

    def _vitals(self) -> Vitals:
        deliveries = self.relay.stats.deliveries.recent()
        lag = vitals.largest_lag(self.samples)
        return Vitals(clock.monotonic(), self.hub.position, deliveries.p99, len(self.hub.clients()), lag)

    def _record(self, epoch: str, seq: int, items: list[Item]) -> None:
        self.mark.advance(epoch, Position.at(seq, items))

    def _note_clients(self) -> None:
        """Record the number of clients for `outfeed status`, if it changed."""
        count = sum(self.hub.counts().values())
        if count != self._noted_clients:
            serving_record.note_clients(self.settings.database, self.metrics.worker, count)
            self._noted_clients = count

    def _tick(self) -> None:
        """Repair the jobs, and poll if the scheduler does not.

        The commit notifier calls this each second. It replaces a scheduler that a clock step or a blocked job has
        stopped.
        """
        self.jobs.run_if_clock_set_back()
        if self.relay.age > 2 * self.settings.poll_interval:
            self.relay.poll()


def serving() -> Serving:
    """Return what serves the current request, at an origin or at an edge."""
    found = current_app.extensions["outfeed"]
    assert isinstance(found, Serving)
    return found


def services() -> Services:
    """Return the services of the origin's app for the current request."""
    found = current_app.extensions["outfeed"]
    assert isinstance(found, Services)
    return found
