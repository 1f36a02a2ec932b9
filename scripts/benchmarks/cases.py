"""The cases for all servers: what is done with one and its connected clients, and which figures come of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.benchmarks import process
from scripts.benchmarks.load import Phase
from scripts.benchmarks.servers import Outfeed
from scripts.benchmarks.session import LoadSession

PACED_PER_SECOND = 100.0
COMMIT_SIZE = 100
CAREFUL_IN_BURST = 10
SETTLE_SECS = 1.0

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Seconds of events at the fixed rate, seconds of quiet, events in a burst. Of Outfeed by itself: seconds that viewers
    watch, events that are stored already, events that a client is behind, pairs of turns of log_event and INSERT, and
    events that producers post.
    """

    paced_secs: float
    idle_secs: float
    burst_events: int
    peer_burst_events: int
    viewers_secs: float
    stored_events: int
    behind_events: int
    turns: int
    posted_events: int


@dataclass(frozen=True, slots=True)
class Case:
    """One case. Within one load cases run in the order of CASES: after a burst nothing is read carefully any more.

    One that stands *apart* has servers and clients of its own: what it needs is a server that has seen no crowd.
    """

    name: str
    clients: tuple[int, ...]
    measure: Callable[[LoadSession, Sizes], Figures]
    is_apart: bool = False


def measure_idle(load: LoadSession, sizes: Sizes) -> Figures:
    """Connected clients and no events. Their memory is what they added; pages that processes share count once."""
    time.sleep(SETTLE_SECS)
    before = process.cpu_seconds(load.server.session)
    time.sleep(sizes.idle_secs)
    used = process.cpu_seconds(load.server.session) - before
    memory = process.memory_mib(load.server.session)
    return {
        "idle_core_percent": 100 * used / sizes.idle_secs,
        "memory_mib": memory,
        "kib_a_client": 1024 * (memory - load.memory_before_mib) / load.clients,
    }


def measure_latency(load: LoadSession, sizes: Sizes) -> Figures:
    """100 events a second, each in a commit of its own; every delivery counts."""
    events = round(sizes.paced_secs * PACED_PER_SECOND)
    phase = Phase(events, careful=load.clients, timeout_secs=sizes.paced_secs + 60)
    before = process.cpu_seconds(load.server.session)
    outcome, written = load.run(phase, PACED_PER_SECOND)
    used = process.cpu_seconds(load.server.session) - before
    return {
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "write_p50_ms": written.one_p50_ms,
        "server_core_percent": 100 * used / outcome.seconds,
        "load_core_percent": 100 * outcome.cpu_seconds / outcome.seconds,
    }


def measure_burst(load: LoadSession, sizes: Sizes) -> Figures:
    """Single commits as fast as they go."""
    return _burst(load, sizes, commit_size=1)


def measure_commits(load: LoadSession, sizes: Sizes) -> Figures:
    """Commits of 100 events as fast as they go; a peer takes them one at a time."""
    return _burst(load, sizes, commit_size=COMMIT_SIZE)


def _burst(load: LoadSession, sizes: Sizes, commit_size: int) -> Figures:
    """Deliveries count from the first event's birth to the moment at which the last client has the last event."""
    events = sizes.burst_events if isinstance(load.server, Outfeed) else sizes.peer_burst_events
    before = process.cpu_seconds(load.server.session)
    outcome, written = load.run(Phase(events, CAREFUL_IN_BURST, timeout_secs=90), 0, commit_size)
    used = process.cpu_seconds(load.server.session) - before
    return {
        "deliveries_per_s": outcome.deliveries / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "burst_p50_ms": outcome.p50_ms,
        "burst_p99_ms": outcome.p99_ms,
        "written_per_s": events / written.seconds,
        "load_core_percent": 100 * outcome.cpu_seconds / outcome.seconds,
    }


CASES = {
    case.name: case
    for case in (
        Case("idle", (1000,), measure_idle, is_apart=True),
        Case("latency", (1, 100, 500, 1000), measure_latency),
        Case("burst", (500,), measure_burst),
        Case("commits", (500,), measure_commits),
    )
}
