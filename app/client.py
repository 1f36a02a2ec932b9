"""The Python client: follow a server's feed over any disconnect, and publish events that arrive once.

client = Client("http://127.0.0.1:8000", token="outfeed_…")
for event in client.follow(types=["task.*"], cursor_file="bot.cursor"):
    print(event.seq, event.event_type, event.data)
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, overload
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app import clock
from app.errors import EventConflict, InvalidEvent, Refused, Unreachable
from app.events import Event, known_type, new_id
from app.process import renew_in_children

SIGNED_OUT = 4001
SUPERSEDED = 4009
RESTARTING = 1012
MAX_FRAME_BYTES = 64 * 2**20
FIRST_PAUSE_SECS = 0.5
MAX_PAUSE_SECS = 10.0
HELD_SECS = 5.0  # a connection that lasted this long was a good one
RETRIED_STATUSES = {408, 425, 429}  # and every 5xx
MAX_BATCH_EVENTS = 1000
MAX_BATCH_BYTES = 4 * 2**20  # half of what the server takes
TIMEOUT_SECS = 30.0

_EVENT_FIELDS = ("seq", "id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")
log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    """Where a published event went. *seq* is None once its outbox row is pruned."""

    id: str
    seq: int | None
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent(Event):
    """An event with its place in the feed. A field that a raw writer left out is None."""

    seq: int

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the feed sends it."""
        return {"seq": self.seq, **Event.as_dict(self)}


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands: the last seq it has handled, of which epoch. Without a seq it has not begun."""

    seq: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """These events were pruned before they could be read; the feed goes on behind them."""

    first_seq: int
    last_seq: int

    def __str__(self) -> str:
        return f"events {self.first_seq} to {self.last_seq} were pruned before they could be read"


@dataclass(frozen=True, slots=True)
class Reset:
    """The feed has another history now: another database, or a backup put back. It goes on from its head."""

    epoch: str
    after: int

    def __str__(self) -> str:
        return f"the feed has another history now; what it holds up to seq {self.after} is not read"


def _warn(missing: Gap | Reset) -> None:
    log.warning("events are missing: %s", missing)


class Client:
    """A server, by its address and a token. Any thread may publish; each feed belongs to one thread."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._http: httpx.Client | None = None
        self._inherited: httpx.Client | None = None
        self._lock = threading.Lock()  # guards _http
        renew_in_children(self)

    def start_anew(self) -> None:
        """In a forked child: leave the parent's connections open for it, and make our own."""
        self._inherited, self._http = self._http, None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that publishing keeps. Using the client again opens new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def follow(
        self,
        *,
        types: Iterable[str] = (),
        source: str | None = None,
        task_id: str | None = None,
        agent_id: str | None = None,
        after: int | None = None,
        epoch: str | None = None,
        last: int = 0,
        cursor_file: str | os.PathLike[str] | None = None,
        consumer: str | None = None,
        on_missing: Callable[[Gap | Reset], None] = _warn,
        on_connection: Callable[[str], None] = log.info,
    ) -> Feed:
        """Return the feed's events as an endless iterator; nothing is sent before the first `next`.

        It begins at the head, or *last* matching events before it, or behind *after* (0 is all that is kept; without
        *epoch* the server's). With *cursor_file* it goes on where that file says, and keeps it up to date: an event
        counts as handled when the next one is asked for. A *consumer* begins where it last acknowledged.

        *on_missing* is told, in its place among the events, when events can't be had any more; what it raises comes
        out of the iterator, and it is told again. *on_connection* is told of every connection, in words.
        """
        if consumer and (after is not None or last or cursor_file is not None):
            raise ValueError("a consumer goes on from its checkpoint; it takes no after, last or cursor_file")
        options = {"types": list(types), "source": source, "task_id": task_id, "agent_id": agent_id, "last": last}
        wanted = {name: value for name, value in options.items() if value} | (
            {"consumer": consumer} if consumer else {}
        )
        cursor = Cursor(after, epoch)
        store = None
        if cursor_file is not None:
            store = Path(cursor_file)
            cursor = read_cursor(store) or cursor
        return Feed(self.url, self._token, wanted, cursor, store, on_missing, on_connection)

    @overload
    def publish(self, events: Mapping[str, Any] | Event, *, give_up_secs: float = ...) -> Receipt: ...
    @overload
    def publish(self, events: Sequence[Mapping[str, Any] | Event], *, give_up_secs: float = ...) -> list[Receipt]: ...
    def publish(
        self, events: Mapping[str, Any] | Event | Sequence[Mapping[str, Any] | Event], *, give_up_secs: float = 60.0
    ) -> Receipt | list[Receipt]:
        """Append one event, or many (`log_event`'s names), and return where they went; durable when this returns.

        One without an id gets one, and a time, before the first try, so that it is written once, however often it is
        sent. Many go in batches of up to 1,000, each of which is written as a whole or not at all.

        Raises InvalidEvent and EventConflict (with the `index` of the bad one; batches before it are written), Refused
        (the token), Unreachable after *give_up_secs*: then they may have been written, and publishing them again
        under their own ids is safe.
        """
        if isinstance(events, Mapping | Event):
            return self.publish([events], give_up_secs=give_up_secs)[0]
        encoded = [_encoded(index, event) for index, event in enumerate(events)]
        deadline = clock.monotonic() + give_up_secs
        receipts: list[Receipt] = []
        for batch in _batches(encoded):
            receipts += self._post(batch, len(receipts), deadline)
        return receipts

    def _post(self, batch: list[bytes], offset: int, deadline: float) -> list[Receipt]:
        """Send one batch until it is answered."""
        body, backoff = b"[%b]" % b",".join(batch), Backoff()
        while True:
            try:
                response = self._session().post("/api/events", content=body)
            except httpx.TransportError as error:
                problem, asked_secs = f"{error or type(error).__name__}", 0.0
            else:
                if response.is_success:
                    return [Receipt(one["id"], one["seq"], one["epoch"]) for one in _json_of(response)]
                if response.status_code < 500 and response.status_code not in RETRIED_STATUSES:
                    raise _refusal(self.url, response, offset)
                problem, asked_secs = f"it answers {response.status_code}", _retry_after(response.headers)
            pause = asked_secs or backoff.next()
            if clock.monotonic() + pause > deadline:
                raise Unreachable(f"{self.url} has not taken {len(batch)} events: {problem}; the same again is safe")
            log.info("publishing again url=%s problem=%s pause_secs=%.1f", self.url, problem, pause)
            threading.Event().wait(pause)

    def _session(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                headers = {"Content-Type": "application/json"} | _authorization(self._token)
                is_https = self.url.lower().startswith("https:")  # to read the system's certificates takes 40 ms
                self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_SECS, verify=is_https)
            return self._http


