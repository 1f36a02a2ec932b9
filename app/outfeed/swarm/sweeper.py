"""The sweeper: what time brings to the swarm, closed by the scheduler, also what became due while nothing ran."""

from __future__ import annotations

import logging
from collections.abc import Callable

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.log_message import LogMessage
from outfeed.swarm.coordinator import Coordinator

# Wall time that has moved against monotonic time by this much was set.
STEP_SECS = 1.0
log = logging.getLogger(__name__)


class Sweeper:
    """Closes auctions that are over and lets silent agents go. Every worker may run one: each thing is closed once.

    Nobody is called overdue before this process has listened for as long as an agent may be silent: while the server
    was down, and across a step of the wall clock, they had no chance to beat. One thread at a time.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._listening_since = clock.monotonic()
        self._offset = _offset()

    def sweep(self) -> None:
        """Close what is due. Agents go first: the bids of who has left don't win. Never raises an OutfeedError."""
        self._mind_the_clock()
        if clock.monotonic() - self._listening_since >= self._coordinator.agent_timeout_secs:
            self._each(self._coordinator.overdue_agents, self._coordinator.expire)
        self._each(self._coordinator.due_auctions, self._coordinator.close_auction)

    def _mind_the_clock(self) -> None:
        before, self._offset = self._offset, _offset()
        if abs(self._offset - before) > STEP_SECS:
            log.warning(LogMessage("wall clock was set", secs=f"{self._offset - before:+.1f}"))
            self._listening_since = clock.monotonic()

    def _each(self, find: Callable[[], list[str]], close: Callable[[str], bool]) -> None:
        # The edge of the job: what can't be closed now must not keep the others from it, and is tried again.
        try:
            found = find()
        except OutfeedError as error:
            log.warning(LogMessage("nothing swept, trying again", error=error))
            return
        for one in found:
            try:
                close(one)
            except OutfeedError as error:
                log.warning(LogMessage("not closed, trying again", id=one, error=error))


def _offset() -> float:
    return clock.now().timestamp() - clock.monotonic()
