"""The server under test, its probes and its readers."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx

from outfeed import clock
from outfeed.client.link import authorization
from outfeed.client.proxies import open_http
from outfeed.errors import Refused, Unreachable
from outfeed.verify.model import Breach, Model, StartAt
from outfeed.verify.transports import TIMEOUT_SECS, Rejected, Told, TransportClient

EVENT_TYPE = "verify.probe"
MAX_EVENTS = 200
# A reader that receives nothing new for so long has lost an event.
PATIENCE_SECS = 10.0
# An event that is repeated or swapped comes this soon after the last expected one.
SETTLE_SECS = 0.1


class ProbeEvent(NamedTuple):
    """An event that this run has written."""

    seq: int
    epoch: str
    id: str
    fields: dict[str, Any]


class Reader:
    """A connection, and the model of what it is told.

    Raises Rejected if the subscription is rejected, and Breach.
    """

    def __init__(self, connection: TransportClient, model: Model) -> None:
        self.connection = connection
        self.model = model
        self.events: list[dict[str, Any]] = []
        self.messages: list[Told] = []
        self.code: int | str | None = None
        self.is_ended = False
        self._read_until(lambda: model.verdict is not None, "V1", "no verdict came")

    @property
    def seqs(self) -> list[int]:
        return self.model.seqs

    def until(self, seq: int) -> None:
        """Read until every event up to *seq* has arrived."""
        self._read_until(
            lambda: self.model.cursor >= seq or self.is_ended, "E1", f"event {seq} is written and did not come"
        )
        if self.model.cursor < seq:
            raise Breach("E1", f"the connection ended with {self.code} before event {seq}")

    def until_ended(self, code: int, sentence: str) -> None:
        """Read until the server ends the connection, with *code*."""
        self._read_until(lambda: self.is_ended, sentence, "the connection did not end")
        if self.code not in (code, None):
            raise Breach(sentence, f"the connection ended with {self.code} instead of {code}")

    def until_another_verdict_or_end(self, sentence: str) -> None:
        """Read until the server ends the connection or gives a new verdict."""
        self.messages.clear()
        self._read_until(
            lambda: self.is_ended or any(message.kind == "verdict" for message in self.messages),
            sentence, "the connection did not end",
        )  # fmt: skip

    def answer(self, kind: str, sentence: str) -> Told:
        """Read until a new message of *kind*, and return it."""
        known = len(self.messages)
        self._read_until(lambda: any(each.kind == kind for each in self.messages[known:]), sentence, f"no {kind} came")
        return self.messages[-1]

    def settle(self) -> None:
        """Read what arrives now, such as a repeated event."""
        end = clock.monotonic() + SETTLE_SECS
        while not self.is_ended and (message := self.connection.receive(end - clock.monotonic())) is not None:
            self._take(message)

    def quiet(self, secs: float, sentence: str) -> None:
        """Require that no event arrives for *secs*."""
        count, end = len(self.seqs), clock.monotonic() + secs
        while (message := self.connection.receive(end - clock.monotonic())) is not None:
            self._take(message)
        if len(self.seqs) > count:
            raise Breach(sentence, f"event {self.seqs[-1]} arrived")

    def _read_until(self, is_done: Callable[[], bool], sentence: str, problem: str) -> None:
        """Read until *is_done*, as long as the cursor moves."""
        end = clock.monotonic() + PATIENCE_SECS
        while not is_done():
            message = self.connection.receive(end - clock.monotonic())
            if message is None:
                raise Breach(sentence, f"{problem} within {PATIENCE_SECS:.0f} s")
            before = self.model.cursor
            self._take(message)
            if self.model.cursor > before:
                end = clock.monotonic() + PATIENCE_SECS

    def _take(self, message: Told) -> None:
        self.messages.append(message)
        match message.kind:
            case "verdict" if message.verdict is not None:
                if self.model.verdict is not None and self.connection.resumes:
                    self.model.start = StartAt(self.model.cursor, self.model.epoch)
                self.model.take_verdict(message.verdict, message.cursor)
            case "events":
                self.model.take_events([event["seq"] for event in message.events], message.prev)
                self.events += message.events
            case "cursor":
                self.model.take_cursor(message.cursor)
            case "closed":
                self.is_ended, self.code = True, message.fields["code"]
            case "error" if self.model.verdict is None:
                raise Rejected(str(message.fields["code"]))


class VerifiedServer:
    """The server at *url*, and what this run has written to it.

    An edge refuses events, and names the origin that accepts them.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.is_copy = False
        self.source = f"verify-{secrets.token_hex(4)}"
        self.probes: list[ProbeEvent] = []
        self._token = token
        self._http = self._open(url)
        self._consumers: list[str] = []
        self._connections: list[TransportClient] = []

    def close(self) -> None:
        """Remove the consumers of this run, disconnect, and end all threads."""
        for connection in self._connections:
            connection.join()
        for name in self._consumers:
            self._http.delete(f"/api/consumers/{name}")
        self._http.close()

    def _open(self, url: str) -> httpx.Client:
        return open_http(url, headers=authorization(self._token), timeout=TIMEOUT_SECS)

    def write(self, count: int = 1, **fields: Any) -> list[ProbeEvent]:
        """Write *count* events in one request and return them.

        Raises Refused, Unreachable.
        """
        if len(self.probes) + count > MAX_EVENTS:
            raise Refused(f"a run writes {MAX_EVENTS} events at most")
        data = [{"number": len(self.probes) + n} for n in range(count)]
        events = [{"event_type": EVENT_TYPE, "source": self.source, "data": each, **fields} for each in data]
        receipts = self.call("POST", "/api/events", json=events)
        made = [ProbeEvent(r["seq"], r["epoch"], r["id"], e) for r, e in zip(receipts, events, strict=True)]
        self.probes += made
        return made

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return its JSON. Raises Refused, Unreachable."""
        try:
            response = self._http.request(method, path, **options)
            if response.status_code == 421 and not self.is_copy:
                self._http.close()
                self.is_copy, self._http = True, self._open(response.json()["origin"])
                return self.call(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise Refused(f"{method} {path} answers {response.status_code}: {response.text:.200}")
        return response.json()

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.url} does not answer: {error or type(error).__name__}")

    def create_consumer(self) -> StartAt:
        """Create a consumer with the name of this run; return its position."""
        name = f"{self.source}-{len(self._consumers)}"
        found = self.call("POST", "/api/consumers", json={"name": name})
        self._consumers.append(name)
        return StartAt(found["seq"], found["epoch"])

    @property
    def consumer(self) -> str:
        """Name of the consumer that was created last."""
        return self._consumers[-1]

    def page(self, **query: Any) -> Any:
        """Return a page of the feed."""
        return self.call("GET", "/api/feed", params=query)

    def acknowledge(self, ack: dict[str, Any]) -> int:
        """Acknowledge as the last consumer, and return the status."""
        return self._http.post(f"/api/consumers/{self.consumer}/ack", json=ack).status_code

    @contextlib.contextmanager
    def reader(
        self,
        transport: type[TransportClient],
        start: StartAt | None = None,
        matches: Callable[[ProbeEvent], bool] = lambda _: True,
        **wanted: Any,
    ) -> Iterator[Reader]:
        """Connect over *transport* and read the events of this run.

        *start* is the expected position of a consumer. Otherwise `after` and `epoch` of *wanted* are it.

        Raises Rejected, Unreachable.
        """
        wanted = {"source": self.source} | wanted

        def known(epoch: str, after: int, up_to: int) -> list[int]:
            return [p.seq for p in self.probes if p.epoch == epoch and after < p.seq <= up_to and matches(p)]

        expected = start or StartAt(wanted.get("after"), wanted.get("epoch"))
        model = Model(expected, known, is_copy=self.is_copy)
        try:
            connection = transport(self.url, self._token, **wanted)
        except (OSError, httpx.TransportError) as error:
            raise self._unreachable(error) from None
        self._connections.append(connection)
        try:
            yield Reader(connection, model)
        finally:
            connection.__exit__()

    def require_rejected(self, transport: type[TransportClient], sentence: str, code: str, **wanted: Any) -> None:
        """Raise Breach unless the subscription is rejected with *code*."""
        try:
            with self.reader(transport, **wanted) as reader:
                verdict = reader.model.verdict
        except Rejected as rejection:
            if rejection.code != code:
                raise Breach(sentence, f"{wanted} is rejected with {rejection.code} instead of {code}") from None
        else:
            raise Breach(sentence, f"{wanted} is accepted: {verdict}")
