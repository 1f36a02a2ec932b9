"""Deadlines: a read ends at its time; a write is never interrupted.

A read also ends when its client has left.
"""

from __future__ import annotations

import pytest

from outfeed import clock
from outfeed.errors import QueryCancelled
from outfeed.store import deadline
from outfeed.store.database import Database

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
LONG = f"{ENDLESS.replace('FROM n)', 'FROM n LIMIT 100000)')}"


def test_a_read_ends_at_its_deadline_and_the_connection_stays_usable(database: Database) -> None:
    began = clock.monotonic()

    with deadline.limited(0.2), pytest.raises(QueryCancelled), database.connection() as connection:
        connection.execute(ENDLESS).fetchone()

    assert 0.2 <= clock.monotonic() - began < 5
    with database.connection() as connection:
        assert connection.execute(LONG).fetchone() == (100_000,)


def test_the_deadline_covers_all_reads_together(database: Database) -> None:
    def read_on() -> None:
        while True:
            with database.snapshot() as connection:
                connection.execute(LONG).fetchone()

    with deadline.limited(0.2), pytest.raises(QueryCancelled):
        read_on()


def test_a_read_ends_when_its_client_has_left(database: Database) -> None:
    looks = iter([True, True, False])

    with deadline.limited(60, lambda: next(looks)), pytest.raises(QueryCancelled), database.connection() as connection:
        connection.execute(ENDLESS).fetchone()


def test_a_write_and_an_unlimited_read_are_not_interrupted(database: Database) -> None:
    with deadline.limited(0):
        with database.transaction() as connection:
            assert connection.execute(LONG).fetchone() == (100_000,)
        with database.one_write() as connection:
            assert connection.execute(LONG).fetchone() == (100_000,)
        with deadline.unlimited(), database.connection() as connection:
            assert connection.execute(LONG).fetchone() == (100_000,)
        with pytest.raises(QueryCancelled), database.connection() as connection:
            connection.execute(LONG).fetchone()
