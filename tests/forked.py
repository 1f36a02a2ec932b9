"""`outfeed` in processes that are forked off one with all imports.

Imports take most of the time of a start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from outfeed.cli import main as outfeed

ROOT = Path(__file__).parents[1]
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.preloaded", "tests.forked"])


def run_outfeed(arguments: list[str]) -> None:
    outfeed(arguments, prog_name="outfeed")


class Forked:
    """A process in a session of its own, with the methods of a `Popen`.

    It appends its output to *output*, and its errors to *errors* if given. *command* gets the arguments.
    """

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
        command: Callable[[list[str]], None] = run_outfeed,
    ) -> None:
        become = (command, arguments, dict(environment), output, errors or output)
        self._process = context.Process(target=_become, args=become, daemon=True)
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


def run(
    arguments: list[str],
    environment: Mapping[str, str],
    timeout: float,
    command: Callable[[list[str]], None] = run_outfeed,
) -> subprocess.CompletedProcess[str]:
    """Run *command* until it ends; return its exit code and output."""
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = Forked(arguments, environment, output, errors, command)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())


def _become(
    command: Callable[[list[str]], None], arguments: list[str], environment: dict[str, str], output: Path, errors: Path
) -> None:
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((1, output), (2, errors)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    command(arguments)
