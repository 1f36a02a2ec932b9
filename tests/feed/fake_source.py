"""Sources and checkpoints in memory, and a core over them.

Contract suites hold both to the real ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from typing import Any

from outfeed.errors import ForbiddenConsumer, InvalidRequest, Superseded, UnknownName
from outfeed.feed.core import Core
from outfeed.feed.subscription import Filter
from outfeed.history import Claim, Item, Page, Window
from outfeed.principal import Principal, Wanted


def item(seq: int, event_type: str = "a.b", source: str | None = "s", data: str = "") -> Item:
    """Return the item with that seq."""
    body = json.dumps({"id": f"id-{seq}", "event_type": event_type, "source": source, "data": data}).encode()
    return Item(seq, body, f"id-{seq}", event_type, source, None, None, None)


VIEWER = Principal("viewer", ("read",), "token:")


class MemorySource:
    """A source that holds its items in memory.

    A test can prune it, restore it and renew its epoch. With an *origin*, it is a copy.
    """

    def __init__(self, origin: str | None = None) -> None:
        self.origin = origin
        self.origin_age: float | None = None if origin is None else 0.0
        self.epoch = "epoch-1"
        self.items: list[Item] = []
        self.last_seq = 0
        self.reads = 0
        self._lock = threading.Lock()

    def add(self, count: int, **fields: Any) -> None:
        with self._lock:
            for _ in range(count):
                self.last_seq += 1
                self.items.append(item(self.last_seq, **fields))

    def prune(self, up_to: int) -> None:
        with self._lock:
            self.items = [each for each in self.items if each.seq > up_to]

    def window(self) -> Window:
        first = self.items[0].seq if self.items else self.last_seq + 1
        return Window(self.epoch, first, self.last_seq, self.origin)

    def read_after(self, seq: int, limit: int) -> Page:
        with self._lock:
            self.reads += 1
            found = [each for each in self.items if each.seq > seq]
            through = self.last_seq if len(found) < limit else found[limit - 1].seq
            return Page(self.window(), found[:limit], max(seq, through))

    def read_before(self, seq: int, limit: int) -> Page:
        with self._lock:
            found = [each for each in reversed(self.items) if each.seq < seq]
            return Page(self.window(), found[:limit], 0 if len(found) < limit else found[limit - 1].seq)

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        filter_ = Filter(wanted.visible, wanted.types, wanted.source, wanted.task_id, wanted.agent_id)
        with self._lock:
            found = [each.seq for each in filter_.matching(self.items) if after < each.seq <= up_to]
            return found[::-1][:limit]

    def renew_epoch(self, epoch: str) -> None:
        if self.epoch == epoch:
            self.epoch = f"{epoch}+"


class LockedSource(MemorySource):
    """A source in memory whose window is read atomically as well."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # type: ignore[assignment]

    def window(self) -> Window:
        with self._lock:
            return super().window()


class MemoryCheckpoints:
    """Checkpoints in memory.

    tests/store/test_checkpoint.py holds them to the contract of the real ones.
    """

    def __init__(self, source: MemorySource) -> None:
        self._source = source
        self.claims: dict[str, Claim] = {}
        self._owners: dict[str, str] = {}

    def claim(self, name: str, by: Principal, *, may_create: bool = True) -> Claim:
        if name not in self.claims and not may_create:
            raise UnknownName(name)
        window = self._source.window()
        found = self.claims.get(name, Claim(name, window.epoch, window.last_seq, 0))
        self._check(name, by)
        self._owners.setdefault(name, by.owner)
        self.claims[name] = found._replace(generation=found.generation + 1)
        return self.claims[name]

    def move(self, name: str, epoch: str, seq: int, by: Principal, generation: int | None = None) -> None:
        found = self.claims.get(name)
        if found is None or generation not in (None, found.generation):
            raise Superseded(name)
        self._check(name, by)
        if epoch != self._source.epoch or seq > self._source.last_seq:
            raise InvalidRequest("ack_beyond", name)
        self.claims[name] = found._replace(epoch=epoch, seq=max(seq, found.seq))

    def generations(self, names: Collection[str]) -> dict[str, int]:
        return {name: claim.generation for name, claim in self.claims.items() if name in names}

    def _check(self, name: str, by: Principal) -> None:
        if by.has_ticket or not (by.is_operator or self._owners.get(name, by.owner) == by.owner):
            raise ForbiddenConsumer(name)


def core_of(source: MemorySource, heartbeat_secs: float = 3600) -> Core:
    """Return a core on *source* with consumers in memory, without a mark."""
    return Core(source, MemoryCheckpoints(source), lambda *_: None, heartbeat_secs=heartbeat_secs)
