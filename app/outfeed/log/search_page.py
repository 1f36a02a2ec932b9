"""The page of the log: one query, a chart, facets and the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import urlencode

from flask import redirect, render_template, request
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.display import OWN, Level, cut, level_of
from outfeed.http import addresses, identity
from outfeed.http.services import services
from outfeed.log import query_language
from outfeed.log.agent_names import names_of_agents
from outfeed.log.filters import filter_of, without_invalid_text
from outfeed.log.histogram import DrawnChart, chart_of
from outfeed.log.live import Row, rowid, rows_of
from outfeed.log.query_language import AGENT, SINCE, SOURCE, TASK, TEXT, TYPE, UNTIL, ParsedQuery, QueryTerm
from outfeed.log.store import log_page, survey
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.log_page import FoundPage
from outfeed.log.store.snippet import Snippet
from outfeed.log.store.survey import Survey

LOG_ROWS = 50
AROUND_ROWS = 25  # before an event, and after it
FACET_ROWS, MAX_FACET_ROWS = 8, 50
MAX_DATA_CHARS = 300  # of a row's data beside its sentence
# The parameters before the query language. They still work, and become terms of the query.
FILTERS = {"type": TYPE, "source": SOURCE, "task": TASK, "agent": AGENT, "from": SINCE, "to": UNTIL, "text": TEXT}
KNOWN = {*FILTERS, "q", "id", "cursor", "newer", "at", "around", "columns", "live"}
# The names in the API and the feed.
ALIASES = {"event_type": "type", "types": "type", "task_id": "task", "agent_id": "agent"}
RANGES = (
    ("5m", "Last 5 minutes"), ("15m", "Last 15 minutes"), ("1h", "Last hour"), ("6h", "Last 6 hours"),
    ("24h", "Last 24 hours"), ("7d", "Last 7 days"), ("30d", "Last 30 days"),
)  # fmt: skip
_FACETS = ((TYPE, "event_type", "Type"), (SOURCE, "source", "Source"), (AGENT, "agent_id", "Agent"))


@dataclass(frozen=True, slots=True)
class LogRequest:
    """The query and the place that the address of the page names.

    *cursor* is the place of the page below the newest events, and *is_newer* tells that the page lies above it. *at* is
    a moment to jump to, and *around* the id of an event in the middle of the page.
    """

    query: ParsedQuery
    problems: tuple[str, ...]
    cursor: int | None = None
    is_newer: bool = False
    at: datetime | None = None
    around: str | None = None
    has_data: bool = False

    @property
    def is_newest(self) -> bool:
        """Whether the page begins with the newest event."""
        return self.cursor is None and self.at is None and self.around is None

    def address(self, query: ParsedQuery | None = None, **changed: Any) -> str:
        """Return the address of the page with another query or place."""
        text = str(self.query if query is None else query)
        fixed = {"q": text, "columns": "data" if self.has_data else None} | changed
        return addresses.of_log(**{name: value for name, value in fixed.items() if value not in (None, "")})


@dataclass(frozen=True, slots=True)
class FacetRow:
    """A value with its number of matches.

    The addresses require and exclude it.
    """

    value: str
    count: int
    include: str
    exclude: str
    is_required: bool


class Facet(NamedTuple):
    """The most frequent values of a field, and the others."""

    field: str
    title: str
    rows: list[FacetRow]
    more: list[FacetRow]


class Pill(NamedTuple):
    """A term of the query, and the address without it."""

    term: QueryTerm
    text: str
    address: str


class TimedRow(Row):
    """A row that shows the time of day alone, below a heading with its day."""

    __slots__ = ()

    @property
    def time(self) -> str:
        """The time of day in UTC, or a raw writer's text."""
        return f"{self.moment:%H:%M:%S}" if self.moment else super().time


class Day(NamedTuple):
    """The rows of one day, in the order of the page.

    *day* is None without a readable time.
    """

    day: date | None
    rows: list[Row]

    @property
    def title(self) -> str:
        """The day in words."""
        if self.day is None:
            return "No date"
        age = (clock.now().date() - self.day).days
        return {0: "Today", 1: "Yesterday"}.get(age, f"{self.day:%A} {self.day.day} {self.day:%B %Y}")


