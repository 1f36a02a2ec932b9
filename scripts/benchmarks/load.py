"""The load client: one epoll for any number of WebSocket clients.

It reads a target and a number of clients as JSON, connects them and reports that. Then each line on its standard input
is a phase: it answers "armed", reads until every client has every event, and answers with its measurements. It answers
pings between the phases, and ends with its input. If the order has an *initial_phase* phase, it connects, reads that
phase and ends.
"""

from __future__ import annotations

import gc
import json
import select
import sys
import time
from array import array
from dataclasses import asdict, dataclass
from typing import Any

from scripts.benchmarks.client import Client, Target, connect_all
from scripts.benchmarks.errors import BenchError, LoadError
from scripts.benchmarks.process import raise_descriptor_limit
from scripts.benchmarks.readers import Reader

MAX_READY = 1024
_STDIN = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase: *events* for each client, within *timeout_secs*.

    The first *careful* clients read frame by frame.
    """

    events: int
    careful: int
    timeout_secs: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one phase.

    Latency is the time from an event's creation to its reading by the careful clients.
    """

    deliveries: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float


class Load:
    """The connected clients."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = {client.sock.fileno(): client for client in clients}
        self._epoll = select.epoll()
        for descriptor in (_STDIN, *self._clients):
            self._epoll.register(descriptor, select.EPOLLIN)

    def await_phase(self) -> Phase | None:
        """Return the next phase from standard input, None at its end.

        Answers pings while it waits.
        """
        idle = Reader(0)
        while True:
            for descriptor, _ in self._epoll.poll(maxevents=MAX_READY):
                if descriptor == _STDIN:
                    line = sys.stdin.readline()
                    return Phase(**json.loads(line)) if line else None
                idle.read(self._clients[descriptor])
            idle.parse()

    def measure(self, phase: Phase, reader: Reader, since_ns: int = 0) -> Outcome:
        """Read until every client has every event of *phase*.

        The seconds count from *since_ns*, or from the creation of the first event. Raises LoadError after the timeout.
        """
        for place, client in enumerate(self._clients.values()):
            client.is_careful, client.seen = place < phase.careful, 0
        cpu = time.process_time()
        self._read_all(reader, time.monotonic() + phase.timeout_secs)
        seconds = (time.time_ns() - (since_ns or reader.first_ns)) / 1e9
        deliveries = phase.events * len(self._clients)
        return Outcome(deliveries, seconds, *percentiles_ms(reader.latencies_ns), time.process_time() - cpu)

    def _read_all(self, reader: Reader, deadline: float) -> None:
        count = len(self._clients)
        while reader.finished < count:
            ready = self._epoll.poll(0 if reader.unparsed else 0.5, MAX_READY)
            if time.monotonic() > deadline:
                raise LoadError(f"{count - reader.finished} of {count} clients did not receive all events in time")
            for descriptor, _ in ready:
                if descriptor == _STDIN:
                    raise LoadError("the benchmark has ended")
                reader.read(self._clients[descriptor])
            if not ready:
                reader.parse()


def percentiles_ms(latencies_ns: array[int]) -> tuple[float, float]:
    """Return p50 and p99 in ms; zeros if no client read carefully."""
    ordered = sorted(latencies_ns) or [0]
    last = len(ordered) - 1
    return ordered[last // 2] / 1e6, ordered[round(last * 0.99)] / 1e6


def report(answer: dict[str, Any]) -> None:
    """Write one answer, a line of JSON."""
    print(json.dumps(answer), flush=True)


def serve(order: dict[str, Any]) -> None:
    """Connect, then run the phases from standard input, or the order's phase."""
    clients, target = order["clients"], Target(**order["target"])
    gc.disable()
    if "initial_phase" in order:
        initial_phase, began_ns = Phase(**order["initial_phase"]), time.time_ns()
        load = Load(connect_all(clients, target, is_answered=False))
        report(asdict(load.measure(initial_phase, Reader(initial_phase.events), began_ns)))
        return
    load = Load(connect_all(clients, target))
    report({"connected": clients})
    gc.freeze()
    while phase := load.await_phase():
        reader = Reader(phase.events)
        report({"armed": True})
        report(asdict(load.measure(phase, reader)))


if __name__ == "__main__":
    raise_descriptor_limit()
    try:
        serve(json.loads(sys.argv[1]))
    except (BenchError, OSError) as error:
        report({"error": type(error).__name__, "message": str(error)})
        sys.exit(1)
