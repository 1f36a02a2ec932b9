"""The logging handler: warnings become events without affecting programs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outfeed import list_events, log_handler
from outfeed.client import Client
from outfeed.errors import DatabaseBusy, InvalidEvent
from outfeed.log_handler import FeedHandler
from outfeed.store.database import Database
from tests.server import Server
from tests.waits import PATIENCE_SECS, wait_until

ROOT = Path(__file__).parents[1]


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The program's own logger, without handlers of Outfeed.

    A flush may take as long as the tests' own waits.
    """
    monkeypatch.setattr(log_handler, "FLUSH_SECS", PATIENCE_SECS)
    logger = logging.getLogger("billing")
    yield logger
    logger.propagate = True
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def handler(logger: logging.Logger, database: Database) -> FeedHandler:
    handler = FeedHandler("billing")
    logger.addHandler(handler)
    return handler


class Writes:
    """Replaces the write of events.

    It notes the batches, and fails as requested.
    """

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.begun = 0
        self.errors: list[Exception] = []
        self.events: list[dict[str, Any]] = []

    def __call__(self, events: list[dict[str, Any]]) -> None:
        self.begun += 1
        assert self.is_open.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.events += events

    def messages(self) -> list[str]:
        return [event["data"]["message"] for event in self.events]


@pytest.fixture
def writes(handler: FeedHandler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writes]:
    monkeypatch.setattr(log_handler, "RETRY_SECS", 0.01)
    writes = Writes()
    handler.write = writes
    yield writes
    writes.is_open.set()