def show() -> ResponseReturnValue:
    """Return the page that the request's address asks for."""
    if ALIASES.keys() & request.args.keys():  # the page's script uses only the page's names
        renamed = [(ALIASES.get(name, name), value) for name, value in request.args.items(multi=True)]
        return redirect(f"{addresses.of_log()}?{urlencode(renamed)}")
    asked, visible = read_request(), identity.principal().visible
    agents = names_of_agents(services().database, visible)
    filter_ = filter_of(asked.query, visible, agents=agents)
    found, scan = survey.take(services().database, filter_, _is_failure)
    asked, page = _find_page(asked, filter_, survey.first_page(services().database, found, scan, LOG_ROWS))
    if asked.is_newer and len(page.events) < LOG_ROWS and not page.is_scan_limited:
        return redirect(asked.address())  # the newest page, which is full
    return _render(asked, filter_, _with_names(found, agents), page)


def read_request() -> LogRequest:
    """Return the request that the address names.

    It has a sentence for each part that is ignored.
    """
    given = {name: list(filter(None, map(str.strip, values))) for name, values in request.args.lists()}
    query = query_language.parse(" ".join(given.get("q", [])))
    older = query_language.of_fields(
        (field, value) for name, field in FILTERS.items() for value in _values(name, given.get(name, []))
    )
    query = replace(query.with_terms(*older.terms), problems=(*query.problems, *older.problems))
    query = without_invalid_text(query)
    unknown = [name for name in given if name not in KNOWN]
    problems = list(query.problems)
    if unknown:
        problems.append(f"Unknown filters were ignored: {cut(', '.join(unknown), 80)}.")
    newer = request.args.get("newer", type=rowid)
    at = clock.parsed(request.args.get("at"))
    if at is None and given.get("at"):
        problems.append(f'"{cut(given["at"][0], 80)}" isn\'t a date. Use 2026-01-31T12:00.')
    cursor = newer if newer is not None else request.args.get("cursor", type=rowid)
    around = next(iter(given.get("around", [])), None)
    return LogRequest(
        query, tuple(problems), cursor, newer is not None, at, around, "data" in given.get("columns", [])
    )  # fmt: skip


def _values(name: str, values: list[str]) -> Iterator[str]:
    """Yield the values of one of the older parameters.

    A time without a zone is in UTC.
    """
    for value in values:
        moment = clock.parsed(value) if name in ("from", "to") else None
        yield f"{_as_input(moment)}Z" if moment else value


def _as_input(moment: datetime) -> str:
    """Return a time in UTC without its zone.

    A time with a fraction has milliseconds.
    """
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


# --- the events -------------------------------------------------------------------------------------------------------


def _find_page(asked: LogRequest, filter_: LogFilter, newest: FoundPage) -> tuple[LogRequest, FoundPage]:
    """Return the page, and the request.

    A place that does not exist becomes a problem of the request.
    """
    database = services().database
    if asked.around is not None:
        found = log_page.find(database, filter_.visible, asked.around)
        if found is not None:
            return asked, log_page.list_around(database, filter_, found, AROUND_ROWS)
        problem = f"Event {cut(asked.around, 80)} not found."
        return replace(asked, around=None, problems=(*asked.problems, problem)), newest
    if asked.at is not None:
        cursor = log_page.place_at(database, clock.isoformat(asked.at))
        return asked, log_page.list_page(database, filter_, limit=LOG_ROWS, cursor=cursor)
    if asked.cursor is None:
        return asked, newest
    page = log_page.list_page(database, filter_, limit=LOG_ROWS, cursor=asked.cursor, is_newer=asked.is_newer)
    return asked, page


def _is_failure(event_type: str) -> bool:
    """Return whether all events of the type count as errors."""
    return level_of(event_type, None, services().displays.current().by_type) is Level.ERROR


def _days(page: FoundPage, filter_: LogFilter, *, has_data: bool) -> list[Day]:
    found = rows_of((event for _, event in page.events), filter_.text)
    rows = [TimedRow(row.event, row.look, row.snippet or (_data_of(row) if has_data else None)) for row in found]
    return [Day(day, list(each)) for day, each in groupby(rows, lambda row: row.moment and row.moment.date())]