# --- publishing -------------------------------------------------------------------------------------------------------


def _encoded(index: int, event: Mapping[str, Any] | Event) -> bytes:
    fields = event.as_dict() if isinstance(event, Event) else dict(event)
    if fields.get("id") is None:
        fields["id"] = new_id()
        # Not where the caller named the id: the same event in a later run would be another one by its time.
        fields["timestamp"] = fields.get("timestamp") or clock.timestamp()
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent("event", f"is not JSON-serialisable: {error}", index=index) from None


def _batches(encoded: list[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for one in encoded:
        if batch and (len(batch) == MAX_BATCH_EVENTS or size + len(one) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one) + 1
    if batch:
        yield batch


def _refusal(url: str, response: httpx.Response, offset: int) -> Exception:
    """Return the answer of a server that will not take a batch as an error of ours."""
    problem = _json_of(response)
    problem = problem if isinstance(problem, dict) else {}
    detail = str(problem.get("detail") or response.reason_phrase)
    index = offset + problem["index"] if isinstance(problem.get("index"), int) else None
    if response.status_code == 409:
        conflict = EventConflict(detail)
        conflict.index = index
        return conflict
    if response.status_code == 422 and "field" in problem:
        field = str(problem["field"])
        return InvalidEvent(field, detail.partition(f"{field}: ")[2] or detail, index=index)
    return Refused(f"{url} refuses the events ({response.status_code}): {detail}")


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        if response.is_success:
            raise Refused(f"{response.url} answers something that is no receipt; is it an Outfeed server?") from None
        return None


# --- following --------------------------------------------------------------------------------------------------------


class Feed:
    """An endless iterator over a feed's events, each once and in order, over any number of connections.

    `cursor` is the last event that the caller has handled. Not for several threads at once, but `close`, which ends
    the iteration, may be called from any.
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
        self._received = cursor  # by us; the caller has handled up to `cursor`, and what lies between waits in _steps
        self._steps: deque[FeedEvent | Gap | Reset | Cursor | str] = deque()  # text is for on_connection
        self._handed: FeedEvent | None = None
        self._acked = 0
        self._link: _Link | None = None
        self._backoff = Backoff()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FeedEvent:
        """Return the next event, however long it takes. Raises Refused where trying again is no use."""
        self._settle()
        while not self._closing.is_set():
            if not self._steps:
                self._pump()
            elif (event := self._step()) is not None:
                return event
        raise StopIteration

    def ack(self, event: FeedEvent | int | None = None) -> None:
        """Count everything up to *event* (or its seq; the last one by default) as handled, durably when this returns.

        For a consumer that is its checkpoint on the server, and the only thing that moves it.
        """
        seq = event.seq if isinstance(event, FeedEvent) else event
        if seq is None:
            seq = self._handed.seq if self._handed else self.cursor.seq
        if seq is None:
            return
        self._handed = None if self._handed and self._handed.seq <= seq else self._handed
        self._move(Cursor(max(seq, self.cursor.seq or 0), self.cursor.epoch))
        epoch = self._received.epoch  # a reset while we wait makes the checkpoint void
        while "consumer" in self._wanted and self._acked < seq and self._received.epoch == epoch:
            if self._closing.is_set():
                return
            self._pump(ack=seq)

    def close(self) -> None:
        """End the iteration and the connection. What was not handled yet comes again the next time."""
        self._closing.set()
        if (link := self._link) is not None:
            link.close()

    # --- what the caller has handled ---

    def _settle(self) -> None:
        """The event that was handed out last is handled: the caller asks for more."""
        if self._handed is not None:
            handed, self._handed = self._handed, None
            self._move(Cursor(handed.seq, self.cursor.epoch))

    def _step(self) -> FeedEvent | None:
        """Take the first of what waits; return it if it is an event to show."""
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
        """Bring the feed on by one frame, or one attempt to connect."""
        with ExitStack() as undo:
            undo.callback(self._hang_up)  # in peace, also when interrupted
            try:
                if self._link is None:
                    self._link = _Link(self.url, self._token)
                    if self._closing.is_set():  # meanwhile, by another thread that found no link to close
                        return
                    self._subscribe(self._link)
                if ack is not None:
                    self._link.ack(ack)
                self._take(self._link, self._link.receive())
            except (ConnectionClosed, InvalidStatus, InvalidHandshake, OSError) as error:
                self._lose(error)
            undo.pop_all()

    def _subscribe(self, link: _Link) -> None:
        fields = {"batch": True, "rate": 0, **self._wanted}
        received = self._received
        if received.seq is not None or "consumer" in fields:
            fields.pop("last", None)
        if (received.seq == 0 or received.epoch) and "consumer" not in fields:
            fields |= {"after": received.seq, "epoch": received.epoch}
        link.subscribe(fields)

    def _take(self, link: _Link, frame: dict[str, Any]) -> None:
        kind, payload = frame.get("type"), frame.get("payload") or {}
        if kind == "error":
            raise Refused(f"{self.url} refuses: {payload['message']}")
        if kind == "subscribed":
            self._take_verdict(link, payload)
        elif kind == "acked":
            self._acked = max(self._acked, payload["seq"])
        elif link.verdicts_due:
            return  # of the subscription before
        elif kind == "event":
            self._take_events(link, frame["prev"], [{"seq": frame["seq"], **payload}])
        elif kind == "events":
            self._take_events(link, frame["prev"], frame["payload"])
        elif kind == "heartbeat":
            self._receive_through(link, payload["cursor"])

    def _take_verdict(self, link: _Link, verdict: dict[str, Any]) -> None:
        link.verdicts_due -= 1
        after, received = verdict["after"], self._received
        if received.seq and not received.epoch:
            self._received = Cursor(received.seq, verdict["epoch"])  # whose a bare seq is, the server had to say first
            self._subscribe(link)
            return
        link.sent = after
        is_same_history = received.seq is not None and received.epoch == verdict["epoch"]
        is_behind = is_same_history and after <= (received.seq or 0)  # as a consumer's checkpoint may lie
        if not is_behind or (verdict["verdict"] == "reset" and "consumer" not in self._wanted):
            self._take_up(verdict, is_same_history)
        self._steps.append(f"Following {self.url} after seq {after}")

    def _take_up(self, verdict: dict[str, Any], is_same_history: bool) -> None:
        """Go on where *verdict* says, and say what is missing before."""
        after, received = verdict["after"], self._received
        if verdict["verdict"] == "gap":
            first = max(verdict["missing"]["from"], (received.seq or 0) + 1 if is_same_history else 0)
            self._steps.append(Gap(first, verdict["missing"]["to"]))
        elif verdict["verdict"] == "reset":
            self._acked = 0
            self._steps.append(Reset(verdict["epoch"], after))
        self._received = Cursor(after, verdict["epoch"])
        self._steps.append(self._received)

    def _take_events(self, link: _Link, prev: int, events: list[dict[str, Any]]) -> None:
        if prev > link.sent:
            self._subscribe(link)  # something is missing before these
            return
        assert self._received.seq is not None, "events come after a verdict"
        new = [event for event in events if event["seq"] > self._received.seq]
        self._steps.extend(_event(fields) for fields in new)
        if events:
            link.sent = max(link.sent, events[-1]["seq"])
        if new:
            self._received = Cursor(new[-1]["seq"], self._received.epoch)

    def _receive_through(self, link: _Link, seq: int) -> None:
        """All that matches up to *seq* has come."""
        link.sent = max(link.sent, seq)
        if seq > (self._received.seq or 0):
            self._received = Cursor(seq, self._received.epoch)
            self._steps.append(self._received)

    # --- between connections ---

    def _lose(self, error: Exception) -> None:
        """The connection ended, or there was none: wait before the next one."""
        link = self._link
        self._hang_up()
        if self._closing.is_set():
            return
        if link is not None and link.age >= HELD_SECS:
            self._backoff.attempt = 0
        problem, asked_secs = self._explain(error)
        pause = asked_secs or self._backoff.next()
        self._on_connection(f"{problem[0].upper()}{problem[1:]}; trying again in {pause:.1f} s")
        self._closing.wait(pause)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _explain(self, error: Exception) -> tuple[str, float]:
        """Return what happened, and how many seconds the server asks for. Raises Refused."""
        if isinstance(error, InvalidStatus):
            return self._explain_status(error)
        if not isinstance(error, ConnectionClosed):
            return f"can't reach {self.url}: {error or type(error).__name__}", 0
        code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, "connection lost")
        if code == SIGNED_OUT:
            raise Refused(f"{self.url} has signed this token out (4001): it was revoked")
        if code == SUPERSEDED:
            raise Refused(f"{self.url}: another connection has taken over this consumer (4009)")
        pause = re.search(r"retry_ms=(\d+)", reason) if code == RESTARTING else None
        if pause:
            return "the server restarts", min(int(pause[1]) / 1000, MAX_PAUSE_SECS)
        return f"the connection ended ({code}: {reason})" if code else reason, 0

    def _explain_status(self, error: InvalidStatus) -> tuple[str, float]:
        status = error.response.status_code
        if status == 401:
            advice = "set OUTFEED_TOKEN to a valid one (`outfeed token create NAME --scopes read` makes it)"
            raise Refused(f"{self.url} refuses {'this token' if self._token else 'strangers'} (401); {advice}")
        if status == 403:
            raise Refused(f"{self.url} refuses this token (403); it needs the scope read")
        if status < 500 and status not in RETRIED_STATUSES:
            raise Refused(f"{self.url} answers {status}; is it an Outfeed server?")
        return f"the server answers {status}", _retry_after(error.response.headers)


class _Link:
    """One connection: its socket, the verdicts that are due on it, and how far the server has sent."""

    def __init__(self, url: str, token: str | None) -> None:
        self._open = ExitStack()
        self._socket: ClientConnection = self._open.enter_context(
            connect(
                socket_url(url), additional_headers=_authorization(token), max_size=MAX_FRAME_BYTES, close_timeout=1
            )
        )
        self._began = clock.monotonic()
        self._asked_to_ack = 0
        self.verdicts_due = 0
        self.sent = 0

    @property
    def age(self) -> float:
        return clock.monotonic() - self._began

    def subscribe(self, fields: dict[str, Any]) -> None:
        self.verdicts_due += 1
        self._send(action="subscribe", channel="events", **fields)

    def ack(self, seq: int) -> None:
        """Acknowledge, once, and only what this connection was sent: a server refuses to believe the rest."""
        if not self.verdicts_due and self._asked_to_ack < seq <= self.sent:
            self._asked_to_ack = seq
            self._send(action="ack", seq=seq)

    def receive(self) -> dict[str, Any]:
        message = self._socket.recv()
        try:
            frame = json.loads(message)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            raise Refused("the server sends something that is no feed")
        return frame

    def _send(self, **fields: Any) -> None:
        self._socket.send(json.dumps(fields))

    def close(self) -> None:
        self._open.close()


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts, with full jitter: a thousand clients must not come back at the same moment."""

    attempt: int = field(default=0)

    def next(self) -> float:
        """Return how many seconds to wait; up to twice as long as the time before."""
        ceiling = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(self.attempt, 30))
        self.attempt += 1
        return secrets.SystemRandom().uniform(0, ceiling)


def socket_url(url: str) -> str:
    """Return the WebSocket address of the server at *url* (http, https, ws or wss)."""
    parts = urlsplit(url.rstrip("/"))
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path}/ws"


def _authorization(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _retry_after(headers: Mapping[str, str]) -> float:
    wanted = headers.get("Retry-After", "")
    return min(int(wanted), MAX_PAUSE_SECS) if wanted.isdigit() else 0


def _event(fields: dict[str, Any]) -> FeedEvent:
    known: dict[str, Any] = {name: fields.get(name) for name in _EVENT_FIELDS}
    if isinstance(known["event_type"], str):
        known["event_type"] = known_type(known["event_type"])
    return FeedEvent(**known, omitted_bytes=fields.get("omitted_bytes", 0))


# --- the cursor's file ------------------------------------------------------------------------------------------------


def read_cursor(path: Path) -> Cursor | None:
    """Return what *path* holds, None where there is no such file. Raises Refused for what is no cursor."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Cursor(int(fields["seq"]), str(fields["epoch"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} holds no cursor ({error}); delete it to begin anew") from None


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Put the cursor into *path*, whole or not at all, whenever this process may end."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.write_text(json.dumps({"seq": cursor.seq, "epoch": cursor.epoch}) + "\n", encoding="utf-8")
    draft.replace(path)
