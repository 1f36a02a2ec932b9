"""A peer's server: a program of the virtual environment in a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from scripts.benchmarks import process
from scripts.benchmarks.client import Target
from scripts.benchmarks.errors import ServerError
from scripts.benchmarks.servers import START_TIMEOUT_SECS, free_port

BIN = Path(sys.executable).parent


class Peer(ABC):
    """A server that is measured beside Outfeed.

    Use it in a `with`, which starts and ends it. *stored* says what a written event has survived when its writer
    continues.
    """

    name = ""
    stored = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with open(self.folder / "server.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        try:
            self._await_ready()
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            process.end(self._process)

    @property
    def session(self) -> int:
        """Return the session id that the server's processes share."""
        assert self._process, "the server is started"
        return self._process.pid

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether the server answers."""

    def prepare(self) -> None:  # noqa: B027 - most peers need nothing
        """Make what events are written to."""

    @abstractmethod
    def target(self) -> Target:
        """Return a subscription to all new events."""

    @abstractmethod
    def sink(self) -> dict[str, Any]:
        """Return the writer's order."""

    def _await_ready(self) -> None:
        assert self._process
        deadline = time.monotonic() + START_TIMEOUT_SECS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = (self.folder / "server.log").read_text("utf-8", "replace")
                raise ServerError(f"{self.name} did not start: {output[-2000:]}")
            time.sleep(0.02)
