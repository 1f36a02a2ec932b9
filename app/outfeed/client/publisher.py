"""Publishing: batches of events, each sent until it is answered."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from outfeed import clock
from outfeed.client.link import authorization
from outfeed.client.proxies import HTTP_PROXIES, open_http, through_proxy
from outfeed.client.retries import Backoff, is_worth_retrying, retry_after
from outfeed.client.shapes import Receipt
from outfeed.display import Display
from outfeed.errors import EventConflict, InvalidEvent, Refused, Unreachable
from outfeed.events import Event, new_id
from outfeed.log_message import LogMessage
from outfeed.process import reset_after_fork

MAX_BATCH_EVENTS = 1000
MAX_BATCH_BYTES = 4 * 2**20  # half of the server's limit
TIMEOUT_SECS = 30.0
log = logging.getLogger(__name__)


class Publisher:
    """Appends events over HTTP, on persistent connections.

    Any thread may call any method.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self._token = token
        self._http: httpx.Client | None = None
        self._inherited: httpx.Client | None = None
        self._lock = threading.Lock()  # guards _http
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Open new connections in a forked child.

        The parent's connections stay open.
        """
        self._inherited, self._http = self._http, None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def publish(self, events: Sequence[Mapping[str, Any] | Event], give_up_secs: float) -> list[Receipt]:
        """Append *events* in batches, each as a whole or not at all.

        Raises the errors of `Client.publish`.
        """
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
                problem, asked_secs = f"{error or type(error).__name__}{through_proxy(self.url, HTTP_PROXIES)}", 0.0
            else:
                if response.is_success:
                    return _receipts_in(response, len(batch))
                if not is_worth_retrying(response.status_code):
                    raise _refusal(self.url, response, offset)
                problem, asked_secs = f"it answers {response.status_code}", retry_after(response.headers)
            pause = asked_secs or backoff.next()
            if clock.monotonic() + pause > deadline:
                events = "1 event" if len(batch) == 1 else f"{len(batch):,} events"
                raise Unreachable(f"{self.url} has not accepted {events}: {problem}; sending them again is safe")
            log.info(LogMessage("publishing again", url=self.url, problem=problem, pause_secs=f"{pause:.1f}"))
            threading.Event().wait(pause)

    def displays(self) -> dict[str, Display]:
        """Request the displays that were set.

        A server of an older version has none.
        """
        try:
            response = self._session().get("/api/types")
        except httpx.TransportError as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from None
        if response.status_code == 404:
            return {}
        if not response.is_success:
            raise Refused(f"{self.url} refuses to say its displays ({response.status_code})")
        return {name: Display.of(fields) for name, fields in _json_of(response)["displays"].items()}

    def _session(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                headers = {"Content-Type": "application/json"} | authorization(self._token)
                self._http = open_http(self.url, headers=headers, timeout=TIMEOUT_SECS)
            return self._http


def _encoded(index: int, event: Mapping[str, Any] | Event) -> bytes:
    fields = event.as_dict() if isinstance(event, Event) else dict(event)
    if fields.get("id") is None:
        fields["id"] = new_id()
        # The time is set only with the id. With an id of the caller's, the same event in a later run would have another
        # time.
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
    """Return the exception for a server's rejection of a batch."""
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


def _receipts_in(response: httpx.Response, count: int) -> list[Receipt]:
    try:
        receipts = [Receipt(one["id"], one["seq"], one["epoch"]) for one in _json_of(response)]
    except (TypeError, KeyError):
        receipts = []
    if len(receipts) != count:
        raise Refused(f"{response.url} does not answer with a receipt; is it an Outfeed server?")
    return receipts


def _json_of(response: httpx.Response) -> Any:
    """Return the body as JSON; None if it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
