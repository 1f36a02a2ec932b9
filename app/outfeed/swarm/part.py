"""The part of the swarm that runs in each serving process."""

from __future__ import annotations

from outfeed.feature import Part, Process
from outfeed.jobs import Job
from outfeed.swarm.coordinator import Coordinator
from outfeed.swarm.sweeper import Sweeper


class SwarmPart(Part):
    """The coordinator, and the job that closes auctions and expires agents."""

    def __init__(self, process: Process) -> None:
        self.coordinator = Coordinator.of(process.settings)
        self.jobs = {"swarm": Job(Sweeper(self.coordinator).sweep, 1.0)}
