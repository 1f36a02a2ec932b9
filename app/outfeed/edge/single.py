"""A thread that runs in one worker of a host.

The others wait until that one has ended.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from outfeed.errors import DatabaseError, SourceError
from outfeed.log_message import LogMessage
from outfeed.metrics import Metrics
from outfeed.store import lease
from outfeed.store.database import Database

WAIT_SECS = 1.0
RETRY_SECS = 0.2
log = logging.getLogger(__name__)


class SingleThread(ABC):
    """Calls `step` repeatedly in the worker that holds the lease *name*.

    It never ends by itself. A failure is logged, the same reason once, and tried again RETRY_SECS later.
    """

    def __init__(self, name: str, database: Database, metrics: Metrics) -> None:
        self._name = name
        self._database = database
        self._metrics = metrics
        self._reported: str | None = None
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"outfeed-{name}", daemon=True)

    @abstractmethod
    def step(self) -> None:
        """Do what is due, and wait for more. Raises SourceError, OSError."""

    @abstractmethod
    def restart(self) -> None:
        """Forget what was known of the engine.

        The last step failed, or this worker is new.
        """

    def finish(self) -> None:  # noqa: B027 - most have nothing to give up
        """Give up what is held, at the end of the thread. Raises SourceError."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self.stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                with lease.hold(lease.lock_file(self._database.path, self._name), wait=False) as is_held:
                    if is_held:
                        self._serve()
            except DatabaseError as error:
                log.warning(LogMessage(f"{self._name} can't run, trying again", error=error))
            self.stopping.wait(WAIT_SECS)

    def _serve(self) -> None:
        self.restart()
        while not self.stopping.is_set():
            self._guard(self.step)
        self._guard(self.finish)

    def _guard(self, do: Callable[[], None]) -> None:
        try:
            do()
            self._report(None)
        except (SourceError, OSError) as error:
            self._report(str(error))
            self.restart()
            self.stopping.wait(RETRY_SECS)
        except Exception as error:
            # The edge of the loop: no error may end the thread, because viewers at edges wait for its next step.
            self._metrics.note_error(self._name, error)
            log.exception(LogMessage(f"{self._name} failed, trying again"))
            self.restart()
            self.stopping.wait(WAIT_SECS)

    def _report(self, failure: str | None) -> None:
        if failure is not None and failure != self._reported:
            log.warning(LogMessage(f"{self._name} waits, trying again", error=failure))
        elif failure is None and self._reported is not None:
            log.warning(LogMessage(f"{self._name} works again"))
        self._reported = failure
