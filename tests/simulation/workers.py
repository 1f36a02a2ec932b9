"""Simulated processes: the core with all its threads, and its connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from outfeed.edge.stream import EngineStream, Head, StreamWaker
from outfeed.edge.uplink import Uplink
from outfeed.errors import ClientGone, ForbiddenConsumer, Overtaken, SourceError, Superseded, UnknownName
from outfeed.feed import dialogue, frames
from outfeed.feed.client import ClientState
from outfeed.feed.core import Core
from outfeed.feed.encoding import Encoding
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.sse import SSE
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import SubscribeRequest
from outfeed.verify.model import Breach
from tests.feed.fake_source import VIEWER
from tests.simulation.actors import Actors
from tests.simulation.engine import SimulatedEngine
from tests.simulation.sockets import Socket

HEARTBEAT_SECS = 15.0
POLL_SECS = 1.0
CLOSE_SECS = 1.0


class Worker:
    """One process.

    Its threads: the scheduler, the pacer, one for each connection, and the commit notifier and the uplink, or the waker
    of an edge. `forgotten` are the erased events that it has dropped from its memory, each with the number of the
    erasure and the time.
    """

    def __init__(
        self,
        actors: Actors,
        source: Any,
        make_core: Callable[[Any], Core],
        make_part: Callable[[Worker], Uplink | StreamWaker],
        is_copy: bool = False,
    ) -> None:
        self.actors = actors
        self.source = source
        self.core = make_core(source)
        self._part = make_part(self)
        self.is_copy = is_copy
        self.is_ready = False
        self.forgotten: dict[str, tuple[int, float]] = {}
        self.crash: BaseException | None = None
        self._is_noticed = False
        actors.start("start", self, self._start)

    def _start(self) -> None:
        """Do what a process does before its first request."""
        while not self._has_started():
            self.actors.sleep(POLL_SECS)
        self.core.relay.poll()
        self.core.pacer.start(self.core.relay.poll)
        self.actors.start("scheduler", self, self._schedule)
        if not self.is_copy:
            self.actors.start("notifier", self, self._watch_commits)
        self._part.start()
        self.is_ready = True

    def _has_started(self) -> bool:
        try:
            self.core.relay.start()
        except SourceError:
            return False
        return True

    def _schedule(self) -> None:
        while True:
            self.core.relay.poll()
            self.actors.sleep(POLL_SECS)

    def notice(self) -> None:
        """Have the commit notifier see a commit."""
        self._is_noticed = True

    def _watch_commits(self) -> None:
        """Do the work of the commit notifier."""
        wanted = self.core.wanted
        while True:
            self.actors.wait(lambda: self._is_noticed)
            self._is_noticed = False
            wanted.clear()
            rest = self.core.relay.poll_if_wanted()
            if rest > 0:
                wanted.wait(min(rest, POLL_SECS))
                self._is_noticed |= wanted.is_set()

    def forget(self, gone: dict[str, int], count: int) -> None:
        """Drop erased events from memory, as a job of the process does."""

        def run() -> None:
            self.core.forget(count)
            now = self.actors.now
            self.forgotten = {event_id: (number, now) for event_id, number in gone.items()} | {
                event_id: known for event_id, known in self.forgotten.items() if gone.get(event_id) == known[0]
            }

        self.actors.start("forget", self, run)


class EdgeSource(EngineStream):
    """The engine as an edge reads it. Its failures are the engine's.

    *last_missing* returns the last seq that the engine may lack.
    """

    fails = page_fails = 0
    is_failing = False
    has_failed = True

    def __init__(self, engine: SimulatedEngine, rules: str, last_missing: Callable[[], float]) -> None:
        super().__init__(engine, "http://origin", rules, self._take_head)  # type: ignore[arg-type]
        self._last_missing = last_missing
        self._erasures = 0
        self.on_erasure: Callable[[], None] = lambda: None

    @property
    def last_missing(self) -> float:
        return self._last_missing()

    def _take_head(self, head: Head) -> None:
        """Drop cached events after an erasure, as `EdgeRights` does."""
        if head.erasures != self._erasures:
            self.on_erasure()
        self._erasures = head.erasures


class Connection:
    """One connection of a process, and its thread, as in `http.transports`.

    `inbox` has the client's messages. A stream has the one request that opened it.
    """

    def __init__(self, worker: Worker, request: dict[str, Any] | None) -> None:
        self.worker = worker
        self.socket = Socket(worker.actors)
        self.inbox: deque[str] = deque()
        self.first_ending: tuple[int, str] | None = None
        self._request = request
        self.encoding: Encoding = frames.WEBSOCKET if request is None else SSE
        self._is_woken = False
        self._writer = SocketWriter(self.socket)  # type: ignore[arg-type]
        self.subscriber = Subscriber(worker.core, self._writer, self._wake, self.encoding, (10, 0), VIEWER)
        worker.actors.start("connection", worker, self._run)

    def require_one_ending(self) -> None:
        """Require that no later ending replaces the first."""
        ending = self.subscriber.ending
        self.first_ending = self.first_ending or ending
        if ending != self.first_ending:
            raise Breach("M5", f"the ending {ending} replaced {self.first_ending}")

    def _wake(self) -> None:
        self._is_woken = True
        self.worker.actors.seam()

    def _run(self) -> None:
        ending = self._serve()
        if ending is not None:
            self._writer.send_close(self.encoding.close_message(*ending))
            self._writer.close(CLOSE_SECS, lambda _: True)
        self.socket.is_broken = True

    def _serve(self) -> tuple[int, str] | None:
        hub = self.worker.core.hub
        hub.add(self.subscriber)
        try:
            return self._follow() if self._request is None else self._stream(self._request)
        except Overtaken as error:
            return frames.OVERTAKEN, str(error)
        except (ForbiddenConsumer, Superseded, UnknownName) as error:
            return frames.SUPERSEDED, str(error)
        except OSError:
            return None
        except SourceError as error:
            return frames.INTERNAL_ERROR, error.in_short
        finally:
            hub.remove(self.subscriber)

    def _stream(self, request: dict[str, Any]) -> tuple[int, str] | None:
        self.subscriber.subscribe(SubscribeRequest(**request), may_create=False)
        return self._follow()

    def _follow(self) -> tuple[int, str] | None:
        subscriber = self.subscriber
        while subscriber.ending is None:
            if subscriber.is_idle_too_long:
                return frames.POLICY, "no subscription"
            self._wait(subscriber.wait_secs())
            if self.inbox:
                dialogue.answer(subscriber, self.inbox.popleft())
            if subscriber.state is ClientState.REPLAYING:
                subscriber.advance()
        return subscriber.ending

    def _wait(self, secs: float | None) -> None:
        self.worker.actors.seam()
        if not self._has_news() and secs != 0:
            self.worker.actors.wait(self._has_news, secs)
        self._is_woken = False
        if self.socket.is_broken:
            raise ClientGone("the client has ended the connection")

    def _has_news(self) -> bool:
        return self._is_woken or bool(self.inbox) or self.socket.is_broken
