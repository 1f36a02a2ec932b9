"""`outfeed` in processes that are forked off one with all imports.

Imports take half of the time of a start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

from outfeed.cli import main as outfeed

ROOT = Path(__file__).parents[1]
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["outfeed.http.server.serve", "outfeed.http.server.command", "tests.forked"])


class Forked:
    """A process in a session of its own, with the methods of a `Popen`."""

    def __init__(self, arguments: list[str], environment: dict[str, str], output: Path) -> None:
        self._process = context.Process(target=_become, args=(arguments, environment, output), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("outfeed", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    outfeed(arguments, prog_name="outfeed")