def _data_of(row: Row) -> Snippet | None:
    """Return the data as one line without marks."""
    return Snippet(text, []) if (text := row.data_line(MAX_DATA_CHARS)) else None


# --- the page ---------------------------------------------------------------------------------------------------------


def _render(asked: LogRequest, filter_: LogFilter, found: Survey, page: FoundPage) -> str:
    query = asked.query
    return render_template(
        "events.html",
        principal=identity.principal(),
        asked=asked,
        query=query,
        filter=filter_,
        page=page,
        days=_days(page, filter_, has_data=asked.has_data),
        survey=found,
        place=_place(asked, found, page),
        problems=asked.problems,
        pills=[Pill(term, str(term), asked.address(query.without(term))) for term in query.terms if not term.is_time],
        facets=[_facet(asked, *names, found) for names in _FACETS],
        chart=_chart(asked, found),
        ranges=[(title, asked.address(_last(query, span)), _is_last(query, span)) for span, title in RANGES],
        range=_range(query),
        types=[*OWN, *services().displays.current().made_by],
    )


def _place(asked: LogRequest, found: Survey, page: FoundPage) -> str:
    """Return which of the matches the page shows: `51–100 of 7,669`."""
    total = f"{found.total:,}{'' if found.is_complete else '+'}"
    if not page.events:
        return f"0 of {total}" if found.total else ""
    first = 0 if asked.is_newest else found.place_of(page.events[0][0])
    if first is None:
        return f"{len(page.events)} of {total}"
    return f"{first + 1:,}\N{EN DASH}{first + len(page.events):,} of {total}"


def _with_names(found: Survey, agents: Mapping[str, str]) -> Survey:
    """Return *found* with names of agents for ids, the most frequent first."""
    counts = Counter[str]()
    for id_, count in found.facets["agent_id"].items():
        counts[agents.get(id_, id_)] += count
    return replace(found, facets=found.facets | {"agent_id": dict(counts.most_common())})


def _facet(asked: LogRequest, field: str, column: str, title: str, found: Survey) -> Facet:
    rows = [
        FacetRow(
            value,
            count,
            asked.address(asked.query.with_terms(QueryTerm(field, value))),
            asked.address(asked.query.with_terms(QueryTerm(field, value, is_excluded=True))),
            QueryTerm(field, value) in asked.query.terms,
        )
        for value, count in list(found.facets[column].items())[:MAX_FACET_ROWS]
    ]
    return Facet(field, title, rows[:FACET_ROWS], rows[FACET_ROWS:])


def _chart(asked: LogRequest, found: Survey) -> DrawnChart | None:
    def address(start: datetime, end: datetime) -> str:
        return asked.address(asked.query.with_terms(*period(start, end)))

    return chart_of(found.bars, address)


def period(start: datetime, end: datetime) -> tuple[QueryTerm, QueryTerm]:
    """Return the terms for the time from *start* to *end*."""
    return QueryTerm(SINCE, f"{_as_input(start)}Z"), QueryTerm(UNTIL, f"{_as_input(end)}Z")


def _last(query: ParsedQuery, span: str) -> ParsedQuery:
    return query.without_times().with_terms(QueryTerm(SINCE, span))


def _is_last(query: ParsedQuery, span: str) -> bool:
    return query.values(SINCE) == (span,) and not query.values(UNTIL)


def _range(query: ParsedQuery) -> dict[str, Any]:
    """Return the time range for the time button: a title, or its bounds."""
    since, until = (next(iter(query.values(name)), "") for name in (SINCE, UNTIL))
    title = next((title for span, title in RANGES if since == span and not until), None)
    if not since and not until:
        title = "All time"
    elif query_language.is_relative(since) and not until:
        title = title or f"Last {since}"
    moments = [query.moment(name, clock.now()) for name in (SINCE, UNTIL)]
    return {"title": title, "since": moments[0], "until": moments[1], "inputs": [m and _as_input(m) for m in moments]}
