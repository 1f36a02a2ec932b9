"""The bench's own processes, seen from the bench: the load with its clients, the writer, and what else it runs."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import IO, Any

from scripts.benchmarks import errors, process
from scripts.benchmarks.client import Target
from scripts.benchmarks.load import Outcome, Phase
from scripts.benchmarks.servers import ROOT, Server

CONNECT_TIMEOUT_SECS = 90.0
GRACE_SECS = 10.0


@dataclass(frozen=True, slots=True)
class Written:
    """What the writer took: in all, and for one event (the median, the longest)."""

    seconds: float
    one_p50_ms: float
    one_max_ms: float


class LoadSession:
    """A load client that is connected to *server*, by *target* or by the server's own. Use it in a `with`."""

    def __init__(self, server: Server, clients: int, target: Target | None = None) -> None:
        self.server = server
        self.clients = clients
        self.connect_seconds = 0.0
        self.memory_before_mib = process.memory_mib(server.session)
        order = {"clients": clients, "target": asdict(target or server.target())}
        self._process = _spawn("load", order, stdin=subprocess.PIPE)

    def __enter__(self) -> LoadSession:
        with ExitStack() as undo:
            undo.callback(process.end, self._process)
            self.connect_seconds = self._answer(CONNECT_TIMEOUT_SECS)["connect_seconds"]
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        process.end(self._process)

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that the clients and their server have used."""
        return process.cpu_seconds(self._process.pid) + process.cpu_seconds(self.server.session)

    def run(self, phase: Phase, per_second: float, commit_size: int = 1) -> tuple[Outcome, Written]:
        """Have *phase* written and read; return what the clients saw, and what the writer says.

        Raises SequenceError or LoadError instead of giving a figure that is not true.
        """
        self._say(asdict(phase))
        self._answer(GRACE_SECS)
        order = self.server.sink(commit_size) | {"first": 1, "events": phase.events, "per_second": per_second}
        writer = _spawn("writer", order)
        try:
            outcome = Outcome(**self._answer(phase.timeout_secs + GRACE_SECS))
            return outcome, Written(**_read_line(_stdout(writer), GRACE_SECS))
        finally:
            process.end(writer)

    def _say(self, command: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()

    def _answer(self, timeout_secs: float) -> dict[str, Any]:
        return _checked(_read_line(_stdout(self._process), timeout_secs), self.server.name)


def catch_up(clients: int, target: Target, owed: Phase) -> Outcome:
    """Have *clients* connect by *target* and read what they are *owed*; return what they saw."""
    order = {"clients": clients, "target": asdict(target), "owed": asdict(owed)}
    return Outcome(**run("load", order, owed.timeout_secs + CONNECT_TIMEOUT_SECS))


def run(module: str, order: dict[str, Any], timeout_secs: float) -> dict[str, Any]:
    """Run one of the bench's modules in a process of its own and return its answer."""
    running = _spawn(module, order, stdin=subprocess.PIPE)
    try:
        return _checked(_read_line(_stdout(running), timeout_secs), module)
    finally:
        process.end(running)


def _spawn(module: str, order: dict[str, Any], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"scripts.benchmarks.{module}", json.dumps(order)],
        cwd=ROOT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _checked(answer: dict[str, Any], name: str) -> dict[str, Any]:
    if "error" in answer:
        raise getattr(errors, answer["error"], errors.LoadError)(f"{name}: {answer['message']}")
    return answer


def _stdout(running: subprocess.Popen[str]) -> IO[str]:
    assert running.stdout is not None
    return running.stdout


def _read_line(stream: IO[str], timeout_secs: float) -> dict[str, Any]:
    """Return one line of JSON; the bench's processes write a line at a time, and whole."""
    deadline = time.monotonic() + timeout_secs
    if not select.select([stream], [], [], max(0, deadline - time.monotonic()))[0]:
        raise errors.LoadError(f"no answer in {timeout_secs:.0f} s")
    line = stream.readline()
    if not line:
        raise errors.LoadError("a process of the bench ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer
