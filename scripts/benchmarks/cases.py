"""The cases: each measures a server with connected clients.

Each measurement starts its own server, so that none depends on the earlier ones.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.benchmarks import event, process
from scripts.benchmarks.errors import SequenceError
from scripts.benchmarks.load import Outcome, Phase
from scripts.benchmarks.producers import Call, api_call, mcp_call, produce
from scripts.benchmarks.servers import HOST, Checkout, Server, fill
from scripts.benchmarks.session import LoadSession, Written, catch_up
from scripts.benchmarks.writer import INSERT, SqliteSink

PACED_PER_SECOND = 100.0
COMMIT_SIZE = 100
BURST_EVENTS = 2000
CAREFUL_IN_BURST = 10
WARM_UP = Phase(events=20, careful=1_000_000, timeout_secs=60)
SETTLE_SECS = 1.0
WATCHED_SECS = 600

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurements.

    *turns* are pairs of log_event and INSERT. Producers post *posted_events*.
    """

    paced_secs: float = 3
    viewers_secs: float = 10
    idle_secs: float = 15  # heartbeats come every 15 seconds
    behind_events: int = 300_000
    turns: int = 20
    posted_events: int = 40_000
    watched_rows: int = 100_000


SHORT = Sizes(
    paced_secs=2, viewers_secs=2, idle_secs=4, behind_events=100_000, turns=4, posted_events=4000, watched_rows=10_000
)


