"""Viewers spread over several servers.

Each follows over any failure, and keeps what it was told.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.database_file import head_of
from tests.server import Server
from tests.waits import PATIENCE_SECS, wait_until


class Viewer(threading.Thread):
    """Follows the feed on the first of *servers* that serves it.

    The client checks order and `prev` of every event.

    *closes* has the code of each connection that a server ended, *refusals* the status of each that it refused.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        super().__init__(name="viewer", daemon=True)
        self._servers = list(servers)
        self._stopping = threading.Event()
        self.start_at: int | None = None
        self.cursor = 0
        self.epoch = ""
        self.events: list[tuple[int, str]] = []
        self.verdicts: list[str] = []
        self.closes: list[int] = []
        self.refusals: list[int] = []
        self.ages: list[float] = []
        self.stale: list[str | None] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._connect()
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self.failure = error

    def _connect(self) -> None:
        try:
            self._follow(self._servers[0])
        except ConnectionClosed as closed:
            self.closes.append(closed.rcvd.code if closed.rcvd else 1006)
        except InvalidHandshake as refused:
            self.refusals.append(getattr(getattr(refused, "response", None), "status_code", 0))
        except OSError:
            self.refusals.append(0)
        if not self._stopping.is_set():
            self._servers.append(self._servers.pop(0))
            self._stopping.wait(0.05)

    def _follow(self, server: Server) -> None:
        with server.connect(open_timeout=5) as client:
            place = {} if self.start_at is None else {"after": self.cursor, "epoch": self.epoch}
            verdict = client.subscribe(**place)
            self.verdicts.append(verdict["verdict"])
            self.cursor, self.epoch = client.cursor, client.epoch
            if self.start_at is None or verdict["verdict"] == "reset":
                self.start_at, self.events = client.cursor, []
            while not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    self._take(client.receive(0.1), client)

    def _take(self, frame: dict, client) -> None:  # type: ignore[no-untyped-def,type-arg]
        if client.note(frame):
            self.events.append((frame["seq"], frame["payload"]["id"]))
        if frame["type"] == "heartbeat" and frame["payload"].get("origin_age") is not None:
            self.ages.append(frame["payload"]["origin_age"])
        if frame["type"] == "stale":
            self.stale.append(frame["payload"]["reason"])
        self.cursor = client.cursor

    def end(self) -> None:
        self._stopping.set()
        self.join(PATIENCE_SECS)


class Audience:
    """Viewers, the odd ones on the second server first.

    As a context manager they follow, and have ended at the end.
    """

    def __init__(self, servers: Sequence[Server], count: int = 4) -> None:
        turned = [*servers[1:], *servers[:1]]
        self.viewers = [Viewer(turned if number % 2 else servers) for number in range(count)]

    def __enter__(self) -> Audience:
        for viewer in self.viewers:
            viewer.start()
        wait_until(lambda: all(viewer.start_at is not None for viewer in self.viewers), "all follow", timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for viewer in self.viewers:
            viewer.end()
        failures = [viewer.failure for viewer in self.viewers if viewer.failure is not None]
        if failures:
            raise failures[0] from error

    def __iter__(self) -> Iterator[Viewer]:
        return iter(self.viewers)

    def have(self, count: int) -> None:
        """Wait until each has got *count* more events."""
        goals = [(viewer, len(viewer.events) + count) for viewer in self.viewers]
        wait_until(
            lambda: all(len(viewer.events) >= goal or viewer.failure for viewer, goal in goals), f"{count} more events",
            timeout=30,
        )  # fmt: skip

    def complete(self, database: Path) -> None:
        """Wait until all are at the outbox's head, and compare with what it holds.

        None missing, none twice.
        """
        head = head_of(database)
        wait_until(
            lambda: all(viewer.cursor >= head or viewer.failure for viewer in self.viewers), f"all at {head}",
            timeout=30,
        )  # fmt: skip
        with contextlib.closing(sqlite3.connect(database)) as raw:
            rows = raw.execute(
                "SELECT seq, event_id FROM outbox WHERE json_extract(payload, '$.event_type') NOT LIKE 'access.%'"
                " AND json_extract(payload, '$.event_type') NOT IN ('system.pruned', 'system.restored',"
                " 'system.backed_up') ORDER BY seq"
            ).fetchall()
        for viewer in self.viewers:
            assert viewer.start_at is not None
            assert viewer.events == [row for row in rows if row[0] > viewer.start_at]

    @property
    def closes(self) -> list[int]:
        return [code for viewer in self.viewers for code in viewer.closes]

    @property
    def verdicts(self) -> set[str]:
        """Every verdict but the first of each."""
        return {kind for viewer in self.viewers for kind in viewer.verdicts[1:]}
