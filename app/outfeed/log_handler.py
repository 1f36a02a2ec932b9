"""A program's warnings and errors as events: a `logging.Handler` that never blocks or fails the program.

logging.getLogger().addHandler(FeedHandler("billing"))                         # into the local database
logging.getLogger().addHandler(FeedHandler("billing", Client(url, token)))     # to a server
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outfeed import clock
from outfeed.config import settings
from outfeed.errors import DatabaseBusy, InvalidEvent, OutfeedError, Unreachable
from outfeed.events import MAX_NAME_CHARS, EventType, make_event, new_id
from outfeed.log_message import LogMessage
from outfeed.process import renew_in_children
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
# What writing an event may itself log.
OWN_LOGGERS = {"outfeed", "sqlite3", "websockets", "httpx", "httpcore"}

_Fields = dict[str, Any]
log = logging.getLogger(__name__)


class FeedHandler(logging.Handler):
    """Turns records from WARNING on into `system.warning` and `system.error` events of *source*.

    `emit` only formats and queues; a daemon thread writes, to *client*'s server or to the database that
    OUTFEED_DATABASE names. While MAX_WAITING wait, or where nothing can be written, records are dropped: `dropped`
    counts them, and one event says so when writing works again. `extra={"task_id": …, "agent_id": …}` is kept. At exit
    it waits for what is queued, 2 * FLUSH_SECS at most. Raises InvalidEvent for a *source* that is none.
    """

    def __init__(self, source: str, client: Client | None = None, level: int = logging.WARNING) -> None:
        super().__init__(level)
        make_event(EventType.SYSTEM_INFO, source, max_event_bytes=0)
        self.source = source
        self.dropped = 0
        self._write = _write_locally if client is None else _writer_to(client)
        self._has_complained = False
        self.start_anew()
        renew_in_children(self)

    def start_anew(self) -> None:
        """Begin with an empty queue and no thread: also in a forked child, whose parent keeps what waited."""
        self._changed = threading.Condition()  # guards all below
        self._waiting: deque[_Fields] = deque()
        self._being_written = 0
        self._untold = 0
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, or drop it. Returns at once."""
        if record.name.partition(".")[0] in OWN_LOGGERS or threading.current_thread() is self._thread:
            return
        try:
            self._put(self._fields(record))
        except Exception:  # noqa: BLE001 - the edge to a program that must not fail for its log; it says so on stderr
            self.handleError(record)

    def flush(self) -> None:
        """Wait until what is queued is written, FLUSH_SECS at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._being_written, FLUSH_SECS)

    def close(self) -> None:
        """Flush, and end the thread."""
        self.flush()
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(FLUSH_SECS / 10)
        super().close()

    # --- in the program's threads ---

    def _put(self, fields: _Fields) -> None:
        with self._changed:
            if len(self._waiting) >= MAX_WAITING or self._is_closing:
                self._count_dropped(1)
                return
            self._waiting.append(fields)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="outfeed-log", daemon=True)
                self._thread.start()

    def _fields(self, record: logging.LogRecord) -> _Fields:
        data = {
            "message": _text(record.getMessage(), MAX_MESSAGE_CHARS),
            "level": record.levelname,
            "logger": record.name,
            "place": f"{record.module}.{record.funcName}:{record.lineno}",
            "process": record.process,
        }
        if record.exc_info and record.exc_info[0] is not None:
            # Its end says what went wrong.
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
        while (batch := self._take()) is not None:
            if self._deliver(batch):
                self._tell_dropped()
            with self._changed:
                self._being_written = 0
                self._changed.notify_all()

    def _take(self) -> list[_Fields] | None:
        """Return what waits, up to a batch; None where the handler is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if self._is_closing:
                self._count_dropped(len(self._waiting))
                return None
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            self._being_written = len(batch)
            return batch

    def _deliver(self, batch: list[_Fields]) -> bool:
        """Write the batch, in however many attempts; return whether anything was written."""
        while batch:
            try:
                self._write(batch)
                return True
            except (DatabaseBusy, Unreachable) as error:
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_closing, RETRY_SECS):
                        return self._lose(batch, error)
            except InvalidEvent as error:
                if error.index is None:
                    return self._lose(batch, error)
                self._cut(batch, error.index, error)
            except OutfeedError as error:
                return self._lose(batch, error)
            except Exception as error:  # noqa: BLE001 - the thread's edge: without it nothing would be written any more
                return self._lose(batch, error)
        return False

    def _cut(self, batch: list[_Fields], index: int, error: InvalidEvent) -> None:
        """Shorten the event that was refused; lose it when it was short."""
        message = batch[index]["data"]["message"]
        if set(batch[index]["data"]) == {"message"}:
            self._lose([batch.pop(index)], error)
        else:
            batch[index]["data"] = {"message": message[:MAX_CUT_CHARS]}

    def _lose(self, batch: list[_Fields], error: Exception) -> bool:
        with self._changed:
            self._count_dropped(len(batch))
        if not self._has_complained:
            self._has_complained = True
            log.warning(LogMessage("log records don't reach the feed; said once", error=error))
        return False

    def _count_dropped(self, count: int) -> None:
        self.dropped += count
        self._untold += count

    def _tell_dropped(self) -> None:
        """Say, as an event, how many were dropped since this was last said."""
        with self._changed:
            count, self._untold = self._untold, 0
        if count:
            data = {"message": f"{count:,} log records were dropped", "dropped": count}
            self._deliver(
                [{"event_type": EventType.SYSTEM_WARNING, "source": self.source, "data": data, "id": new_id()}]
            )


def _write_locally(events: list[_Fields]) -> None:
    event_log.record(db.default(), events, settings().max_event_bytes)


def _writer_to(client: Client) -> Callable[[list[_Fields]], None]:
    def write(events: list[_Fields]) -> None:
        client.publish(events, give_up_secs=TRY_SECS)

    return write


def _text(text: str, max_chars: int) -> str:
    """Return *text*, cut, as something that can be stored: without lone surrogates."""
    return text[:max_chars].encode("utf-8", "replace").decode()


def _name(value: object) -> str | None:
    """Return *value* as the id of a task or an agent, None where it is none."""
    return _text(str(value).replace("\0", ""), MAX_NAME_CHARS) or None if value is not None else None
