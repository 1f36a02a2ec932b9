"""Filters from queries: the terms of a query as conditions on the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from outfeed import clock
from outfeed.errors import InvalidRequest
from outfeed.log import query_language
from outfeed.log.agent_names import NO_NAMES, names_for
from outfeed.log.query_language import AGENT, SINCE, SOURCE, TASK, TEXT, TYPE, UNTIL, ParsedQuery, path_of
from outfeed.log.store.log_filter import DataCondition, Excluded, LogFilter, split_types
from outfeed.log.store.query import Query
from outfeed.principal import EventScope
from outfeed.store.database import Database

_FIELDS = ("types", "source", "task_id", "agent_id", "since", "until", "text")


def filter_of(
    query: ParsedQuery, visible: EventScope, now: datetime | None = None, agents: Mapping[str, str] = NO_NAMES
) -> LogFilter:
    """Return the conditions of *query*, limited to *visible*.

    Relative times count from *now*. *agents* has names of agents by id: a term with a name finds all agents of it.
    """
    moment = now or clock.now()
    since, until = query.moment(SINCE, moment), query.moment(UNTIL, moment)
    return LogFilter(
        visible=visible,
        types=_types(query, is_excluded=False),
        source=query.values(SOURCE) or None,
        task_id=query.values(TASK) or None,
        agent_id=_agents(query, agents, is_excluded=False) or None,
        since=clock.isoformat(since) if since else None,
        until=clock.isoformat(until) if until else None,
        text=query.text,
        excluded=Excluded(
            _types(query, is_excluded=True),
            query.values(SOURCE, is_excluded=True),
            query.values(TASK, is_excluded=True),
            _agents(query, agents, is_excluded=True),
        ),
        data=tuple(DataCondition(tuple(path_of(term)), term.value, term.is_excluded) for term in query.data),
    )


def read_query(text: str | None) -> ParsedQuery:
    """Return the query of *text*. Raises InvalidRequest for its first problem."""
    query = query_language.parse(text or "")
    if query.problems:
        raise InvalidRequest("invalid_field", f"q: {query.problems[0]}")
    return query


def narrowed(own: LogFilter, text: str | None, database: Database) -> LogFilter:
    """Return the conditions of *own*, and those of the query *text*.

    The names of agents are those of *database*. Raises InvalidRequest for an invalid query, or if both have a condition
    on one field.
    """
    query = read_query(text)
    found = filter_of(query, own.visible, agents=names_for(query, database, own.visible))
    given = {name: value for name in _FIELDS if (value := getattr(own, name)) not in (None, ())}
    twice = next((name for name in given if getattr(found, name)), None)
    if twice:
        raise InvalidRequest("invalid_field", f"q: has a condition on {twice}, which another parameter sets, too")
    return replace(found, **given)


def without_invalid_text(query: ParsedQuery) -> ParsedQuery:
    """Return *query* without a text that can't be searched for.

    Such a text becomes a problem.
    """
    try:
        Query.of(query.text or "")
    except InvalidRequest as error:
        kept = tuple(term for term in query.terms if term.field != TEXT)
        return replace(
            query, terms=kept, problems=(*query.problems, f"The search {str(error).removeprefix('text: ')}.")
        )
    return query


def _agents(query: ParsedQuery, names: Mapping[str, str], *, is_excluded: bool) -> tuple[str, ...]:
    """Return the values of the terms on agents, and the ids of these names."""
    given = query.values(AGENT, is_excluded=is_excluded)
    return (*given, *(id_ for id_, name in names.items() if name in given and id_ not in given))


def _types(query: ParsedQuery, *, is_excluded: bool) -> tuple[str, ...]:
    return split_types(",".join(query.values(TYPE, is_excluded=is_excluded)))
