"""Log handler: a program's warnings and errors as events.

The handler never blocks the program and never makes it fail.

    logging.getLogger().addHandler(FeedHandler("billing"))                         # into the local database
    logging.getLogger().addHandler(FeedHandler("billing", Client(url, token)))     # to a server
"""

from __future__ import annotations

import functools
import logging
import threading
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

from outfeed import clock
from outfeed.config import settings
from outfeed.errors import DatabaseBusy, InvalidEvent, Unreachable
from outfeed.events import MAX_NAME_CHARS, EventType, make_event, new_id
from outfeed.log_message import LogMessage
from outfeed.process import reset_after_fork
from outfeed.store import database as db
from outfeed.store import event_log

if TYPE_CHECKING:
    from outfeed.client import Client

MAX_WAITING = 1000
MAX_BATCH = 100
MAX_MESSAGE_CHARS = 4000
MAX_TRACEBACK_CHARS = 12_000
MAX_CUT_CHARS = 40
FLUSH_SECS = 1.5
TRY_SECS = 5.0
RETRY_SECS = 1.0
# Loggers whose records an event's own write may cause.
OWN_LOGGERS = {"outfeed", "sqlite3", "websockets", "httpx", "httpcore"}

_Fields = dict[str, Any]
log = logging.getLogger(__name__)


