"""The load client: one process, one epoll, any number of WebSocket clients.

It takes a target and a number of clients as JSON, connects them and says so. Then each line on its standard input is a
phase: it answers "armed", reads until every client has every event, and answers with what it measured. It answers pings
between the phases, and ends with its input. If the order has a phase that the clients are *owed*, it connects, reads
that phase and ends.
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
    """*events* for each client, within *timeout_secs*; the first *careful* clients read frame by frame."""

    events: int
    careful: int
    timeout_secs: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one phase. Latency counts from an event's birth to its reading, by the careful clients."""

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
        """Return the next phase from standard input, None at its end; answers pings meanwhile."""
        idle = Reader(0)
        while True:
            for descriptor, _ in self._epoll.poll(maxevents=MAX_READY):
                if descriptor == _STDIN:
                    line = sys.stdin.readline()
                    return Phase(**json.loads(line)) if line else None
                idle.read(self._clients[descriptor])
            idle.parse()

    def measure(self, phase: Phase, reader: Reader, since_ns: int = 0) -> Outcome:
        """Read until every client has every event of *phase*. Raises LoadError when time runs out.

        The seconds count from *since_ns*, or from the birth of the first event.
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
    """Return p50 and p99 in milliseconds; zeros if no client read carefully."""
    ordered = sorted(latencies_ns) or [0]
    last = len(ordered) - 1
    return ordered[last // 2] / 1e6, ordered[round(last * 0.99)] / 1e6


def say(answer: dict[str, Any]) -> None:
    """Write one answer, a line of JSON."""
    print(json.dumps(answer), flush=True)


def serve(order: dict[str, Any]) -> None:
    """Connect, then run the phases from standard input, or the one in the order."""
    clients, target = order["clients"], Target(**order["target"])
    gc.disable()
    if "owed" in order:
        owed, began_ns = Phase(**order["owed"]), time.time_ns()
        load = Load(connect_all(clients, target, is_answered=False))
        say(asdict(load.measure(owed, Reader(owed.events), began_ns)))
        return
    load = Load(connect_all(clients, target))
    say({"connected": clients})
    gc.freeze()
    while phase := load.await_phase():
        reader = Reader(phase.events)
        say({"armed": True})
        say(asdict(load.measure(phase, reader)))


if __name__ == "__main__":
    raise_descriptor_limit()
    try:
        serve(json.loads(sys.argv[1]))
    except (BenchError, OSError) as error:
        say({"error": type(error).__name__, "message": str(error)})
        sys.exit(1)
