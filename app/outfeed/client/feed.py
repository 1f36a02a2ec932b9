"""Feed: an endless iterator over any number of connections."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from outfeed.client.cursor_file import write_cursor
from outfeed.client.link import Link
from outfeed.client.proxies import SOCKET_PROXIES, through_proxy
from outfeed.client.retries import MAX_PAUSE_SECS, Backoff, is_worth_retrying, retry_after
from outfeed.client.shapes import Cursor, FeedEvent, Gap, Reset
from outfeed.errors import ConsumerSuperseded, Refused

SIGNED_OUT = 4001
SUPERSEDED = 4009
RESTARTING = 1012
HELD_SECS = 5.0  # a connection that lasted this long resets the back-off


class Feed:
    """An endless iterator over a feed's events, each once and in order.

    It continues over any number of connections. `cursor` is the last event that the caller has handled. One thread uses
    a feed, but any thread may call `close`, which ends the iteration.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        wanted: Mapping[str, Any],
        cursor: Cursor,
        store: Path | None,
        on_missing: Callable[[Gap | Reset], None],
        on_connection: Callable[[str], None],
    ) -> None:
        self.url = url
        self.cursor = cursor
        self._token = token
        self._wanted = wanted
        self._store = store
        self._on_missing = on_missing
        self._on_connection = on_connection
        # Received by this client. The caller has handled events up to `cursor`, and the later ones wait in _steps.
        self._received = cursor
        self._steps: deque[FeedEvent | Gap | Reset | Cursor | str] = deque()  # a text is for on_connection
        self._handed: FeedEvent | None = None
        self._acked = 0
        self._types = 0
        self._link: Link | None = None
        self._origin: str | None = None  # the address of the next connection, instead of the URL
        self._asked_with: Cursor | None = None  # the last cursor that was taken to an origin
        self._backoff = Backoff()
        self._closing = threading.Event()

    @property
    def types(self) -> int:
        """The number of changes of displays, as the server last said."""
        return self._types

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FeedEvent:
        """Return the next event, however long it takes.

        Raises Refused if a retry would have the same result. ConsumerSuperseded, a Refused, says that another
        connection has taken over the consumer.
        """
        self._count_as_handled()
        while not self._closing.is_set():
            if not self._steps:
                self._pump()
            elif (event := self._step()) is not None:
                return event
        raise StopIteration

    def ack(self, event: FeedEvent | int | None = None) -> None:
        """Count everything up to *event* as handled, durably on return.

        *event* is an event or its seq, by default the last event. For a consumer the call moves its checkpoint on the
        server, which nothing else moves. Raises ValueError for a seq above that of every event returned so far. The
        cursor stays then.
        """
        seq = event.seq if isinstance(event, FeedEvent) else event
        newest = self._handed.seq if self._handed else self.cursor.seq
        if seq is None:
            seq = newest
        if seq is None:
            return
        if seq > max(newest or 0, self.cursor.seq or 0):
            raise ValueError(f"can't ack seq {seq:,}: the feed has returned events up to seq {newest or 0:,}")
        self._handed = None if self._handed and self._handed.seq <= seq else self._handed
        self._move(Cursor(max(seq, self.cursor.seq or 0), self.cursor.epoch))
        epoch = self.cursor.epoch  # after a reset the checkpoint has another epoch
        while "consumer" in self._wanted and self._acked < seq and self._received.epoch == epoch:
            if self._closing.is_set():
                return
            self._pump(ack=seq)

    def close(self) -> None:
        """End the iteration and the connection.

        Events that were not returned yet come again the next time.
        """
        self._closing.set()
        if (link := self._link) is not None:
            link.close()

    # --- what the caller has handled ---

    def _count_as_handled(self) -> None:
        """Count the last returned event as handled.

        The caller has asked for the next one.
        """
        if self._handed is not None:
            handed, self._handed = self._handed, None
            self._move(Cursor(handed.seq, self.cursor.epoch))

    def _step(self) -> FeedEvent | None:
        """Process the first waiting step; return it if it is an event."""
        step = self._steps[0]
        if isinstance(step, Gap | Reset):
            self._on_missing(step)
        self._steps.popleft()
        if isinstance(step, Cursor):
            self._move(step)
        if isinstance(step, str):
            self._on_connection(step)
        if isinstance(step, FeedEvent):
            self._handed = step
            return step
        return None

    def _move(self, cursor: Cursor) -> None:
        if cursor != self.cursor:
            self.cursor = cursor
            if self._store is not None and cursor.epoch is not None:
                write_cursor(self._store, cursor)

    # --- the connection ---

    def _pump(self, ack: int | None = None) -> None:
        """Receive one frame, or make one attempt to connect."""
        with ExitStack() as undo:
            undo.callback(self._disconnect)  # close the connection, also when interrupted
            try:
                if self._link is None:
                    self._link = Link(self._origin or self.url, self._token, asks_origin=self._origin is not None)
                    self._origin = None
                    if self._closing.is_set():  # closed by another thread that found no link to close
                        return
                    self._subscribe(self._link)
                if ack is not None:
                    self._link.ack(ack)
                self._receive(self._link, self._link.receive())
            except (ConnectionClosed, InvalidStatus, InvalidHandshake, OSError) as error:
                self._pause_after(error)
            undo.pop_all()

    def _subscribe(self, link: Link) -> None:
        fields = {"batch": True, "rate": 0, **self._wanted}
        received = self._received
        if received.seq is not None or "consumer" in fields:
            fields.pop("last", None)
        if (received.seq == 0 or received.epoch) and "consumer" not in fields:
            fields |= {"after": received.seq, "epoch": received.epoch}
        link.subscribe(fields)

    def _receive(self, link: Link, frame: dict[str, Any]) -> None:
        try:
            self._receive_known(link, frame)
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{self.url} sends a frame that no feed sends ({error!r:.100})") from None

    def _receive_known(self, link: Link, frame: dict[str, Any]) -> None:
        kind, payload = frame.get("type"), frame.get("payload") or {}
        if kind in ("subscribed", "heartbeat"):
            self._types = payload.get("types", 0)
        if kind == "error":
            raise Refused(f"{self.url} refuses: {payload['message']}")
        if kind == "subscribed":
            self._take_verdict(link, payload)
        elif kind == "acked":
            self._acked = max(self._acked, payload["seq"])
        elif link.verdicts_due:
            return  # a frame of the previous subscription
        elif kind == "event":
            self._take_events(link, frame["prev"], [{"seq": frame["seq"], **payload}])
        elif kind == "events":
            self._take_events(link, frame["prev"], frame["payload"])
        elif kind == "heartbeat":
            self._receive_through(link, payload["cursor"])

    def _asks_origin(self, verdict: dict[str, Any]) -> bool:
        """Disconnect from an edge if its origin may have what the edge lacks.

        The next connection is to the origin. A cursor is taken there once.
        """
        origin = verdict.get("origin")
        if verdict["verdict"] != "gap" or not isinstance(origin, str) or self._asked_with == self._received:
            return False
        self._asked_with, self._origin = self._received, origin
        self._disconnect()
        return True

    def _take_verdict(self, link: Link, verdict: dict[str, Any]) -> None:
        link.verdicts_due -= 1
        if self._asks_origin(verdict):
            return
        after, received = verdict["after"], self._received
        if received.seq and not received.epoch:
            # The server's verdict had to name the epoch of a bare seq first.
            self._received = Cursor(received.seq, verdict["epoch"])
            self._subscribe(link)
            return
        link.sent = after
        is_same_history = received.seq is not None and received.epoch == verdict["epoch"]
        is_behind = is_same_history and after <= (received.seq or 0)  # a consumer's checkpoint may be behind
        if not is_behind or (verdict["verdict"] == "reset" and "consumer" not in self._wanted):
            self._continue_after(verdict, is_same_history)
        self._steps.append(f"Following {self.url} after seq {after}")

    def _continue_after(self, verdict: dict[str, Any], is_same_history: bool) -> None:
        """Continue at the position of *verdict*, and report missing events."""
        after, received = verdict["after"], self._received
        if verdict["verdict"] == "gap":
            first = max(verdict["missing"]["from"], (received.seq or 0) + 1 if is_same_history else 0)
            self._steps.append(Gap(first, verdict["missing"]["to"]))
        elif verdict["verdict"] == "reset":
            self._acked = 0
            self._steps.append(Reset(verdict["epoch"], after))
        self._received = Cursor(after, verdict["epoch"])
        self._steps.append(self._received)

    def _take_events(self, link: Link, prev: int, events: list[dict[str, Any]]) -> None:
        if prev > link.sent:
            self._subscribe(link)  # events before these are missing
            return
        assert self._received.seq is not None, "events come after a verdict"
        new = [event for event in events if event["seq"] > self._received.seq]
        self._steps.extend(FeedEvent.of(fields) for fields in new)
        if events:
            link.sent = max(link.sent, events[-1]["seq"])
        if new:
            self._received = Cursor(new[-1]["seq"], self._received.epoch)

    def _receive_through(self, link: Link, seq: int) -> None:
        """Record that all matching events up to *seq* have been received."""
        link.sent = max(link.sent, seq)
        if seq > (self._received.seq or 0):
            self._received = Cursor(seq, self._received.epoch)
            self._steps.append(self._received)

    # --- between connections ---

    def _pause_after(self, error: Exception) -> None:
        """Close the connection after *error* and wait before the next one."""
        link = self._link
        self._disconnect()
        if self._closing.is_set():
            return
        if link is not None and link.age >= HELD_SECS:
            self._backoff.attempt = 0
        problem, asked_secs = self._explain(error)
        pause = asked_secs or self._backoff.next()
        self._on_connection(f"{problem[0].upper()}{problem[1:]}; trying again in {pause:.1f} s")
        self._closing.wait(pause)

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _explain(self, error: Exception) -> tuple[str, float]:
        """Return what happened, and the pause in seconds that the server asks.

        Raises Refused.
        """
        if isinstance(error, InvalidStatus):
            return self._explain_status(error)
        if not isinstance(error, ConnectionClosed):
            return (
                f"can't reach {self.url}{through_proxy(self.url, SOCKET_PROXIES)}: {error or type(error).__name__}",
                0,
            )
        code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, "connection lost")
        if code == SIGNED_OUT:
            raise Refused(f"{self.url} has signed this token out (4001): it was revoked")
        if code == SUPERSEDED:
            raise ConsumerSuperseded(f"{self.url}: another connection has taken over this consumer (4009)")
        pause = re.search(r"retry_ms=(\d+)", reason) if code == RESTARTING else None
        if pause:
            return "the server restarts", min(int(pause[1]) / 1000, MAX_PAUSE_SECS)
        return f"the connection ended ({code}: {reason})" if code else reason, 0

    def _explain_status(self, error: InvalidStatus) -> tuple[str, float]:
        status = error.response.status_code
        if status == 401:
            advice = "set OUTFEED_TOKEN to a valid token (create one: `outfeed token create NAME --scopes read`)"
            raise Refused(
                f"{self.url} refuses {'this token' if self._token else 'requests without a token'} (401); {advice}"
            )
        if status == 403:
            raise Refused(f"{self.url} refuses this token (403); it needs the scope read")
        if not is_worth_retrying(status):
            raise Refused(f"{self.url} answers {status}; is it an Outfeed server?")
        return f"the server answers {status}", retry_after(error.response.headers)
