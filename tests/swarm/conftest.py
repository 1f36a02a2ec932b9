"""A coordinator with its own database and a clock that only tests move."""

from datetime import timedelta

import freezegun
import pytest

from outfeed.swarm.coordinator import Coordinator

AUCTION_SECS = 15
TIMEOUT_SECS = 120


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
