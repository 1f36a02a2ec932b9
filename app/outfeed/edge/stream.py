"""The engine's copy of the outbox, as the source of an edge.

The stream waker is the thread that notices new entries.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from outfeed import clock
from outfeed.edge import scripts
from outfeed.edge.engine import EVENTS, HEAD, Engine
from outfeed.errors import EngineDown
from outfeed.feed.hub import Hub
from outfeed.feed.subscription import Filter
from outfeed.history import Item, Page, Window, read_item
from outfeed.log_message import LogMessage
from outfeed.metrics import Metrics
from outfeed.principal import Wanted

MAX_PAGE_BYTES = 2**20
SEARCH_EVENTS = 5000
# Above the maximum of the setting, because the origin has applied its own limit.
MAX_EVENT_BYTES = 16 * 2**20
# The waker waits this long after an error, and after a poll that did not reach an entry of the stream.
RETRY_SECS = 0.5
log = logging.getLogger(__name__)


class Head(NamedTuple):
    """The state of the engine's copy.

    *rights* moves when a permission may have been revoked. *types* is the number of changes of displays, or None.
    """

    epoch: str
    target: int
    rules: str
    erasures: int
    rights: str
    types: int | None
    first_seq: int
    position: int
    age_ms: int


class Reply(NamedTuple):
    """One read of the engine.

    *raws* is the joined JSON of the events, and *sizes* has their lengths.
    """

    head: Head
    has_more: bool
    written_at: str | None
    seqs: list[int]
    sizes: list[int]
    raws: bytes


def read(engine: Engine, direction: str, seq: int, limit: int, max_bytes: int = MAX_PAGE_BYTES) -> Reply | None:
    """Return up to *limit* events `after` or `before` *seq*.

    The result is None if the engine holds no copy. Raises EngineDown.
    """
    found: list[Any] = engine.run(scripts.READ, [HEAD, EVENTS], [direction, seq, limit, max_bytes])
    if not found:
        return None
    epoch, target, rules, erasures, rights, types, first, position, age_ms, has_more, written, seqs, sizes, raws = found
    if not erasures:
        return None
    head = Head(
        epoch.decode(), int(target), rules.decode(), int(erasures), rights.decode(), int(types) if types else None,
        first, position, age_ms,
    )  # fmt: skip
    numbers = [int(each) for each in seqs.split(b",")] if seqs else []
    lengths = [int(each) for each in sizes.split(b",")] if sizes else []
    return Reply(head, bool(has_more), written.decode() or None, numbers, lengths, raws)


class EngineStream:
    """Reads the engine's copy.

    Any thread may call any method. Each raises EngineDown if the copy can't be read now.

    *on_head* is called with the head of each read, before any event of that read is returned. *rules* is the
    fingerprint of this process. If the origin has the same one, its events are not redacted and cut a second time.
    """

    def __init__(self, engine: Engine, origin: str, rules: str, on_head: Callable[[Head], None]) -> None:
        self._engine = engine
        self._origin = origin
        self._rules = rules
        self._on_head = on_head
        self._confirmed_at = -math.inf  # on the monotonic clock

    @property
    def origin_age(self) -> float:
        """Seconds since the origin last wrote to the engine.

        The age is infinite before the first read.
        """
        return clock.monotonic() - self._confirmed_at

    def window(self) -> Window:
        """Return the epoch and the first and last seq of the copy, fresh."""
        return self._window(self._read("after", 0, 0).head)

    def read_after(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items above *seq*, oldest first.

        The window belongs to the same read as the items.
        """
        reply = self._read("after", seq, limit)
        window = self._window(reply.head)
        through = reply.seqs[-1] if reply.has_more else max(window.last_seq, seq)
        return Page(window, self._items(reply), through, reply.written_at)

    def read_before(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items below *seq*, newest first."""
        reply = self._read("before", seq, limit)
        return Page(self._window(reply.head), self._items(reply), reply.seqs[-1] if reply.has_more else 0)

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        """Return the seqs of the newest *limit* events that match.

        They lie above *after*, up to *up_to*, and are returned newest first.
        """
        filter_ = Filter(wanted.visible, wanted.types, wanted.source, wanted.task_id, wanted.agent_id)
        found: list[int] = []
        end = up_to + 1
        while end > after + 1 and len(found) < limit:
            page = self.read_before(end, SEARCH_EVENTS)
            found += [item.seq for item in filter_.matching(page.items) if item.seq > after]
            end = page.through
        return found[:limit]

    def renew_epoch(self, epoch: str) -> None:
        """Do nothing, because only the origin renews the epoch."""

    def _read(self, direction: str, seq: int, limit: int) -> Reply:
        reply = read(self._engine, direction, seq, limit)
        if reply is None:
            raise EngineDown("the engine holds no events yet; the origin fills it")
        head = reply.head
        if head.position < head.target:
            raise EngineDown(f"the engine is being filled: {head.position:,} of {head.target:,}")
        if head.age_ms >= 0:
            self._confirmed_at = clock.monotonic() - head.age_ms / 1000
        self._on_head(head)
        return reply

    def _window(self, head: Head) -> Window:
        return Window(head.epoch, head.first_seq, head.position, self._origin)

    def _items(self, reply: Reply) -> list[Item]:
        make = _known_item if reply.head.rules == self._rules else _item
        items, start = [], 0
        for seq, size in zip(reply.seqs, reply.sizes, strict=True):
            items.append(make(seq, reply.raws[start : start + size]))
            start += size
        return items


def _item(seq: int, raw: bytes) -> Item:
    return read_item(seq, raw, 0, MAX_EVENT_BYTES)


def _known_item(seq: int, raw: bytes) -> Item:
    """Return the event as the origin wrote it, under the same rules."""
    try:
        get = orjson.loads(raw).get
    except (orjson.JSONDecodeError, AttributeError):  # such as an integer that only `json` reads
        return _item(seq, raw)
    return Item(
        seq, raw, get("id"), str(get("event_type")), get("source"), get("task_id"), get("agent_id"), get("timestamp")
    )


class StreamWaker:
    """Calls *poll* when the stream has a new entry, on its own thread.

    It reduces latency only, because the scheduler polls every second. *poll* returns the seconds until the next useful
    call. An event *woken* that is set ends this wait.
    """

    def __init__(
        self, engine: Engine, hub: Hub, poll: Callable[[], float], woken: threading.Event, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._poll = poll
        self._woken = woken
        self._metrics = metrics
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outfeed-waker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Returns when it has ended."""
        self._stopping.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except EngineDown as error:
                log.debug(LogMessage("waker waits for the engine", error=error))
                self._stopping.wait(RETRY_SECS)
            except Exception as error:
                # No error may end the thread.
                log.exception("stream waker failed, trying again")
                self._metrics.note_error("stream waker", error)
                self._stopping.wait(RETRY_SECS)

    def _step(self) -> None:
        position, epoch = self._hub.position, self._hub.epoch
        if not self._engine.wait_for_entry(position):
            return
        self._woken.clear()
        rest = self._poll()
        if rest > 0:
            self._woken.wait(min(rest, 1.0))
        else:
            # Another thread may be polling, or the engine may have failed. Without this wait, the wait for the
            # entry would return at once, again and again.
            self._hub.wait_for(position + 1, epoch, RETRY_SECS)
