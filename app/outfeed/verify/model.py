"""Model of one client's connection, as docs/protocol.md specifies it.

It is independent of transports and of the server. Every breach names the sentence of the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple


class Breach(Exception):
    """The server has broken *sentence* of the specification."""

    def __init__(self, sentence: str, what: str) -> None:
        super().__init__(f"{sentence}: {what}")
        self.sentence = sentence


class StartAt(NamedTuple):
    """The position that a subscription asks for. None asks for no position."""

    after: int | None = None
    epoch: str | None = None


class ToldVerdict(NamedTuple):
    """The first answer to a subscription.

    *after* is None on a transport without that field.
    """

    kind: str
    epoch: str
    after: int | None
    head: int
    missing: tuple[int, int] | None = None


# Returns the matching events that are known to exist in an epoch, after one seq and up to another.
Known = Callable[[str, int, int], Collection[int]]


class Model:
    """The state of one client, and the messages that it may receive next.

    Each method raises Breach. *known* provides events that a complete feed must contain. With *is_copy* the server may
    be behind the cursors that it receives.
    """

    def __init__(self, start: StartAt, known: Known, *, is_copy: bool = False) -> None:
        self.start = start
        self.cursor = 0
        self.epoch = ""
        self.verdict: str | None = None
        self.seqs: list[int] = []
        self._known = known
        self._is_copy = is_copy

    def take_verdict(self, verdict: ToldVerdict, cursor: int) -> None:
        """Accept the first answer, after which the client is at *cursor*."""
        after, epoch = self.start
        is_foreign = bool(after) and (verdict.epoch != epoch or ((after or 0) > verdict.head and not self._is_copy))
        allowed = {"live"} if after is None else {"reset"} if is_foreign else {"resumed", "gap"}
        if verdict.kind not in allowed:
            sentence = "V2" if after is None else "V3" if is_foreign else "V9" if verdict.kind == "reset" else "V5"
            raise Breach(sentence, f"the verdict on {self.start} is {verdict.kind} at head {verdict.head}")
        if verdict.kind == "resumed" and verdict.after not in (None, after):
            raise Breach("V8", f"resumed after {verdict.after}, not after {after}")
        if verdict.kind == "gap":
            self._take_gap(verdict, after or 0)
        self.verdict, self.epoch, self.cursor = verdict.kind, verdict.epoch, cursor

    def _take_gap(self, verdict: ToldVerdict, after: int) -> None:
        first, last = verdict.missing or (0, 0)
        if first != after + 1 or last < first or verdict.after not in (None, last):
            raise Breach("V4", f"a gap of {verdict.missing} does not begin after {after}")

    def take_events(self, seqs: Sequence[int], prev: int | None = None) -> None:
        """Accept events. *prev* is the message's, if it has one."""
        if self.verdict is None:
            raise Breach("V1", f"event {seqs[:1]} came before the verdict")
        if prev is not None and prev > self.cursor:
            raise Breach("E2", f"prev is {prev}, but the client was told {self.cursor}")
        if prev is not None and prev < self.cursor:
            self._require_none_missing(prev, seqs[0] - 1, "E2", f"between prev {prev} and event {seqs[0]}")
        for seq in seqs:
            if seq <= self.cursor:
                raise Breach("E1", f"event {seq} came after {self.cursor}")
            self._require_none_missing(self.cursor, seq - 1, "E1", f"before event {seq}")
            self.seqs.append(seq)
            self.cursor = seq

    def take_cursor(self, cursor: int) -> None:
        """Accept the position of a heartbeat or a page."""
        if self.verdict is None:
            raise Breach("V1", f"the cursor {cursor} came before the verdict")
        if cursor < self.cursor:
            raise Breach("E4", f"the cursor moved from {self.cursor} back to {cursor}")
        self._require_none_missing(self.cursor, cursor, "E4", f"up to the cursor {cursor}")
        self.cursor = cursor

    def _require_none_missing(self, after: int, up_to: int, sentence: str, place: str) -> None:
        missing = self._known(self.epoch, after, up_to)
        if missing:
            raise Breach(sentence, f"events {sorted(missing)[:5]} are missing {place}")
