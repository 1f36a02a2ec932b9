"""Erasure: deletes an event everywhere; the swarm continues without it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from freezegun import freeze_time

from outfeed import clock, log_event
from outfeed.log.store.reading import list_events
from outfeed.store.database import Database
from outfeed.swarm.coordinator import Coordinator
from outfeed.swarm.store.swarm import read_transaction
from outfeed.upkeep.erasure import erase
from tests.waits import wait_until

AUCTION_SECS = 15
SECRET = "never to be seen"


class ImmediateCoordinator(Coordinator):
    """A coordinator whose auctions end as soon as they may."""

    def close_auction(self, task_id: str) -> bool:
        with freeze_time(clock.now() + timedelta(seconds=AUCTION_SECS)):
            return super().close_auction(task_id)


@pytest.fixture
def coordinator(database: Database) -> Coordinator:
    return ImmediateCoordinator(database, auction_secs=AUCTION_SECS, agent_timeout_secs=60)


def erase_all(database: Database, event_type: str) -> None:
    found = list_events(event_type=event_type)
    assert found
    for event in found:
        assert erase(database, event.id)


def run(database: Database, *statements: str) -> None:
    with closing(sqlite3.connect(database.path)) as raw, raw:
        for statement in statements:
            raw.execute(statement)


def started(coordinator: Coordinator, description: str = "Write the docs", name: str = "Forge") -> tuple[str, str]:
    """Return the ids of a started task and its agent."""
    agent, task = coordinator.join(name), coordinator.post(description)
    coordinator.bid(task.id, agent.id, 5)
    coordinator.close_auction(task.id)
    coordinator.start(task.id)
    return task.id, agent.id


Story = Callable[[Coordinator], None]


def ended(**result: Any) -> Story:
    def play(coordinator: Coordinator) -> None:
        coordinator.complete(*started(coordinator), **result)

    return play


def failed(coordinator: Coordinator) -> None:
    coordinator.fail(*started(coordinator), SECRET)


STORIES: dict[str, tuple[Story, tuple[str, ...]]] = {
    "a description": (lambda coordinator: coordinator.post(SECRET) and None, ("task.created", "task.bidding")),
    "a name": (lambda coordinator: coordinator.join(SECRET) and None, ("agent.joined",)),
    "a result": (ended(result={"found": [SECRET, 1.5]}), ("task.completed",)),
    "a reason": (failed, ("task.failed",)),
}


def test_an_event_that_is_erased_while_a_server_starts_is_not_kept(
    flask_app: Flask, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = flask_app.extensions["outfeed"]
    event = log_event("a.b", "s", data=SECRET)
    begin = services.relay.start

    def begin_and_erase() -> None:
        begin()
        assert erase(database, event.id)

    monkeypatch.setattr(services.relay, "start", begin_and_erase)
    services.start()
    try:
        wait_until(lambda: services.core.pages.erasures, "the erasure is noticed")
        assert services.core.cohorts.tail_after(0, services.hub.epoch) is None
    finally:
        services.stop()


@pytest.mark.parametrize("is_logged", [True, False], ids=["logged", "pruned in the log"])
@pytest.mark.parametrize("story", STORIES)
def test_an_erased_text_is_gone_from_the_swarm_and_the_files(
    database: Database, coordinator: Coordinator, story: str, is_logged: bool
) -> None:
    play, event_types = STORIES[story]
    play(coordinator)
    ids = [event.id for event_type in event_types for event in list_events(event_type=event_type)]
    assert len(ids) == len(event_types)
    if not is_logged:
        run(database, "PRAGMA secure_delete = ON", "DELETE FROM event_log")
    assert all(erase(database, event_id) for event_id in ids)
    with read_transaction(database) as view:
        shown = str([view.agents(), view.tasks()])
    assert SECRET not in shown
    assert "[redacted]" in shown
    database.close()
    assert not any(SECRET.encode() in file.read_bytes() for file in database.path.parent.glob("outfeed.db*"))


def test_a_task_continues_without_its_description(database: Database, coordinator: Coordinator) -> None:
    task_id, agent_id = started(coordinator, description=SECRET)
    erase_all(database, "task.created")
    task = coordinator.complete(task_id, agent_id, "done")
    assert (task.description, task.result) == ("[redacted]", "done")


def test_an_invalid_result_of_a_raw_writer_does_not_stop_an_erasure(
    database: Database, coordinator: Coordinator
) -> None:
    ended(result=SECRET)(coordinator)
    run(database, "UPDATE outfeed_task SET result = '{'")
    erase_all(database, "task.completed")
    assert list_events(event_type="task.completed") == []


@pytest.mark.parametrize("data", [None, [], "x", {}, {"description": "another"}, {"description": {"a": 1}}])
def test_an_event_of_another_writer_erases_no_row(database: Database, coordinator: Coordinator, data: Any) -> None:
    task = coordinator.post("Write the docs")
    log_event("task.created", "coordinator", task_id=task.id, data=data, id="another")
    log_event("task.created", "a script", task_id=task.id, data={"description": "Write the docs"}, id="foreign")
    log_event("task.created", "coordinator", task_id="unknown", data={"description": "Write the docs"}, id="lost")
    run(
        database,
        "INSERT INTO event_log VALUES ('raw', 'task.created', 'coordinator', x'ff', NULL, '{', 't')",
        "INSERT INTO outbox (event_id, payload) VALUES ('odd', '{'), ('blob', x'ff'), ('list', '[]'), ('null', NULL)",
        """INSERT INTO outbox (event_id, payload) VALUES ('types', '{"source": "coordinator", "event_type": []}')""",
    )
    for event_id in ("another", "foreign", "lost", "raw", "odd", "blob", "list", "types", "null"):
        assert erase(database, event_id)
    with read_transaction(database) as view:
        assert view.task(task.id).description == "Write the docs"


def test_no_writer_waits_for_a_reader_that_blocks_the_checkpoint(database: Database) -> None:
    event = log_event("a.b", "tests", data={"name": SECRET})
    with closing(sqlite3.connect(database.path)) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM event_log").fetchone()
        log_event("a.b", "tests")
        erasing = pool.submit(erase, database, event.id)
        waits = []
        while not erasing.done():
            with closing(sqlite3.connect(database.path, timeout=30)) as writer, writer:
                began = time.monotonic()
                writer.execute("BEGIN IMMEDIATE")
                waits.append(time.monotonic() - began)
        assert erasing.result()
    assert max(waits) < 5  # with SQLite's own wait it would be ten
