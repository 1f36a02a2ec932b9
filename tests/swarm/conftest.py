"""A coordinator over a database of its own, on a clock that stands still until a test moves it."""

import shutil
from datetime import timedelta

import freezegun
import pytest

from app.store import database as db
from app.store import migrate
from app.swarm.coordinator import Coordinator

AUCTION_SECS = 15
TIMEOUT_SECS = 120


@pytest.fixture(scope="session")
def upgraded(tmp_path_factory):
    path = tmp_path_factory.mktemp("upgraded") / "outfeed.db"
    migrate.upgrade(path)
    return path


@pytest.fixture
def database(upgraded, tmp_path):
    """An upgraded database: a copy, since most tests here take less time than an upgrade."""
    path = tmp_path / "outfeed.db"
    shutil.copy(upgraded, path)
    yield db.at(path)
    db.at(path).close()


class Wall:
    """The wall clock of a test."""

    def __init__(self, frozen):
        self._frozen = frozen

    def pass_secs(self, secs):
        self._frozen.tick(timedelta(seconds=secs))


@pytest.fixture
def wall():
    with freezegun.freeze_time("2026-03-01T12:00:00Z") as frozen:
        yield Wall(frozen)


@pytest.fixture
def coordinator(database, wall):
    return Coordinator(database, auction_secs=AUCTION_SECS, agent_timeout_secs=TIMEOUT_SECS)
