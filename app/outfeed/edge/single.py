"""A thread that runs in one worker of a host.

The other workers wait until that worker has ended.
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

    After a failure it tries again RETRY_SECS later. A reason that repeats is logged once.
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
        """Do the pending work, then wait for more.

        Raises SourceError, OSError.
        """

    @abstractmethod
    def restart(self) -> None:
        """Forget the state of the engine.

        It is called after a failed step, and when this worker begins.
        """

    def finish(self) -> None:  # noqa: B027 - optional
        """Release resources at the end of the thread. Raises SourceError."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Returns when it has ended."""
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
            # No error may end the thread, because viewers at edges wait for its next step.
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
