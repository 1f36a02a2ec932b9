"""The contract of a source, held by three implementations.

They are the outbox, its copy in an engine, and the fake in memory.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Protocol

import pytest

from outfeed.edge.stream import EngineStream
from outfeed.feed.source import Source
from outfeed.feed.subscription import FeedRequest
from outfeed.history import Page, Window
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from tests.database_file import write_events
from tests.edge.origin_in_process import OriginInProcess
from tests.feed.fake_source import VIEWER, MemorySource


class World(Protocol):
    """A source, with writers and pruning from outside."""

    source: Source

    def write(self, count: int, event_type: str = "a.b") -> None: ...

    def remove(self, *seqs: int) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.source = MemorySource()

    def write(self, count: int, event_type: str = "a.b") -> None:
        self.source.add(count, event_type=event_type)

    def remove(self, *seqs: int) -> None:
        self.source.items = [each for each in self.source.items if each.seq not in seqs]


class OnDisk:
    def __init__(self, database: Database) -> None:
        self._path = database.path
        self.source = Outbox(database, 65_536)

    def write(self, count: int, event_type: str = "a.b") -> None:
        write_events(self._path, count, event_type=event_type)

    def remove(self, *seqs: int) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as raw, raw:
            raw.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])


class InEngine(OnDisk):
    """The copy of a database in an engine, brought up after each change."""

    def __init__(self, origin: OriginInProcess) -> None:
        super().__init__(origin.services.database)
        self._origin = origin
        self.source = EngineStream(origin.engine, "http://origin", origin.rules, lambda _: None)
        origin.bring_up()

    def write(self, count: int, event_type: str = "a.b") -> None:
        super().write(count, event_type)
        self._origin.bring_up()

    def remove(self, *seqs: int) -> None:
        super().remove(*seqs)
        self._origin.note_erasure()
        self._origin.bring_up()


WORLDS = {
    "in memory": lambda request: InMemory(),
    "on disk": lambda request: OnDisk(request.getfixturevalue("database")),
    "in an engine": lambda request: InEngine(request.getfixturevalue("origin_in_process")),
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param](request)


def seen(page: Page) -> tuple[list[int], int]:
    return [item.seq for item in page.items], page.through


def test_the_window_of_an_empty_source_begins_after_its_head(world: World) -> None:
    assert world.source.window()[1:3] == (1, 0)
    world.write(3)
    assert world.source.window()[1:3] == (1, 3)
    world.remove(1, 2)
    assert world.source.window()[1:3] == (3, 3)
    world.remove(3)
    assert world.source.window()[1:3] == (4, 3)
    world.write(1)
    assert world.source.window()[1:3] == (4, 4)


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (0, 100, ([1, 2, 5, 6, 7, 8], 10)),
        (1, 100, ([2, 5, 6, 7, 8], 10)),
        (1, 3, ([2, 5, 6], 6)),
        (1, 5, ([2, 5, 6, 7, 8], 8)),
        (2, 1, ([5], 5)),
        (3, 1, ([5], 5)),
        (8, 100, ([], 10)),
        (10, 100, ([], 10)),
        (50, 100, ([], 50)),
    ],
)
def test_a_page_has_the_following_events_and_reaches_the_head_if_it_has_all(
    world: World, after: int, limit: int, expected: tuple[list[int], int]
) -> None:
    world.write(10)
    world.remove(3, 4, 9, 10)
    assert seen(world.source.read_after(after, limit)) == expected


@pytest.mark.parametrize(
    ("before", "limit", "expected"),
    [
        (8, 3, ([7, 6, 5], 5)),
        (5, 100, ([2, 1], 0)),
        (1, 100, ([], 0)),
        (99, 1, ([8], 8)),
        (99, 6, ([8, 7, 6, 5, 2, 1], 1)),
        (99, 100, ([8, 7, 6, 5, 2, 1], 0)),
    ],
)
def test_a_page_backwards_has_the_events_before_newest_first(
    world: World, before: int, limit: int, expected: tuple[list[int], int]
) -> None:
    world.write(10)
    world.remove(3, 4, 9, 10)
    assert seen(world.source.read_before(before, limit)) == expected


@pytest.mark.parametrize("limit", [1, 2, 5, 7])
def test_pages_together_skip_nothing(world: World, limit: int) -> None:
    world.write(20)
    world.remove(8, 9, 20)
    cursor, found = 0, []
    while cursor < 20:
        page = world.source.read_after(cursor, limit)
        assert page.through > cursor
        found += [item.seq for item in page.items]
        cursor = page.through
    assert found == [seq for seq in range(1, 20) if seq not in (8, 9)]


def test_a_page_has_the_window_of_its_read(world: World) -> None:
    world.write(3)
    epoch = world.source.window().epoch
    for page in (world.source.read_after(0, 2), world.source.read_before(3, 2)):
        assert page.window[:3] == Window(epoch, 1, 3)[:3]


def test_the_epoch_is_renewed_once_by_many_callers(world: World) -> None:
    world.write(2)
    old = world.source.window().epoch
    world.source.renew_epoch(old)
    if world.source.window().is_copy:
        assert world.source.window().epoch == old, "the origin alone renews it"
        return
    new = world.source.window()
    assert new.epoch != old
    assert new[1:3] == (1, 2)
    world.source.renew_epoch(old)
    assert world.source.window() == new


@pytest.mark.parametrize(
    ("types", "limit", "after", "up_to", "expected"),
    [
        (("task.*",), 2, 0, 9, [9, 7]),
        (("task.*",), 9, 0, 9, [9, 7, 5, 3, 1]),
        (("task.*",), 9, 3, 7, [7, 5]),
        (("task.*",), 9, 9, 9, []),
        (("none.*",), 9, 0, 9, []),
        ((), 2, 0, 8, [8, 7]),
    ],
)
def test_the_newest_events_are_the_matching_ones_in_the_range(
    world: World, types: tuple[str, ...], limit: int, after: int, up_to: int, expected: list[int]
) -> None:
    for n in range(10):
        world.write(1, "agent.idle" if n % 2 else "task.created")
    wanted = FeedRequest(types=types).filter(VIEWER.visible)
    assert world.source.newest(wanted, limit, after=after, up_to=up_to) == expected
