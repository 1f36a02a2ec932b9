"""A simulated engine, and what the uplink keeps in the database beside it.

tests/edge/test_scripts.py describes the scripts. Each is one step of this engine, and a failure is a step too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from outfeed.edge import scripts
from outfeed.edge.owner import Ownership
from outfeed.edge.scripts import Script
from outfeed.edge.store import Facts
from outfeed.errors import EngineDown
from tests.simulation.actors import Actors
from tests.simulation.history import Disk

# The replica gets the content before about one in so many appends.
REPLICA_LAG = 3


@dataclass
class State:
    """The content of one engine.

    *entries* is None without a stream.
    """

    head: dict[str, Any] = field(default_factory=dict)
    entries: dict[int, tuple[bytes, str, str]] | None = None
    position: int = 0


class SimulatedEngine:
    """An engine with a replica that lags.

    Before and after each call is a seam. `is_down`: no call succeeds. `drops`: of so many calls the reply is lost.
    `on_append` is called after each append.
    """

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._state = State()
        self._replica = State()
        self.is_down = False
        self.drops = 0
        self.on_append: Callable[[], None] = lambda: None
        self._scripts = {
            scripts.CLAIM.digest: self._claim, scripts.BEGIN.digest: self._begin, scripts.APPEND.digest: self._append,
            scripts.ERASE.digest: self._erase, scripts.READ.digest: self._read,
        }  # fmt: skip

    # --- steps --------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Lose everything, as an engine without persistence."""
        self._state = State()

    def replicate(self) -> None:
        """Bring the replica up to date."""
        entries = self._state.entries
        self._replica = State(dict(self._state.head), None if entries is None else dict(entries), self._state.position)

    def fail_over(self) -> None:
        """Promote the replica, which lacks the newest changes."""
        self._state = self._replica
        self.replicate()

    # --- calls --------------------------------------------------------------------------------------------------------

    def run(self, script: Script, _: object, arguments: list[Any]) -> Any:
        self._actors.seam()
        if self.is_down:
            raise EngineDown("the engine is down")
        reply = self._scripts[script.digest](*arguments)
        if self.drops:
            self.drops -= 1
            raise EngineDown("the reply is lost")
        self._actors.seam()
        return reply

    @property
    def _now(self) -> int:
        return int(self._actors.now * 1000)

    def _claim(self, origin: str, owner: str, ms: int) -> list[Any]:
        head = self._state.head
        held, ends = head.get("owner"), head.get("until", 0)
        if held and held != owner and held.partition(".")[0] != origin and ends > self._now:
            return [b"owned", held.encode(), ends, head.get("epoch", "").encode()]
        head |= {"owner": owner, "until": self._now + ms}
        if "epoch" not in head or self._state.entries is None:
            return [b"empty"]
        seq = max(self._state.entries, default=0)
        checksum = self._state.entries[seq][2] if seq else ""
        texts = [head["epoch"], str(head["target"]), str(seq), checksum, head["rules"], head["erasures"]]
        epoch, *rest = (text.encode() for text in texts)
        return [b"mine", epoch, self._state.position, *rest]

    def _begin(self, owner: str, epoch: str, seq: int, target: int, rules: str, erasures: str) -> int:
        if self._state.head.get("owner") != owner:
            return 0
        self._state.entries, self._state.position = {}, seq
        self._state.head |= {"epoch": epoch, "target": target, "rules": rules, "erasures": erasures, "at": self._now}
        return 1

    def _append(
        self, owner: str, epoch: str, before: int, after: int, most: int, first: int, ms: int, _: int, *parts: Any
    ) -> list[Any]:
        head, entries = self._state.head, self._state.entries
        if head.get("owner") != owner:
            return [b"fenced", head.get("owner", "").encode()]
        if head.get("epoch") != epoch or entries is None:
            return [b"lost"]
        if self._state.position != before:
            return [b"at", self._state.position]
        if parts and before % REPLICA_LAG == 0:
            self.replicate()
        for at in range(0, len(parts), 4):
            seq, body, written_at, checksum = parts[at : at + 4]
            entries[seq] = (body, written_at, checksum)
        for seq in [seq for seq in entries if seq < first] + sorted(entries)[:-most]:
            entries.pop(seq, None)
        self._state.position = after
        head |= {"until": self._now + ms, "at": self._now}
        self.on_append()
        return [b"ok"]

    def _erase(self, owner: str, epoch: str, erasures: str, *seqs: int) -> list[Any]:
        head, entries = self._state.head, self._state.entries
        if head.get("owner") != owner:
            return [b"fenced", head.get("owner", "").encode()]
        if head.get("epoch") != epoch or entries is None:
            return [b"lost"]
        for seq in seqs:
            entries.pop(seq, None)
        head["erasures"] = erasures
        return [b"ok"]

    def _read(self, direction: str, seq: int, limit: int, _: int) -> list[Any]:
        head, entries = self._state.head, self._state.entries
        if "epoch" not in head or entries is None:
            return []
        found = sorted(each for each in entries if (each > seq if direction == "after" else each < seq))
        chosen = (found if direction == "after" else found[::-1])[:limit]
        bodies = [entries[each][0] for each in chosen]
        texts = [head["epoch"], str(head["target"]), head["rules"], head["erasures"], "", ""]
        joined = [",".join(map(str, chosen)).encode(), ",".join(str(len(each)) for each in bodies).encode()]
        return [
            *(text.encode() for text in texts), min(entries, default=self._state.position + 1), self._state.position,
            self._now - head["at"], int(bool(chosen) and len(chosen) == limit), b"", *joined, b"".join(bodies),
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
