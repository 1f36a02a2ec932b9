"""The sweeper: closes auctions and expires agents once their time is over.

The scheduler runs it. The first sweep also closes what became due while no server ran.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.log_message import LogMessage
from outfeed.swarm.coordinator import Coordinator

# A step of the wall clock against monotonic time of at least this much means that the clock was set.
STEP_SECS = 1.0
log = logging.getLogger(__name__)


class Sweeper:
    """Closes due auctions and removes agents without a heartbeat.

    Every worker may run a sweeper: each auction and agent is closed once. No agent expires before this process has run
    for a whole agent timeout: while the server was down, and during a step of the wall clock, agents had no chance to
    send a heartbeat. For one thread at a time.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._listening_since = clock.monotonic()
        self._clock_offset = clock.offset()

    def sweep(self) -> None:
        """Close all that is due. Never raises an OutfeedError.

        Agents go first, because the bids of agents that have left must not win.
        """
        self._detect_clock_step()
        if clock.monotonic() - self._listening_since >= self._coordinator.agent_timeout_secs:
            self._close_each(self._coordinator.overdue_agents, self._coordinator.expire)
        self._close_each(self._coordinator.due_auctions, self._coordinator.close_auction)

    def _detect_clock_step(self) -> None:
        before, self._clock_offset = self._clock_offset, clock.offset()
        if abs(self._clock_offset - before) > STEP_SECS:
            log.warning(LogMessage("wall clock was set", secs=f"{self._clock_offset - before:+.1f}"))
            self._listening_since = clock.monotonic()

    def _close_each(self, find: Callable[[], list[str]], close: Callable[[str], bool]) -> None:
        # The edge of the job: an item that can't be closed must not delay the others. The next sweep tries it again.
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
