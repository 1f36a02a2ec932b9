"""The swarm feature: agents, tasks and auctions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.feature import Feature, Process
from outfeed.swarm.store import swarm as store

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.store.database import Connection
    from outfeed.swarm.part import SwarmPart


class SwarmFeature(Feature):
    """A swarm of agents that bid for tasks: one use of the feed.

    No other module imports it.
    """

    commands: ClassVar[Mapping[str, str]] = {"simulate": "swarm.commands:simulate"}
    redirects: ClassVar[Mapping[str, str]] = {"/swarm": "/swarm/live"}

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.swarm.api import swarm
        from outfeed.swarm.dashboard import dashboard
        from outfeed.swarm.pages import swarm_pages

        return swarm, dashboard, swarm_pages

    def part(self, process: Process) -> SwarmPart:
        from outfeed.swarm.part import SwarmPart

        return SwarmPart(process)

    def agent_names(self, connection: Connection) -> Mapping[str, str]:
        return store.agent_names(connection)

    def erase(self, connection: Connection, event_id: str) -> None:
        store.erase(connection, [event_id])
