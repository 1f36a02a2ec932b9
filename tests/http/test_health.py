"""Readiness: true while polls are current and the triggers are intact.

Otherwise the response has the reasons, until the repair.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
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
def anonymous(flask_app: Flask) -> FlaskClient:
    return flask_app.test_client(use_cookies=False)


@pytest.fixture
def no_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent the repair of triggers.

    Request this fixture before the services that repair them.
    """
    monkeypatch.setattr(TriggerGuard, "check", lambda guard: None)


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def reasons_of(anonymous: FlaskClient) -> list[str]:
    """Return the problems of an unready server, or none if it is ready."""
    answer = anonymous.get("/readyz")
    body: Any = answer.get_json()
    assert answer.status_code == (503 if body["problems"] else 200)
    assert body["status"] == ("unready" if body["problems"] else "ready")
    problems: list[str] = body["problems"]
    return problems


def test_the_server_is_alive_before_it_is_ready(anonymous: FlaskClient) -> None:
    assert (anonymous.get("/healthz").status_code, anonymous.get("/healthz").get_json()) == (200, {"status": "alive"})
    assert reasons_of(anonymous) == ["the last completed poll is inf s old"]


def test_readiness_is_public_and_true_once_the_server_polls(anonymous: FlaskClient, services: Services) -> None:
    wait_until(lambda: not reasons_of(anonymous), "ready")


@pytest.mark.parametrize("name", ["event_log_outbox", "event_log_guard_insert", "event_log_guard_update"])
def test_a_dropped_or_altered_trigger_makes_the_server_unready_until_its_repair(
    no_repair: None, anonymous: FlaskClient, services: Services, raw: sqlite3.Connection, name: str
) -> None:
    wait_until(lambda: not reasons_of(anonymous), "ready")
    (sql,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    raw.execute(f"DROP TRIGGER {name}")
    assert f"trigger {name} is missing" in reasons_of(anonymous)
    raw.execute(f"CREATE TRIGGER {name} AFTER INSERT ON event_log BEGIN SELECT 1; END")
    assert f"trigger {name} is altered" in reasons_of(anonymous)
    raw.execute(f"DROP TRIGGER {name}")
    raw.execute(sql)
    wait_until(lambda: not reasons_of(anonymous), "ready again")


def test_a_missing_database_makes_the_server_unready_until_it_is_restored(
    anonymous: FlaskClient, services: Services, database: Database
) -> None:
    wait_until(lambda: not reasons_of(anonymous), "ready")
    away = database.path.with_name("away.db")
    database.path.rename(away)
    wait_until(lambda: any("no database at" in problem for problem in reasons_of(anonymous)), "unready")
    wait_until(lambda: any("the last poll failed" in problem for problem in reasons_of(anonymous)), "the reason")
    assert not any(str(database.path.parent) in problem for problem in reasons_of(anonymous))
    assert anonymous.get("/healthz").status_code == 200
    away.rename(database.path)
    wait_until(lambda: not reasons_of(anonymous), "ready again")


def test_a_blocked_poll_makes_the_server_unready(
    anonymous: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: not reasons_of(anonymous), "ready")
    read, disk_answers = services.outbox.read_after, threading.Event()
    monkeypatch.setattr(services.outbox, "read_after", lambda *page: disk_answers.wait() and read(*page))
    try:
        wait_until(lambda: any("the last completed poll" in problem for problem in reasons_of(anonymous)), "unready")
    finally:
        disk_answers.set()
    wait_until(lambda: not reasons_of(anonymous), "ready again")


def test_a_dropped_table_makes_the_server_unready(
    anonymous: FlaskClient, services: Services, raw: sqlite3.Connection
) -> None:
    wait_until(lambda: not reasons_of(anonymous), "ready")
    raw.execute("DROP TABLE outbox")
    wait_until(lambda: any("no such table" in problem for problem in reasons_of(anonymous)), "unready")


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/", "/healthz//", "/readyz/x", "/healthz?x=1"])
@pytest.mark.parametrize("accept", ["text/html,*/*;q=0.8", "*/*"])
def test_no_health_check_redirects_to_the_sign_in(anonymous: FlaskClient, path: str, accept: str) -> None:
    answer = anonymous.get(path, headers={"Accept": accept})
    assert answer.status_code in ((200,) if path in ("/healthz/", "/healthz?x=1") else (401, 503))