@dataclass(slots=True)
class Stage:
    """One checkout, a folder for its servers, and its filled databases.

    Its rounds share these databases.
    """

    checkout: Checkout
    folder: Path
    sizes: Sizes
    _stored: dict[int, Path] = field(default_factory=dict)

    def server(self, max_clients: int, database: Path | None = None) -> Server:
        """Return a server that is not started, on an empty database or *database*."""
        return Server(self.checkout, Path(tempfile.mkdtemp(dir=self.folder)), max_clients, database)

    def stored(self, events: int) -> Path:
        """Return a database with *events*, numbered from 1, and a search index."""
        if events not in self._stored:
            server = self.server(1)
            server.run("upgrade")
            fill(server.database, events)
            with server:
                server.await_quiet()
            self._stored[events] = server.database
        return self._stored[events]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: its numbers of clients, alone and in pairs (0: no clients)."""

    name: str
    clients: tuple[int, ...]
    pair_clients: tuple[int, ...]
    measure: Callable[[Stage, int], Figures]


def measure_idle(stage: Stage, clients: int) -> Figures:
    """Measure connected clients without events.

    Their memory is the server's growth. Pages that processes share count once.
    """
    with stage.server(clients) as server:
        with LoadSession(server, 1, server.target()) as first:
            first.run(WARM_UP, PACED_PER_SECOND)
        without = process.memory_mib(server.session)
        with LoadSession(server, clients, server.target()):
            time.sleep(SETTLE_SECS)
            before = process.cpu_seconds(server.session)
            time.sleep(stage.sizes.idle_secs)
            used = process.cpu_seconds(server.session) - before
            memory = process.memory_mib(server.session)
    return {
        "core_percent": 100 * used / stage.sizes.idle_secs,
        "memory_mib": memory,
        "kib_a_client": 1024 * (memory - without) / clients,
    }


def measure_latency(stage: Stage, clients: int) -> Figures:
    """Measure 100 events a second, one commit each. Every delivery counts."""
    return _paced(stage, clients, stage.sizes.paced_secs)


def measure_paced(stage: Stage, clients: int) -> Figures:
    """Measure the same for viewers with the page's settings.

    They get batches, at most ten frames a second, with a filter.
    """
    return _paced(stage, clients, stage.sizes.viewers_secs, batch=True, rate=10, types=["task.*", "tool.*"])


def _paced(stage: Stage, clients: int, secs: float, **wanted: Any) -> Figures:
    phase = Phase(round(secs * PACED_PER_SECOND), clients, timeout_secs=secs + 60)
    with stage.server(clients) as server, LoadSession(server, clients, server.target(**wanted)) as load:
        outcome, written, used = _timed(load, phase, PACED_PER_SECOND)
    return {
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "write_p50_ms": written.one_p50_ms,
        "core_percent": 100 * used / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "load_core_percent": 100 * outcome.cpu_seconds / outcome.seconds,
    }


def measure_burst(stage: Stage, clients: int, commit_size: int = 1) -> Figures:
    """Measure commits at full speed.

    The time runs from the creation of the first event until the last client has the last event.
    """
    phase = Phase(BURST_EVENTS, CAREFUL_IN_BURST, timeout_secs=90)
    with stage.server(clients) as server, LoadSession(server, clients, server.target()) as load:
        outcome, written, used = _timed(load, phase, 0, commit_size)
    return {
        "deliveries_per_s": outcome.deliveries / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "written_per_s": phase.events / written.seconds,
        "load_core_percent": 100 * outcome.cpu_seconds / outcome.seconds,
    }


def _timed(load: LoadSession, phase: Phase, per_second: float, commit_size: int = 1) -> tuple[Outcome, Written, float]:
    """Warm up, then run *phase*. Return the results and the CPU seconds."""
    load.run(WARM_UP, PACED_PER_SECOND)
    before = process.cpu_seconds(load.server.session)
    outcome, written = load.run(phase, per_second, commit_size)
    return outcome, written, process.cpu_seconds(load.server.session) - before


def measure_resume(stage: Stage, clients: int) -> Figures:
    """Measure clients that read all events in batches, at full speed.

    The time runs from the first connection.
    """
    events = stage.sizes.behind_events
    with stage.server(clients, stage.stored(events)) as server:
        before, memory = process.cpu_seconds(server.session), process.memory_mib(server.session)
        outcome = catch_up(clients, server.target(batch=True, after=0), Phase(events, careful=0, timeout_secs=120))
        used = process.cpu_seconds(server.session) - before
        grown = process.memory_mib(server.session) - memory
    return {
        "per_s": outcome.deliveries / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "grown_mib": grown,
    }


def measure_write(stage: Stage, _: int) -> Figures:
    """Measure `log_event`, INSERT and producers over HTTP.

    `log_event` and INSERT run without a server. No client is connected.
    """
    events = stage.sizes.posted_events
    figures = _calls(stage)
    with stage.server(1) as server:
        _post(server, 1, COMMIT_SIZE, COMMIT_SIZE)
        inserted, posted = _insert(server, events), _post(server, 4, COMMIT_SIZE, events)
        return figures | {
            "inserted_per_s": inserted,
            "posted_per_s": posted,
            "posted_ratio": posted / inserted,
            "one_per_s": _post(server, 1, COMMIT_SIZE, events),
            "hundred_per_s": _post(server, 100, COMMIT_SIZE, events),
            "singles_per_s": _post(server, 100, 1, events // 20),
        }


def _calls(stage: Stage) -> Figures:
    maker = stage.server(1)
    maker.run("upgrade")
    order = {"path": str(maker.database), "turns": stage.sizes.turns, "insert": INSERT, "row": event.make(1, 0)}
    script = Path(__file__).with_name("calls.py")
    return dict(json.loads(maker.run("-P", str(script), json.dumps(order), program="python")))


def measure_watch(stage: Stage, _: int) -> Figures:
    """Time writes to a table: unwatched, logged by hand, and watched."""
    maker = stage.server(1)
    maker.run("upgrade")
    order = {"path": str(maker.database), "rows": stage.sizes.watched_rows}
    script = Path(__file__).with_name("watched_writes.py")
    written = maker.run("-P", str(script), json.dumps(order), program="python", timeout_secs=WATCHED_SECS)
    return dict(json.loads(written))


def _insert(server: Server, events: int) -> float:
    """Insert *events* rows in commits of COMMIT_SIZE while the server runs.

    Returns events/s.
    """
    rows = [event.make(number, 0) for number in range(1, events + 1)]
    with closing(SqliteSink(str(server.database), COMMIT_SIZE)) as sink:
        began = time.monotonic()
        for row in rows:
            sink.put(row)
        return events / (time.monotonic() - began)


def _post(server: Server, producers: int, batch: int, events: int) -> float:
    """Have *producers* together post at least *events*, in calls of *batch*.

    Returns events/s.
    """
    each, before = -(-events // (producers * batch)), _count(server.database)
    seconds = produce(f"{HOST}:{server.port}", api_call(server.token, batch), producers, each)
    posted, stored = each * producers * batch, _count(server.database) - before
    if stored != posted:
        raise SequenceError(f"{posted} events were posted and {stored} are in the outbox")
    return posted / seconds


def measure_incoming(stage: Stage, _: int) -> Figures:
    """Time one event by a topic, an address and MCP, beside the API.

    Each figure is the median of the ratios in the same turn.
    """
    posts, plain = max(1, stage.sizes.posted_events // 400), {"Content-Type": "text/plain"}
    with stage.server(1) as server:
        url = server.run("address", "add", "bench").split()[0]
        token = plain | {"Authorization": f"Bearer {server.token}"}
        text = b"measured, not guessed"
        calls = {
            "topic_ratio": Call("/in/bench", text, token),
            "address_ratio": Call(urlsplit(url).path, text, plain),
            "mcp_ratio": mcp_call(server.token),
        }
        turns = [_turn(server, calls, posts) for _ in range(stage.sizes.turns + 1)][1:]
    return {name: statistics.median(turn[name] for turn in turns) for name in calls}


def _turn(server: Server, calls: dict[str, Call], posts: int) -> Figures:
    address = f"{HOST}:{server.port}"
    base = produce(address, api_call(server.token, 1), 1, posts)
    return {name: produce(address, call, 1, posts) / base for name, call in calls.items()}


def _count(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])


# The figures that the report shows; the JSON has more.
LABELS = {
    "core_percent": "server % of a core",
    "memory_mib": "memory, MiB",
    "kib_a_client": "memory, KiB a client",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "write_p50_ms": "of which the write, p50 ms",
    "deliveries_per_s": "deliveries/s",
    "cpu_us": "server CPU, µs a delivery",
    "written_per_s": "events written/s",
    "per_s": "events/s of all clients",
    "grown_mib": "growth of the server's memory, MiB",
    "log_event_us": "log_event, µs",
    "insert_us": "the bare INSERT, µs",
    "log_event_ratio": "log_event ÷ INSERT",
    "inserted_per_s": "INSERTs in commits of 100: events/s",
    "posted_ratio": "POST of 100 events, 4 producers ÷ these INSERTs",
    "posted_per_s": "POST of 100 events, 4 producers: events/s",
    "one_per_s": "POST of 100 events, 1 producer: events/s",
    "hundred_per_s": "POST of 100 events, 100 producers: events/s",
    "singles_per_s": "POST of one event, 100 producers: events/s",
    "topic_ratio": "text to /in/TOPIC ÷ POST of one event",
    "address_ratio": "text to a write-only address ÷ POST of one event",
    "mcp_ratio": "MCP's log_event ÷ POST of one event",
    "insert_ratio": "watched INSERT in bulk ÷ logged by hand",
    "update_ratio": "watched UPDATE of all rows ÷ logged by hand",
    "replace_ratio": "watched REPLACE in bulk ÷ logged by hand",
    "upsert_ratio": "watched UPSERT in bulk ÷ logged by hand",
    "delete_ratio": "watched DELETE of all rows ÷ logged by hand",
    "noop_ratio": "watched UPDATE that changes nothing ÷ unwatched",
    "unmatched_ratio": "watched UPDATE without a matching rule ÷ unwatched",
    "full_ratio": "watched commit of one row ÷ unwatched, FULL",
    "normal_ratio": "watched commit of one row ÷ unwatched, NORMAL",
    "snapshot_ratio": "rows/s of a snapshot ÷ INSERT … SELECT into the log",
    "trigger_kb": "triggers of a table of five columns, KB",
}
CASES = {
    case.name: case
    for case in (
        Case("idle", (1000,), (500,), measure_idle),
        Case("latency", (1, 100, 500, 1000), (1, 500), measure_latency),
        Case("burst", (500,), (500,), measure_burst),
        Case("commits", (500,), (500,), partial(measure_burst, commit_size=100)),
        Case("paced", (1000,), (500,), measure_paced),
        Case("resume", (1, 20), (1, 20), measure_resume),
        Case("write", (0,), (0,), measure_write),
        Case("incoming", (0,), (0,), measure_incoming),
        Case("watch", (0,), (0,), measure_watch),
    )
}
