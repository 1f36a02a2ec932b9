"""Trace check: what a server decided, compared with the model.

A server with OUTFEED_TRACE_FILE writes the lines. docs/protocol.md describes them.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from outfeed.errors import BadTrace
from outfeed.principal import is_audit, is_of_type
from outfeed.verify.model import Breach, Model, StartAt, ToldVerdict

Line = dict[str, Any]


class TraceBreach(NamedTuple):
    """A line that breaks a sentence."""

    file: str
    line: int
    breach: str


class TraceResult(NamedTuple):
    """The content of one or more files of one server.

    *note* says why a trace ends early; it is empty otherwise.
    """

    lines: int
    pushes: int
    clients: int
    breach: TraceBreach | None
    note: str = ""


class _Event(NamedTuple):
    id: object
    type: str
    source: object
    task_id: object
    agent_id: object


class _History:
    """The published events, by epoch.

    Events up to `floors` may have been erased after they were published.
    """

    def __init__(self) -> None:
        self.floors: dict[str, int] = {}
        self._events: dict[str, dict[int, _Event]] = {}
        self._seqs: dict[str, list[int]] = {}

    def take(self, line: Line) -> None:
        """Note what a line says about the events. Raises Breach."""
        if line["kind"] == "publish":
            self.add(line["epoch"], line["events"])
        elif line["kind"] == "forget":
            self.floors[line["epoch"]] = max(self.floors.get(line["epoch"], 0), line["position"])

    def add(self, epoch: str, events: Sequence[Sequence[Any]]) -> None:
        """Add what one process published. Raises Breach."""
        known = self._events.setdefault(epoch, {})
        for seq, *fields in events:
            event = _Event(*fields)
            if known.setdefault(seq, event) != event:
                raise Breach("S2", f"event {seq} of {epoch} is {event.id}, and was {known[seq].id}")

    def sort(self) -> None:
        """Prepare `after`, when all events are there."""
        self._seqs = {epoch: sorted(events) for epoch, events in self._events.items()}

    def after(self, epoch: str, after: int, up_to: int) -> Iterator[tuple[int, _Event]]:
        """Yield the events above *after*, up to *up_to*."""
        seqs = self._seqs.get(epoch, [])
        for at in range(bisect_right(seqs, after), bisect_right(seqs, up_to)):
            yield seqs[at], self._events[epoch][seqs[at]]

    def event(self, epoch: str, seq: int) -> _Event | None:
        """Return the event, if a process published it."""
        return self._events.get(epoch, {}).get(seq)


class _Client:
    """One connection and its subscription.

    `is_pushed`: it gets what its process publishes, and not what a read of the history finds.
    """

    def __init__(self) -> None:
        self.model: Model | None = None
        self.is_pushed = False
        self.filter: Line = {}

    def wants(self, event: _Event) -> bool:
        """Return whether *event* matches the subscription."""
        wanted = self.filter
        if is_audit(event.type) and not wanted["audit"]:
            return False
        for patterns in (wanted.get("types"), wanted.get("visible")):
            if patterns and not any(is_of_type(event.type, pattern) for pattern in patterns):
                return False
        return all(wanted[name] == getattr(event, name) for name in ("source", "task_id", "agent_id") if name in wanted)


class _Process:
    """The state of one process, which the lines of its file change.

    *own* are the events that it has published, and *history* those of all processes.
    """

    def __init__(self, history: _History, own: _History) -> None:
        self._history = history
        self._own = own
        self._clients: dict[int, _Client] = {}
        self._epoch = ""
        self._position = 0
        self._is_copy = False
        self.pushes = 0
        self.count = 0

    def take(self, line: Line) -> None:
        """Accept the next line. Raises Breach."""
        handler = getattr(self, f"_take_{line['kind']}", None)
        if handler is not None:
            handler(line)

    def _take_begin(self, line: Line) -> None:
        if line["epoch"] == self._epoch and line["position"] < self._position:
            raise Breach("S4", f"the position moved from {self._position} back to {line['position']}")
        self._epoch, self._position, self._is_copy = line["epoch"], line["position"], line["is_copy"]

    def _take_publish(self, line: Line) -> None:
        if (line["epoch"], line["after"]) != (self._epoch, self._position):
            raise Breach("S3", f"events follow {line['after']}, and the position is {self._position}")
        seqs = [seq for seq, *_ in line["events"]]
        if seqs != sorted(set(seqs)) or any(not line["after"] < seq <= line["position"] for seq in seqs):
            raise Breach("S3", f"events {seqs[:5]} are not in order from {line['after']} to {line['position']}")
        self._position = line["position"]

    def _take_verdict(self, line: Line) -> None:
        client = self._clients.setdefault(line["client"], _Client())
        self.count += client.model is None
        missing = line.get("missing")
        told = (missing["from"], missing["to"]) if missing else None
        verdict = ToldVerdict(line["verdict"], line["epoch"], line["after"], line["head"], told)
        start = StartAt(*line["start"]) if line["consumer"] is None else _start_of_consumer(verdict)
        client.filter = line["filter"]
        client.model = Model(start, lambda *bounds: self._known(client, *bounds), is_copy=self._is_copy)
        client.model.take_verdict(verdict, line["after"])

    def _known(self, client: _Client, epoch: str, after: int, up_to: int) -> list[int]:
        if client.is_pushed:
            found = self._own.after(epoch, after, up_to)
        else:
            found = self._history.after(epoch, max(after, self._history.floors.get(epoch, 0)), up_to)
        return [seq for seq, event in found if client.wants(event)]

    def _take_join(self, line: Line) -> None:
        self._take_at(line["client"], line, line["cursor"])

    def _take_send(self, line: Line) -> None:
        self._take_events(line["client"], line, line["seqs"], is_pushed=False)

    def _take_push(self, line: Line) -> None:
        for number in line["clients"]:
            self._take_events(number, line, line["seqs"], is_pushed=True)
        for number, cursor in line.get("cut", ()):
            self._take_events(number, line, [seq for seq in line["seqs"] if seq <= cursor], is_pushed=True)

    def _take_events(self, number: int, line: Line, seqs: Sequence[int], *, is_pushed: bool) -> None:
        model, client = self._model(number, line), self._clients[number]
        client.is_pushed = is_pushed
        if not seqs:
            return
        self.pushes += 1
        model.take_events(seqs, line["prev"])
        for seq in seqs:
            event = self._history.event(line["epoch"], seq)
            if event is not None and not client.wants(event):
                raise Breach("F1", f"event {seq} does not match the filter of client {number}")

    def _take_cursor(self, line: Line) -> None:
        for number in line["clients"]:
            self._take_at(number, line, line["cursor"])

    def _take_at(self, number: int, line: Line, cursor: int) -> None:
        model = self._model(number, line)
        self._clients[number].is_pushed = False
        model.take_cursor(cursor)

    def _take_unsubscribe(self, line: Line) -> None:
        self._clients.pop(line["client"], None)

    _take_disconnect = _take_unsubscribe

    def _model(self, number: int, line: Line) -> Model:
        client = self._clients.get(number)
        if client is None or client.model is None:
            raise Breach("V1", f"client {number} has no subscription")
        if client.model.epoch != line["epoch"]:
            raise Breach("E10", f"client {number} follows {client.model.epoch}, not {line['epoch']}")
        return client.model


def _start_of_consumer(verdict: ToldVerdict) -> StartAt:
    """Return a start that the verdict on a checkpoint may belong to."""
    if verdict.kind == "reset":
        return StartAt(1, "")
    return StartAt(verdict.missing[0] - 1 if verdict.missing else verdict.after, verdict.epoch)


def check_traces(files: Iterable[Path]) -> TraceResult:
    """Compare the traces of one server's processes with the model.

    A last line that is cut is left out. Raises BadTrace, OSError.
    """
    traces = {file: list(_lines(file)) for file in files}
    history, done = _History(), list[_Process]()
    notes = [line["reason"] for lines in traces.values() for _, line in lines if line["kind"] == "stopped"]
    owned = {file: _History() for file in traces}

    def result(breach: TraceBreach | None) -> TraceResult:
        pushes, clients = sum(each.pushes for each in done), sum(each.count for each in done)
        return TraceResult(sum(map(len, traces.values())), pushes, clients, breach, "".join(notes[:1]))

    for file, lines in traces.items():
        for take in (history.take, owned[file].take):
            if found := _first_breach(file, lines, take):
                return result(found)
        owned[file].sort()
    history.sort()
    for file, lines in traces.items():
        done.append(_Process(history, owned[file]))
        if found := _first_breach(file, lines, done[-1].take):
            return result(found)
    return result(None)


def _first_breach(file: Path, lines: list[tuple[int, Line]], take: Callable[[Line], None]) -> TraceBreach | None:
    for number, line in lines:
        try:
            take(line)
        except Breach as error:
            return TraceBreach(str(file), number, str(error))
    return None


def _lines(file: Path) -> Iterator[tuple[int, Line]]:
    with file.open("rb") as opened:
        for number, raw in enumerate(opened, 1):
            if raw.endswith(b"\n"):
                yield number, _line(file, number, raw)


def _line(file: Path, number: int, raw: bytes) -> Line:
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(raw)
        if isinstance(found, dict) and "kind" in found:
            return found
    raise BadTrace(f"{file}:{number}: not a line of a trace; give files that a server wrote to OUTFEED_TRACE_FILE")
