"""A simulated engine, and what the uplink keeps in the database beside it.

tests/simulation/test_engine.py holds it to the contract of a real one. Each script is one step of this engine, and a
failure is a step too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from outfeed.edge import scripts
from outfeed.edge.engine import BLOCK_SECS
from outfeed.edge.owner import Ownership
from outfeed.edge.scripts import Script
from outfeed.edge.store import EVENT_OVERHEAD_BYTES, Facts
from outfeed.errors import EngineDown, EngineFull
from tests.simulation.actors import Actors
from tests.simulation.history import Disk

# The replica gets the content before about one in so many appends.
REPLICA_LAG = 3
# Entries of one node of a stream. `stream-node-max-entries` of Redis.
NODE_EVENTS = 4
T = TypeVar("T")


class Entry(NamedTuple):
    """One event of a stream."""

    body: bytes
    written_at: str
    checksum: str


@dataclass
class Stream:
    """The entries by seq, and the nodes that they stand in.

    A node has all seqs that were added to it, and it is gone when it has no entry any more.
    """

    position: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    nodes: list[list[int]] = field(default_factory=list)

    def copy(self) -> Stream:
        """Return a stream with the same content."""
        return Stream(self.position, dict(self.entries), [list(node) for node in self.nodes])

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(len(entry.body) + EVENT_OVERHEAD_BYTES for entry in self.entries.values())

    def add(self, seq: int, entry: Entry) -> None:
        """Add an entry above the position."""
        if not self.nodes or len(self.nodes[-1]) >= NODE_EVENTS:
            self.nodes.append([])
        self.nodes[-1].append(seq)
        self.entries[seq] = entry
        self.position = seq

    def remove(self, seqs: Iterable[int]) -> None:
        """Remove the entries with these seqs."""
        gone = [self.entries.pop(seq, None) for seq in seqs]
        if any(gone):
            self.nodes = [node for node in self.nodes if not self.entries.keys().isdisjoint(node)]

    def trim(self, most: int) -> None:
        """Remove the oldest nodes as long as *most* entries are left."""
        while self.nodes:
            oldest = [seq for seq in self.nodes[0] if seq in self.entries]
            if len(self.entries) - len(oldest) < most:
                return
            self.remove(oldest)


class SimulatedEngine:
    """An engine with a replica that lags.

    Before and after each call is a seam. `is_down`: no call succeeds. `drops`: of so many calls the reply is lost. The
    engine has no memory left while the stream uses more than `max_bytes`. `was_full`: so it was once.
    """

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._head: dict[str, Any] = {}
        self._stream: Stream | None = None
        self._replica: tuple[dict[str, Any], Stream | None] = {}, None
        self.is_down = False
        self.drops = 0
        self.max_bytes = math.inf
        self.was_full = False
        self._scripts = {
            scripts.CLAIM.digest: self._claim, scripts.BEGIN.digest: self._begin, scripts.APPEND.digest: self._append,
            scripts.ERASE.digest: self._erase, scripts.READ.digest: self._read,
        }  # fmt: skip

    # --- steps --------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Lose everything, as an engine without persistence."""
        self._head, self._stream = {}, None

    def evict(self) -> None:
        """Lose the stream and keep the head."""
        self._stream = None

    def replicate(self) -> None:
        """Bring the replica up to date."""
        self._replica = dict(self._head), self._stream and self._stream.copy()

    def fail_over(self) -> None:
        """Promote the replica, which lacks the newest changes."""
        self._head, self._stream = self._replica
        self.replicate()

    # --- content ------------------------------------------------------------------------------------------------------

    @property
    def head(self) -> dict[str, str]:
        """The fields of the head without its times."""
        return {name: str(value) for name, value in self._head.items() if name not in ("until", "appended_at")}

    @property
    def stream(self) -> Stream | None:
        """The stream, if there is one."""
        return self._stream

    @property
    def used_bytes(self) -> int:
        """The memory that the stream uses."""
        return self._stream.size if self._stream else 0

    # --- calls --------------------------------------------------------------------------------------------------------

    def run(self, script: Script, _: object, arguments: list[Any]) -> Any:
        return self._answer(lambda: self._scripts[script.digest](*arguments))

    def call(self, command: Callable[[Any], T]) -> T:
        client = SimpleNamespace(
            xlen=lambda _: len(self._stream.entries) if self._stream else 0, memory_usage=lambda _: self.used_bytes
        )
        return self._answer(lambda: command(client))

    def wait_for_entry(self, after: int) -> bool:
        self._require_up()
        self._actors.wait(lambda: self.is_down or self._has_entry(after), BLOCK_SECS)
        self._require_up()
        return self._has_entry(after)

    def _has_entry(self, after: int) -> bool:
        return bool(self._stream) and max(self._stream.entries, default=0) > after

    def _answer(self, call: Callable[[], T]) -> T:
        self._require_up()
        reply = call()
        if self.drops:
            self.drops -= 1
            raise EngineDown("the reply is lost")
        self._actors.seam()
        return reply

    def _require_up(self) -> None:
        self._actors.seam()
        if self.is_down:
            raise EngineDown("the engine is down")

    # --- scripts ------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> int:
        return int(self._actors.now * 1000)

    def _claim(self, origin: str, owner: str, ms: int) -> list[Any]:
        head, stream = self._head, self._stream
        held, ends = head.get("owner"), head.get("until", 0)
        if held and held != owner and held.partition(".")[0] != origin and ends > self._now:
            return [b"owned", held.encode(), ends, head.get("epoch", "").encode()]
        head |= {"owner": owner, "until": self._now + ms}
        if "epoch" not in head or stream is None:
            return [b"empty"]
        seq = max(stream.entries, default=0)
        checksum = stream.entries[seq].checksum if seq else ""
        texts = [str(head["target"]), str(seq), checksum, head["rules"], str(head["erasures"])]
        return [b"mine", head["epoch"].encode(), stream.position, *(text.encode() for text in texts)]

    def _begin(self, owner: str, epoch: str, seq: int, target: int, rules: str, erasures: str) -> int:
        if self._head.get("owner") != owner:
            return 0
        self._stream = Stream(seq)
        self._head |= {
            "epoch": epoch, "target": target, "rules": rules, "erasures": erasures, "appended_at": self._now,
        }  # fmt: skip
        return 1

    def _refusal(self, owner: str, epoch: str) -> list[Any] | None:
        if self._head.get("owner") != owner:
            return [b"fenced", self._head.get("owner", "").encode()]
        return [b"lost"] if self._head.get("epoch") != epoch or self._stream is None else None

    def _append(
        self, owner: str, epoch: str, before: int, after: int, most: int, first: int, ms: int, shortages: int,
        *parts: Any,
    ) -> list[Any]:  # fmt: skip
        if refusal := self._refusal(owner, epoch):
            return refusal
        stream = self._stream
        assert stream is not None
        if stream.position != before:
            return [b"at", stream.position]
        if parts and self.used_bytes > self.max_bytes:
            self.was_full = True
            raise EngineFull("the engine has no memory left")
        if parts and before % REPLICA_LAG == 0:
            self.replicate()
        for at in range(0, len(parts), 4):
            stream.add(parts[at], Entry(*parts[at + 1 : at + 4]))
        stream.trim(most)
        stream.remove([seq for seq in stream.entries if seq < first])
        stream.position = max(stream.position, after)
        self._head |= {"until": self._now + ms, "appended_at": self._now}
        if shortages:
            self._head["shortages"] = self._head.get("shortages", 0) + shortages
        return [b"ok"]

    def _erase(self, owner: str, epoch: str, erasures: str, *seqs: int) -> list[Any]:
        if refusal := self._refusal(owner, epoch):
            return refusal
        assert self._stream is not None
        self._stream.remove(seqs)
        self._head["erasures"] = erasures
        return [b"ok"]

    def _read(self, direction: str, seq: int, limit: int, max_bytes: int) -> list[Any]:
        head, stream = self._head, self._stream
        if "epoch" not in head or stream is None:
            return []
        is_forward = direction == "after"
        found = sorted(each for each in stream.entries if (each > seq if is_forward else each < seq))
        chosen, room = list[int](), max_bytes
        for each in (found if is_forward else found[::-1])[:limit]:
            if room < 0:
                break
            chosen.append(each)
            room -= len(stream.entries[each].body)
        has_more = room < 0 or 0 < limit == len(chosen)
        entries = [stream.entries[each] for each in chosen]
        texts = [head["epoch"], str(head["target"]), head["rules"], str(head["erasures"]), "", ""]
        written = min((entry.written_at for entry in entries if entry.written_at), default="")
        sizes = [len(entry.body) for entry in entries]
        joined = [",".join(map(str, numbers)).encode() for numbers in (chosen, sizes)]
        return [
            *(text.encode() for text in texts), min(stream.entries, default=stream.position + 1), stream.position,
            self._now - head["appended_at"], int(has_more), written.encode(), *joined,
            b"".join(entry.body for entry in entries),
        ]  # fmt: skip


