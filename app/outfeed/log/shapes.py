"""The shapes of the log's requests and responses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Required

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic reads typing's only from Python 3.12 on

from outfeed import clock
from outfeed.events import MAX_NAME_CHARS, MAX_TYPE_CHARS, TYPE_PATTERN
from outfeed.http.api.operation import MAX_FILTER_CHARS
from outfeed.log import filters
from outfeed.log.query_language import MAX_QUERY_CHARS
from outfeed.log.store.log_filter import LogFilter, split_types
from outfeed.principal import EventScope
from outfeed.store.database import Database

MAX_BATCH_EVENTS = 1000
MAX_TYPES_CHARS = 20_100
_FilterText = Annotated[str, Field(max_length=MAX_FILTER_CHARS)]

# outfeed/events.py checks the values of each event. These rules only describe them in the schema.
_NAME_RULES = {"minLength": 1, "maxLength": MAX_NAME_CHARS, "pattern": r"^[^\u0000]*$"}
_Name = Annotated[str, Field(json_schema_extra={**_NAME_RULES})]
_Type = Annotated[str, Field(json_schema_extra={"maxLength": MAX_TYPE_CHARS, "pattern": f"^{TYPE_PATTERN.pattern}$"})]


@with_config(ConfigDict(extra="forbid", title="NewEvent"))
class NewEvent(TypedDict, total=False):
    """An event to append. An `id` makes the call safe to repeat."""

    event_type: Annotated[
        Required[_Type], Field(description="Like `task.created`. Own types are allowed.", examples=["task.created"])
    ]
    source: Annotated[
        Required[_Name], Field(description="Source of the event, such as a service.", examples=["coordinator"])
    ]
    task_id: Annotated[_Name | None, Field(examples=["task-1"])]
    agent_id: Annotated[_Name | None, Field(examples=["agent-7"])]
    data: Annotated[Any, Field(description="Any JSON.", examples=[{"description": "Write the docs"}])]
    id: Annotated[
        _Name | None, Field(description="The idempotency key; generated if absent.", examples=["task-1-created"])
    ]
    timestamp: Annotated[
        Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None,
        Field(description="ISO 8601 with a zone; now by default.", examples=["2026-01-31T12:00:00.000Z"]),
    ]


NewEvents = Annotated[list[NewEvent], Field(min_length=1, max_length=MAX_BATCH_EVENTS)]
Lines = Annotated[str, Field(description="One event per line.")]
NewLines = Annotated[str, Field(description="One event per line.", min_length=1)]


class TextMatch(BaseModel):
    """A part of an event that contains `text`."""

    text: str
    marks: list[list[int]] = Field(
        description="The start and end of each match, in characters (code points), in order."
    )


class LoggedEvent(BaseModel):
    """An event of the log."""

    id: str = Field(examples=["task-1-created"])
    event_type: str = Field(examples=["task.created"])
    source: str = Field(examples=["coordinator"])
    task_id: str | None = Field(examples=["task-1"])
    agent_id: str | None
    timestamp: str = Field(examples=["2026-01-31T12:00:00.000Z"])
    data: Any = Field(examples=[{"description": "Write the docs"}])
    omitted_bytes: int | None = Field(
        None, description="Size of the data that was omitted; absent if the data is complete."
    )
    match: TextMatch | None = Field(
        None, description="The part of the event that contains `text`; absent without `text`."
    )


def _utc(moment: datetime) -> datetime:
    """Return the time in UTC. A time without a zone is read as UTC.

    Raises ValueError if UTC has no such date.
    """
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999") from None


_Moment = Annotated[datetime, AfterValidator(_utc)]


class LogFilters(BaseModel):
    """Filters of the log, all of which must match."""

    model_config = ConfigDict(extra="forbid")

    event_type: Annotated[
        str | None,
        Field(
            max_length=MAX_TYPES_CHARS,
            description="Exact types, or prefixes like `task.*`, comma-separated.",
            examples=["task.*"],
        ),
    ] = None
    source: _FilterText | None = None
    task_id: _FilterText | None = None
    agent_id: _FilterText | None = None
    from_: Annotated[_Moment | None, Field(alias="from", description="Only events since this time.")] = None
    to: Annotated[_Moment | None, Field(description="Only events before this time.")] = None
    text: Annotated[
        str | None,
        Field(
            max_length=1000,
            description='Words to search for; "a phrase"; `wor*` for a prefix; `one OR other`; `-excluded`.',
        ),
    ] = None

    q: Annotated[
        str | None,
        Field(
            max_length=MAX_QUERY_CHARS,
            description="A query in the language of the log's page, with exclusions and values in the data. A field"
            " of it can't be given as another parameter, too.",
            examples=['-source:ci data.status:500 "out of memory" since:1h'],
        ),
    ] = None

    def filter(self, visible: EventScope, database: Database) -> LogFilter:
        """Return these conditions, limited to what the principal may see.

        The names of agents in `q` are those of *database*. Raises InvalidRequest for a part of `q` that is invalid or
        given twice.
        """
        since, until = (clock.isoformat(moment) if moment else None for moment in (self.from_, self.to))
        own = LogFilter(
            visible, split_types(self.event_type), self.source, self.task_id, self.agent_id, since, until, self.text
        )
        return filters.narrowed(own, self.q, database)

    @property
    def words(self) -> str | None:
        """The words to search for, from either parameter."""
        return self.text or filters.read_query(self.q).text


class LogPage(BaseModel):
    """A page of the log."""

    events: list[LoggedEvent]
    next: int | None = Field(description="The `cursor` of the next page; null on the last page.", examples=[1042])


class Summary(BaseModel):
    """Numbers of events by type."""

    minutes: float = Field(examples=[60.0])
    summary: dict[str, int] = Field(examples=[{"task.created": 12, "task.completed": 9}])


class Values(BaseModel):
    """Values of a field, at most ten."""

    values: list[str] = Field(examples=[["coordinator"]])
