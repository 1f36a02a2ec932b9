"""A serving process tells its clients that a display has changed."""

from __future__ import annotations

import threading

from flask import Flask

from outfeed.access.store import account
from outfeed.display import Display
from outfeed.http.services import Services
from outfeed.store import displays
from outfeed.store.database import Database
from outfeed.store.displays import MadeBy
from tests.waits import wait_until


def put(database: Database, name: str) -> None:
    with database.transaction() as connection:
        displays.put(connection, {name: Display("⚡")}, MadeBy.COMMAND)


def test_a_page_of_the_feed_has_the_number_and_a_long_poll_ends_with_a_change(
    flask_app: Flask, services: Services, database: Database
) -> None:
    headers = {"Authorization": f"Bearer {account.create_token(database, 'reader', ['read'])}"}
    client = flask_app.test_client()
    before = client.get("/api/feed", headers=headers).json
    assert "types" not in before

    answers = []
    poll = f"/api/feed?after={before['cursor']}&epoch={before['epoch']}&wait=60"
    waiting = threading.Thread(target=lambda: answers.append(client.get(poll, headers=headers).json))
    waiting.start()
    wait_until(lambda: services.core.waiters.polls, "the poll waits")
    put(database, "a.b")
    waiting.join(timeout=30)
    assert [(answer["types"], answer["events"]) for answer in answers] == [(1, [])]


def test_the_number_that_was_reached_before_the_start_is_no_change(flask_app: Flask, database: Database) -> None:
    put(database, "a.b")
    found: Services = flask_app.extensions["outfeed"]
    found.start()
    try:
        assert found.hub.counters.types == 1
        put(database, "a.c")
        wait_until(lambda: found.hub.counters.types == 2, "the change is seen")
    finally:
        found.stop()