class FeedHandler(QueueHandler):
    """Turns records from WARNING on into events of *source*.

    The types are `system.warning` and `system.error`. `emit` only formats and queues. A daemon thread writes to
    *client*'s server, or to the database that OUTFEED_DATABASE names. If MAX_WAITING records wait, or if events cannot
    be written, records are dropped: `dropped` counts them, and one event reports them when writing works again.
    `extra={"task_id": …, "agent_id": …}` is kept. At exit the handler waits for queued records, 2 * FLUSH_SECS at most.
    Raises InvalidEvent for an invalid *source*.
    """

    queue: Queue[_Fields | None]

    def __init__(self, source: str, client: Client | None = None, level: int = logging.WARNING) -> None:
        make_event(EventType.SYSTEM_INFO, source, max_event_bytes=0)
        super().__init__(Queue(MAX_WAITING))
        self.setLevel(level)
        # A filter runs without the handler's lock, which `logging.shutdown` holds while it waits for the thread.
        self.addFilter(self._is_of_program)
        self.source = source
        self.write = functools.partial(client.publish, give_up_secs=TRY_SECS) if client else write_locally
        self._rejected = 0  # changed under the handler's lock
        self._lost = self._reported = 0  # changed by the handler's own thread
        self._has_warned = False
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Reset to an empty queue and no thread.

        A forked child does so, because its parent writes the records that were queued.
        """
        self.queue = Queue(MAX_WAITING)
        self.thread: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def dropped(self) -> int:
        """Number of records that did not become events."""
        return self._rejected + self._lost

    def flush(self) -> None:
        """Wait until the queued records are written or dropped.

        The wait ends after FLUSH_SECS at most, and at once after `close`.
        """
        with self.queue.all_tasks_done:
            self.queue.all_tasks_done.wait_for(
                lambda: not self.queue.unfinished_tasks or self._closing.is_set(), FLUSH_SECS
            )

    def close(self) -> None:
        """Flush, and end the thread."""
        self.flush()
        self._closing.set()
        with suppress(Full):  # a full queue wakes the thread anyway
            self.queue.put_nowait(None)
        if self.thread is not None:
            self.thread.join(FLUSH_SECS / 10)
        super().close()

    # --- in the program's threads ---

    def _is_of_program(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] not in OWN_LOGGERS and threading.current_thread() is not self.thread

    def enqueue(self, record: Any) -> None:
        """Queue the event that `prepare` returned, or count it as dropped."""
        if self._closing.is_set() or self.queue.full():
            self._rejected += 1
            return
        self.queue.put_nowait(record)
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="outfeed-log", daemon=True)
            self.thread.start()

    def prepare(self, record: logging.LogRecord) -> _Fields:
        """Return the record as the fields of an event."""
        data = {
            "message": _text(record.getMessage(), MAX_MESSAGE_CHARS),
            "level": record.levelname,
            "logger": record.name,
            "place": f"{record.module}.{record.funcName}:{record.lineno}",
            "process": record.process,
        }
        if record.exc_info and record.exc_info[0] is not None:
            # The end of a traceback names the error.
            traceback = logging.Formatter().formatException(record.exc_info)[-MAX_TRACEBACK_CHARS:]
            data["traceback"] = _text(traceback, MAX_TRACEBACK_CHARS)
        return {
            "event_type": EventType.SYSTEM_ERROR if record.levelno >= logging.ERROR else EventType.SYSTEM_WARNING,
            "source": self.source,
            "task_id": _name(getattr(record, "task_id", None)),
            "agent_id": _name(getattr(record, "agent_id", None)),
            "data": data,
            "id": new_id(),
            "timestamp": clock.isoformat(datetime.fromtimestamp(record.created, UTC)),
        }

    # --- in the handler's own thread ---

    def _run(self) -> None:
        while batch := self._take():
            if self._deliver([fields for fields in batch if fields is not None]):
                self._report_dropped()
            for _ in batch:
                self.queue.task_done()

    def _take(self) -> list[_Fields | None]:
        """Wait for queued events; return up to MAX_BATCH.

        The list is empty once the handler is closed.
        """
        batch = [self.queue.get()]
        with suppress(Empty):
            while len(batch) < MAX_BATCH:
                batch.append(self.queue.get_nowait())
        if not self._closing.is_set():
            return batch
        self._lost += len(batch) - batch.count(None) + self.queue.qsize()
        return []

    def _deliver(self, batch: list[_Fields]) -> bool:
        """Write the batch, with retries; return whether anything was written."""
        while batch:
            try:
                self.write(batch)
                return True
            except (DatabaseBusy, Unreachable) as error:
                if self._closing.wait(RETRY_SECS):
                    return self._drop(batch, error)
            except InvalidEvent as error:
                if error.index is None:
                    return self._drop(batch, error)
                self._cut(batch, error.index, error)
            except Exception as error:  # noqa: BLE001 - the edge of the thread: if it ended, no more events would be written
                return self._drop(batch, error)
        return False

    def _cut(self, batch: list[_Fields], index: int, error: InvalidEvent) -> None:
        """Shorten the rejected event, or drop it if it was short already."""
        message = batch[index]["data"]["message"]
        if set(batch[index]["data"]) == {"message"}:
            self._drop([batch.pop(index)], error)
        else:
            batch[index]["data"] = {"message": message[:MAX_CUT_CHARS]}

    def _drop(self, batch: list[_Fields], error: Exception) -> bool:
        self._lost += len(batch)
        if not self._has_warned:
            self._has_warned = True
            log.warning(LogMessage("can't write log records to the feed; further failures are not logged", error=error))
        return False

    def _report_dropped(self) -> None:
        """Write an event with the number of newly dropped records."""
        dropped = self.dropped
        if count := dropped - self._reported:
            self._reported = dropped
            data = {"message": f"{count:,} log records were dropped", "dropped": count}
            fields = {"event_type": EventType.SYSTEM_WARNING, "source": self.source, "data": data, "id": new_id()}
            self._deliver([fields])


def write_locally(events: list[_Fields]) -> None:
    event_log.record(db.default(), events, settings().max_event_bytes)


def _text(text: str, max_chars: int) -> str:
    """Return *text*, cut, without lone surrogates, so that it can be stored."""
    return text[:max_chars].encode("utf-8", "replace").decode()


def _name(value: object) -> str | None:
    """Return *value* as the id of a task or an agent, or None."""
    return _text(str(value).replace("\0", ""), MAX_NAME_CHARS) or None if value is not None else None