class TestRecords:
    def test_warnings_and_errors_become_events_and_other_records_do_not(
        self, logger: logging.Logger, handler: FeedHandler
    ) -> None:
        logger.setLevel(logging.DEBUG)
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, level)("disk %s is %d %% full", level, 91, extra={"task_id": "t-1", "agent_id": 7})
        handler.flush()

        events = list_events()[::-1]
        assert [str(event.event_type) for event in events] == ["system.warning", "system.error", "system.error"]
        first = events[0]
        assert (first.source, first.task_id, first.agent_id) == ("billing", "t-1", "7")
        assert first.data["message"] == "disk warning is 91 % full"
        assert (first.data["level"], first.data["logger"]) == ("WARNING", "billing")
        assert first.data["place"].startswith("test_log_handler.test_warnings_and_errors")

    def test_an_exception_keeps_the_end_of_its_traceback(self, logger: logging.Logger, handler: FeedHandler) -> None:
        try:
            raise LookupError("x" * 20_000 + " no such invoice")
        except LookupError:
            logger.exception("lost")
        handler.flush()

        (event,) = list_events()
        assert event.data["message"] == "lost"
        assert event.data["traceback"].endswith("no such invoice")
        assert len(event.data["traceback"]) <= log_handler.MAX_TRACEBACK_CHARS

    @pytest.mark.parametrize(
        "message",
        ["x" * 100_000, "half \ud800 a pair", "nul \0", "é" * 5000],
        ids=["long", "half a pair", "nul", "wide"],
    )
    def test_a_message_may_hold_anything(self, logger: logging.Logger, handler: FeedHandler, message: str) -> None:
        logger.propagate = False  # text that is not Unicode can't be sent to another process
        logger.error(message)
        handler.flush()
        (event,) = list_events()
        assert event.data["message"][:5] == message[:5].replace("\ud800", "?")

    def test_an_event_above_the_size_limit_is_cut(
        self, logger: logging.Logger, handler: FeedHandler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OUTFEED_MAX_EVENT_BYTES", "256")
        log_handler.settings.cache_clear()
        logger.error("long %s", "x" * 1000)
        logger.error("short")
        handler.flush()
        assert [len(event.data["message"]) for event in list_events()] == [5, log_handler.MAX_CUT_CHARS]

    def test_bad_arguments_raise_nothing(
        self, logger: logging.Logger, handler: FeedHandler, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logger.propagate = False  # pytest's own handler would raise
        logger.error("%d", "text")
        logger.error("next")
        handler.flush()
        assert [event.data["message"] for event in list_events()] == ["next"]
        assert "Logging error" in capsys.readouterr().err

    def test_an_invalid_source_is_refused_at_once(self) -> None:
        with pytest.raises(InvalidEvent, match="source"):
            FeedHandler("")


class TestProgramIsNotAffected:
    @pytest.mark.parametrize(
        "name", ["outfeed.store.database", "outfeed", "sqlite3", "websockets.client", "httpx", "httpcore.x"]
    )
    def test_records_of_the_write_itself_become_no_events(
        self, handler: FeedHandler, writes: Writes, name: str
    ) -> None:
        handler.handle(logging.LogRecord(name, logging.ERROR, "x.py", 1, "m", None, None))
        handler.handle(logging.LogRecord("application", logging.ERROR, "x.py", 1, "ours", None, None))
        writes.is_open.set()
        handler.flush()
        assert writes.messages() == ["ours"]

    def test_records_of_the_handlers_own_thread_become_no_events(
        self, logger: logging.Logger, handler: FeedHandler, writes: Writes
    ) -> None:
        handler.write = lambda events: (logger.error("again"), writes(events))
        writes.is_open.set()
        logger.error("once")
        handler.flush()
        assert writes.messages() == ["once"]

    def test_the_handler_does_not_wait_and_reports_dropped_records_once(
        self, logger: logging.Logger, handler: FeedHandler, writes: Writes
    ) -> None:
        for n in range(3000):
            logger.warning("record %d", n)
        assert writes.begun <= 1
        assert handler.dropped >= 3000 - log_handler.MAX_WAITING - log_handler.MAX_BATCH

        writes.is_open.set()
        wait_until(lambda: len(writes.events) + handler.dropped == 3001, "all written or counted, and told")
        told = [event["data"] for event in writes.events if "dropped" in event["data"]]
        assert [one["dropped"] for one in told] == [handler.dropped]
        logger.warning("later")
        handler.flush()
        assert writes.messages()[-1] == "later"

    def test_a_busy_database_is_retried_with_the_same_events(
        self, logger: logging.Logger, handler: FeedHandler, writes: Writes
    ) -> None:
        writes.errors = [DatabaseBusy("busy"), DatabaseBusy("busy")]
        logger.warning("patience")
        writes.is_open.set()
        handler.flush()
        assert (writes.messages(), handler.dropped) == (["patience"], 0)

    def test_dropped_records_are_counted_and_reported_later(
        self, logger: logging.Logger, handler: FeedHandler, writes: Writes, caplog: pytest.LogCaptureFixture
    ) -> None:
        writes.is_open.set()
        for error in (RuntimeError("broken"), RuntimeError("broken")):
            writes.errors = [error]
            logger.warning("lost")
            handler.flush()
        logger.warning("found")
        handler.flush()
        assert writes.messages() == ["found", "2 log records were dropped"]
        assert [one.message for one in caplog.records if one.name == "outfeed.log_handler"] == [
            "can't write log records to the feed; further failures are not logged error=broken"
        ]

    def test_the_end_of_the_program_does_not_wait_for_the_handlers_own_warning(
        self, handler: FeedHandler, writes: Writes
    ) -> None:
        writes.errors = [RuntimeError("broken")]
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            root.warning("lost")
            with handler.lock:  # as `logging.shutdown` does
                writes.is_open.set()
                handler.flush()
                assert (handler.dropped, handler.queue.unfinished_tasks) == (1, 0)
        finally:
            root.removeHandler(handler)

    def test_a_missing_database_raises_nothing(self, logger: logging.Logger) -> None:
        handler = FeedHandler("billing")
        logger.addHandler(handler)
        logger.error("no database here")
        handler.flush()
        assert handler.dropped == 1

    def test_closing_is_bounded(
        self, logger: logging.Logger, handler: FeedHandler, writes: Writes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_handler, "FLUSH_SECS", 0.2)
        logger.error("stuck")
        wait_until(lambda: writes.begun, "stuck")
        handler.close()
        assert handler.thread is not None
        assert handler.thread.is_alive()

    def test_a_forked_child_logs_by_itself(self, logger: logging.Logger, handler: FeedHandler, writes: Writes) -> None:
        logger.warning("parent")  # waits in the parent, whose thread is running
        child = os.fork()
        if child == 0:
            handler.write = log_handler.write_locally
            logger.warning("child")
            handler.flush()
            os._exit(0 if handler.dropped == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        writes.is_open.set()
        handler.flush()
        assert [event.data["message"] for event in list_events()] == ["child"]
        assert writes.messages() == ["parent"]


PROGRAM = """
import logging, sys
from outfeed.client import Client
from outfeed.log_handler import FeedHandler
logging.basicConfig()
logging.getLogger().addHandler(FeedHandler("batch-job", *([Client(*sys.argv[1:])] if sys.argv[1:] else [])))
for n in range(250):
    logging.warning("record %d", n)
raise SystemExit(3)
"""


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


class TestProgram:
    def test_records_from_just_before_the_end_arrive(self, database: Database) -> None:
        done = run_program()
        assert done.returncode == 3
        assert [event.data["message"] for event in list_events(limit=1000)[::-1]] == [f"record {n}" for n in range(250)]

    def test_records_can_be_sent_to_a_server(self, server: Server, logger: logging.Logger) -> None:
        with Client(server.url, server.token) as client, server.connect() as viewer:
            viewer.subscribe()
            handler = FeedHandler("billing", client)
            logger.addHandler(handler)
            logger.error("far away")
            payload = viewer.next_event()["payload"]
            handler.close()
        assert (payload["event_type"], payload["data"]["message"]) == ("system.error", "far away")

    def test_an_unreachable_server_delays_the_end_by_seconds_only(self) -> None:
        began = time.monotonic()
        done = run_program("http://127.0.0.1:1")
        assert done.returncode == 3
        assert time.monotonic() - began < 15
        assert "Traceback" not in done.stderr
