"""Trace: the decisions of one process's feed, as lines of a file.

`outfeed verify --trace` compares the file with the model of the protocol. docs/protocol.md describes the lines.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from outfeed.feed.client import ConnectedClient
from outfeed.feed.cohort import CohortBatch
from outfeed.feed.subscription import Filter, SubscribeRequest, Verdict
from outfeed.history import Item

# The file ends with a line that says so at MAX_BYTES, or if more than MAX_NOTES wait for the job that writes them.
MAX_BYTES = 512 * 2**20
MAX_NOTES = 200_000


class Push:
    """The batch of one cohort, and the members that did not get all of it.

    The relay's thread fills it in. The job writes it when `is_done` is set.
    """

    __slots__ = ("batch", "cut", "epoch", "is_done", "missed", "position")

    def __init__(self, batch: CohortBatch, epoch: str, position: int) -> None:
        self.batch = batch
        self.epoch = epoch
        self.position = position
        self.missed: set[ConnectedClient] = set()
        self.cut: dict[ConnectedClient, int] = {}
        self.is_done = False


class Trace:
    """Collects decisions in memory. A job writes them to a file.

    Any thread may note a decision. The notes on one client have the order of its messages: a batch is noted before it
    is written, and an answer before the client can join a cohort. After a kill, the notes of the last second are
    missing.

    `_writing` is held by the job. The file of a process is *path* with the process id at its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes: deque[Push | dict[str, Any]] = deque()
        self._writing = threading.Lock()
        self._clients: WeakKeyDictionary[ConnectedClient, int] = WeakKeyDictionary()
        self._count = 0
        self._descriptor: int | None = None
        self._written = 0
        self._end = ""  # why no more is written
        self._is_over = False

    # --- decisions ----------------------------------------------------------------------------------------------------

    def note(self, kind: str, **fields: Any) -> None:
        """Note a decision. `client` and items are translated by the job."""
        if len(self._notes) < MAX_NOTES:
            self._notes.append({"kind": kind, **fields})
        else:
            self._end = f"more than {MAX_NOTES:,} notes were waiting"

    def note_push(self, batch: CohortBatch, epoch: str, position: int) -> Push:
        """Note that *batch* is written to its members, and return the note."""
        push = Push(batch, epoch, position)
        if len(self._notes) < MAX_NOTES:
            self._notes.append(push)
        else:
            self._end = f"more than {MAX_NOTES:,} notes were waiting"
        return push

    def note_sent(self, client: ConnectedClient, epoch: str, prev: int, items: Sequence[Item]) -> None:
        """Note that *items* were written to one client."""
        self.note("send", client=client, epoch=epoch, prev=prev, seqs=items)

    def note_verdict(
        self, client: ConnectedClient, wanted: SubscribeRequest, filter_: Filter, verdict: Verdict
    ) -> None:
        """Note the first answer to a subscription."""
        visible = filter_.visible
        names = ("types", "source", "task_id", "agent_id")
        conditions = {name: getattr(filter_, name) for name in names if getattr(filter_, name)}
        scope = {"visible": visible.types} if visible.types else {}
        self.note(
            "verdict", client=client, start=[wanted.after, wanted.epoch], consumer=wanted.consumer, **verdict.as_dict(),
            filter={**conditions, **scope, "audit": visible.has_audit},
        )  # fmt: skip

    # --- the job ------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the notes that are complete."""
        with self._writing:
            if self._is_over:
                self._notes.clear()
                return
            lines = []
            while self._notes and not (isinstance(self._notes[0], Push) and not self._notes[0].is_done):
                lines.append(orjson.dumps(self._translated(self._notes.popleft())))
            self._append(b"".join(line + b"\n" for line in lines))
            if self._end:
                self._append(orjson.dumps({"kind": "stopped", "reason": self._end}) + b"\n")
                self._is_over = True

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            path = f"{self._path}.{os.getpid()}"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        while data:
            done = os.write(self._descriptor, data)
            self._written, data = self._written + done, data[done:]
        if self._written > MAX_BYTES:
            self._end = f"the file exceeds {MAX_BYTES:,} bytes"

    def close(self) -> None:
        """Write the last notes and close the file."""
        self.write()
        with self._writing:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _translated(self, note: Push | dict[str, Any]) -> dict[str, Any]:
        """Return *note* with numbers for clients and seqs for items."""
        if isinstance(note, Push):
            return self._translated_push(note)
        if "client" in note:
            note["client"] = self._number_of(note["client"])
        if "seqs" in note:
            note["seqs"] = [item.seq for item in note["seqs"]]
        if "events" in note:
            note["events"] = [
                [item.seq, item.id, item.event_type, item.source, item.task_id, item.agent_id]
                for item in note["events"]
            ]
        return note

    def _translated_push(self, push: Push) -> dict[str, Any]:
        batch = push.batch
        cut = [[self._number_of(client), seq] for client, seq in push.cut.items()]
        members = [member.client for member in batch.members]
        whole = [self._number_of(each) for each in members if each not in push.missed and each not in push.cut]
        if not batch.items:
            return {"kind": "cursor", "clients": whole, "epoch": push.epoch, "cursor": push.position}
        is_grouped = batch.cohort.subscription.batch  # then a piece has several events
        seqs = [item.seq for item in batch.items] if is_grouped else batch.batch.seqs
        fields = {"clients": whole, "epoch": push.epoch, "prev": batch.batch.prev, "seqs": seqs}
        return {"kind": "push", **fields, **({"cut": cut} if cut else {})}

    def _number_of(self, client: ConnectedClient) -> int:
        number = self._clients.get(client)
        if number is None:
            self._count += 1
            number = self._clients[client] = self._count
        return number