class SimulatedStore:
    """The queries of `outfeed.edge.store`, on a simulated file."""

    @staticmethod
    def read_facts(disk: Disk, after: int, through: int) -> Facts:
        rows = {each.seq: (_checksum(each.id), "") for each in disk.items if after < each.seq <= through}
        return Facts(disk.window(), disk.erasures, rows)

    @classmethod
    def checksum_of(cls, disk: Disk, seq: int) -> str | None:
        found = cls.read_facts(disk, seq - 1, seq).rows.get(seq)
        return found[0] if found else None

    @staticmethod
    def published_epoch(disk: Disk) -> str:
        return disk.published

    @staticmethod
    def note_published(disk: Disk, epoch: str) -> None:
        disk.published = epoch

    @staticmethod
    def start_of_newest(_: Disk, head: int, events: int, __: int) -> int:
        return max(0, head - events)

    @staticmethod
    def missing_between(disk: Disk, first: int, last: int, limit: int) -> list[int]:
        seqs = {each.seq for each in disk.items}
        return [seq for seq in range(first, last + 1) if seq not in seqs][:limit]


def _checksum(event_id: object) -> str:
    return f"c-{event_id}"


class SimulatedOwnerFile:
    """The owner file of a simulated database. A copied file has none."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def load(self) -> Ownership:
        return self._disk.owners.get(self._disk.inode, Ownership(f"origin-{self._disk.inode}"))

    def save(self, ownership: Ownership) -> Ownership:
        self._disk.owners[self._disk.inode] = ownership._replace(is_since_boot=True)
        return self._disk.owners[self._disk.inode]


class SimulatedLease:
    """The lock files of one host. The end of a process releases its locks."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    @staticmethod
    def lock_file(_: Disk, name: str) -> str:
        return name

    @contextmanager
    def hold(self, file: str, *, wait: bool) -> Iterator[bool]:
        assert not wait
        is_free = file not in self._held
        self._held.add(file)
        try:
            yield is_free
        finally:
            if is_free:
                self._held.discard(file)
