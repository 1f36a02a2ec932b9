"""The benchmark's own processes: the load and the writer."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from scripts.benchmarks import errors, process
from scripts.benchmarks.client import Target
from scripts.benchmarks.load import Outcome, Phase
from scripts.benchmarks.servers import ROOT

CONNECT_TIMEOUT_SECS = 90.0
GRACE_SECS = 10.0


class Measured(Protocol):
    """A running server: its session, and its database if it has one."""

    database: Path

    @property
    def session(self) -> int:
        """Return the session id that the server's processes share."""


@dataclass(frozen=True, slots=True)
class Written:
    """The writer's durations: of the whole, and of one event (the median)."""

    seconds: float
    one_p50_ms: float


class LoadSession:
    """A load process with clients connected to *server* by *target*.

    Its writer writes to the server's database, or to the *sink* of a peer. Use it in a `with`.
    """

    def __init__(self, server: Measured, clients: int, target: Target, sink: dict[str, Any] | None = None) -> None:
        self.server = server
        self.clients = clients
        self.sink = sink
        self._process = _spawn("load", {"clients": clients, "target": asdict(target)})

    def __enter__(self) -> LoadSession:
        with ExitStack() as undo:
            undo.callback(process.end, self._process)
            _read_line(self._process, CONNECT_TIMEOUT_SECS)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        process.end(self._process)

    def run(self, phase: Phase, per_second: float, commit_size: int = 1) -> tuple[Outcome, Written]:
        """Have *phase* written and read. Return the results of clients and writer.

        Raises SequenceError or LoadError in place of a wrong figure.
        """
        [outcome], written = run_together([self], phase, per_second, commit_size)
        return outcome, written

    def arm(self, phase: Phase) -> None:
        """Have the clients await *phase*."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(phase)) + "\n")
        self._process.stdin.flush()
        _read_line(self._process, GRACE_SECS)

    def outcome(self, phase: Phase) -> Outcome:
        """Return the results once the clients have read *phase*."""
        return Outcome(**_read_line(self._process, phase.timeout_secs + GRACE_SECS))


def run_together(
    sessions: Sequence[LoadSession], phase: Phase, per_second: float, commit_size: int = 1
) -> tuple[list[Outcome], Written]:
    """Have *phase* written once and read by the clients of all *sessions*.

    Raises SequenceError or LoadError in place of a wrong figure.
    """
    for each in sessions:
        each.arm(phase)
    sink = sessions[0].sink or {"path": str(sessions[0].server.database)}
    order = {**sink, "commit_size": commit_size, "per_second": per_second, "first": 1, "events": phase.events}
    writer = _spawn("writer", order)
    try:
        return [each.outcome(phase) for each in sessions], Written(**_read_line(writer, GRACE_SECS))
    finally:
        process.end(writer)


def catch_up(clients: int, target: Target, initial_phase: Phase) -> Outcome:
    """Connect *clients* by *target* and have them read *initial_phase*.

    Returns their results.
    """
    load = _spawn("load", {"clients": clients, "target": asdict(target), "initial_phase": asdict(initial_phase)})
    try:
        return Outcome(**_read_line(load, initial_phase.timeout_secs + CONNECT_TIMEOUT_SECS))
    finally:
        process.end(load)


def _spawn(module: str, order: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"scripts.benchmarks.{module}", json.dumps(order)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _read_line(running: subprocess.Popen[str], timeout_secs: float) -> dict[str, Any]:
    """Return the next answer, a line of JSON. Raises the error that it names."""
    assert running.stdout is not None
    if not select.select([running.stdout], [], [], timeout_secs)[0]:
        raise errors.LoadError(f"no answer in {timeout_secs:.0f} s")
    line = running.stdout.readline()
    if not line:
        raise errors.LoadError("a process of the benchmark ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise getattr(errors, answer["error"], errors.LoadError)(answer["message"])
    return answer
