"""Names of agents, by which a query finds their events."""

from __future__ import annotations

from collections.abc import Mapping

from outfeed.feature import registered
from outfeed.log.query_language import AGENT, ParsedQuery
from outfeed.principal import EventScope
from outfeed.store.database import Database

NO_NAMES: Mapping[str, str] = {}


def names_of_agents(database: Database, visible: EventScope) -> Mapping[str, str]:
    """Return the name of each agent that a feature knows, by id.

    A principal with permission for some types only gets no names: another writer may use the id of an agent.
    """
    if visible.types:
        return NO_NAMES
    with database.connection() as connection:
        return {id_: name for each in registered() for id_, name in each.agent_names(connection).items()}


def names_for(query: ParsedQuery, database: Database, visible: EventScope) -> Mapping[str, str]:
    """Return the names of agents if *query* has a term on agents."""
    if not any(term.field == AGENT for term in query.terms):
        return NO_NAMES
    return names_of_agents(database, visible)
