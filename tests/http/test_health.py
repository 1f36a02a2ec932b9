"""Health: ready while polls are current and the triggers are ours; otherwise not, with the reasons, until mended."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from outfeed.http.services import Services
from outfeed.store.database import Database
from outfeed.store.triggers import TriggerGuard
from tests.waits import wait_until


@pytest.fixture
def stranger(flask_app: Flask) -> FlaskClient:
    return flask_app.test_client(use_cookies=False)


@pytest.fixture
def unmended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing puts a trigger back: ask for it before the services that would."""
    monkeypatch.setattr(TriggerGuard, "check", lambda reconciler: None)


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def unready_because(stranger: FlaskClient) -> list[str]:
    """Return the problems of a server that isn't ready; empty when it is."""
    answer = stranger.get("/readyz")
    body: Any = answer.get_json()
    assert answer.status_code == (503 if body["problems"] else 200)
    assert body["status"] == ("unready" if body["problems"] else "ready")
    problems: list[str] = body["problems"]
    return problems


def test_it_is_alive_before_it_is_ready(stranger: FlaskClient) -> None:
    assert (stranger.get("/healthz").status_code, stranger.get("/healthz").get_json()) == (200, {"status": "alive"})
    assert unready_because(stranger) == ["the last completed poll is inf s old"]


def test_it_is_ready_for_anyone_who_asks_once_it_polls(stranger: FlaskClient, services: Services) -> None:
    wait_until(lambda: not unready_because(stranger), "ready")


@pytest.mark.parametrize("name", ["event_log_outbox", "event_log_guard_insert", "event_log_guard_update"])
def test_a_trigger_that_is_dropped_or_altered_makes_it_unready_until_it_is_back(
    unmended: None, stranger: FlaskClient, services: Services, raw: sqlite3.Connection, name: str
) -> None:
    wait_until(lambda: not unready_because(stranger), "ready")
    (sql,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    raw.execute(f"DROP TRIGGER {name}")
    assert f"trigger {name} is missing" in unready_because(stranger)
    raw.execute(f"CREATE TRIGGER {name} AFTER INSERT ON event_log BEGIN SELECT 1; END")
    assert f"trigger {name} is altered" in unready_because(stranger)
    raw.execute(f"DROP TRIGGER {name}")
    raw.execute(sql)
    wait_until(lambda: not unready_because(stranger), "ready again")


def test_a_database_that_is_gone_makes_it_unready_until_it_is_back(
    stranger: FlaskClient, services: Services, database: Database
) -> None:
    wait_until(lambda: not unready_because(stranger), "ready")
    away = database.path.with_name("away.db")
    database.path.rename(away)
    wait_until(lambda: any("no database at" in problem for problem in unready_because(stranger)), "unready")
    wait_until(lambda: any("the last poll failed" in problem for problem in unready_because(stranger)), "it says why")
    assert not any(str(database.path.parent) in problem for problem in unready_because(stranger))
    assert stranger.get("/healthz").status_code == 200
    away.rename(database.path)
    wait_until(lambda: not unready_because(stranger), "ready again")


def test_polls_that_no_longer_complete_make_it_unready(stranger: FlaskClient, services: Services) -> None:
    wait_until(lambda: not unready_because(stranger), "ready")
    with services.relay._working:  # as a poll that hangs holds it
        wait_until(
            lambda: any("the last completed poll" in problem for problem in unready_because(stranger)), "unready"
        )
    wait_until(lambda: not unready_because(stranger), "ready again")


def test_a_table_that_was_dropped_makes_it_unready(
    stranger: FlaskClient, services: Services, raw: sqlite3.Connection
) -> None:
    wait_until(lambda: not unready_because(stranger), "ready")
    raw.execute("DROP TABLE outbox")
    wait_until(lambda: any("no such table" in problem for problem in unready_because(stranger)), "unready")


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/", "/healthz//", "/readyz/x", "/healthz?x=1"])
@pytest.mark.parametrize("accept", ["text/html,*/*;q=0.8", "*/*"])
def test_a_monitor_that_follows_redirects_is_never_led_to_the_sign_in(
    stranger: FlaskClient, path: str, accept: str
) -> None:
    answer = stranger.get(path, headers={"Accept": accept})
    assert answer.status_code in ((200,) if path in ("/healthz/", "/healthz?x=1") else (401, 503))
