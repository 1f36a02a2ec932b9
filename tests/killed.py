"""Processes that are killed at a given SQL statement."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outfeed.store.database import Database

Act = Callable[[Database], None]


def killed_at(number: int, act: Act, path: Path) -> bool:
    """Run *act* in a process that is killed before its statement *number*.

    Returns False if the process ended before.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _act_until(number, act, path)
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def _act_until(number: int, act: Act, path: Path) -> None:
    left, last = number, ""

    def count(statement: str) -> None:
        nonlocal left, last
        if statement == last or statement.startswith("--"):  # SQLite reports a statement again for each trigger
            return
        last = statement
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    database = Database(path)
    with database.connection() as connection:  # `act` gets the same one
        connection.set_trace_callback(count)
    act(database)


def kill_at_statement(last: int) -> Callable[[], int]:
    """Kill this process at statement number *last* of all new connections.

    Returns a function that returns the number of statements so far.
    """
    statements = 0

    def count(_: str) -> None:
        nonlocal statements
        statements += 1
        if statements == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    connect = sqlite3.connect
    sqlite3.connect = watched  # type: ignore[assignment]
    return lambda: statements
