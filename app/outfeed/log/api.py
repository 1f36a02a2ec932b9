"""Events over HTTP: append one or many, and read the log."""

from __future__ import annotations

import io
import itertools
import json
from typing import Annotated, Any, Literal, NoReturn

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from outfeed.errors import EventConflict, InvalidEvent, InvalidRequest
from outfeed.events import Event
from outfeed.feed.subscription import MAX_SEQ
from outfeed.http import bodies, identity
from outfeed.http.api.operation import JSON, MAX_FILTER_CHARS, json_answer, operation
from outfeed.http.api.receipt import WriteReceipt
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log.agent_names import names_of_agents
from outfeed.log.shapes import (
    MAX_BATCH_EVENTS,
    LogFilters,
    LoggedEvent,
    LogPage,
    NewEvent,
    NewEvents,
    NewLines,
    Summary,
    Values,
)
from outfeed.log.store import completion, log_page, reading, search
from outfeed.principal import READ, WRITE
from outfeed.store import event_log
from outfeed.text import near

NDJSON = "application/x-ndjson"
MAX_LINES = 10_000  # of a body, blank ones with them
VALUE_FIELDS = {"type": "event_type", "source": "source", "task": "task_id", "agent": "agent_id"}
LINES = {NDJSON, "application/ndjson", "application/jsonl"}

events = Blueprint("events", __name__, url_prefix="/api")
_one = TypeAdapter(NewEvent)
_many = TypeAdapter(NewEvents)
# Plain texts in place of pydantic's.
_PLAIN = {
    "missing": "is missing",
    "extra_forbidden": "is an unknown field",
    "dict_type": "an event is a JSON object, and a batch is an array of them",
    "string_type": "must be text",
    "too_short": "a batch has at least one event",
    "too_long": f"a batch has at most {MAX_BATCH_EVENTS:,} events",
}


class LogQuery(LogFilters):
    """Filters of the log, all of which must match, and the page's position."""

    id: Annotated[
        str | None,
        Field(
            max_length=MAX_FILTER_CHARS,
            description="Only the event with this id. Ignores the other filters.",
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[int, Field(ge=-MAX_SEQ - 1, le=MAX_SEQ, description="`next` of the previous page.")] | None = None
    before: Annotated[
        str | None,
        Field(
            max_length=MAX_FILTER_CHARS,
            description="Only events that were logged before the event with this id. A `cursor` replaces it.",
        ),
    ] = None


class SummaryQuery(BaseModel):
    """The period of a summary."""

    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[float, Field(gt=0, le=60 * 24 * 366 * 10, allow_inf_nan=False)] = 60


class ValuesQuery(BaseModel):
    """The field, and the text that its values begin with."""

    model_config = ConfigDict(extra="forbid")

    field: Annotated[Literal["type", "source", "task", "agent"], Field(examples=["source"])] = "type"
    prefix: Annotated[str, Field(max_length=MAX_FILTER_CHARS, examples=["coo"])] = ""


# --- writing ----------------------------------------------------------------------------------------------------------


@events.post("/events")
@requires(WRITE)
@operation(
    body={JSON: NewEvent | NewEvents, NDJSON: NewLines},
    answers={201: WriteReceipt | list[WriteReceipt], 200: WriteReceipt | list[WriteReceipt]},
    refusals={
        400: "The body is not JSON.",
        403: "The principal has no permission to write an event of this type.",
        409: "An event with this id already exists with different content.",
        413: "The body is larger than 8 MiB, before or after decompression.",
        415: "The body is neither JSON nor NDJSON, or its Content-Encoding is not gzip.",
        422: "An event breaks a rule; `index` and `field` say which.",
        503: "The database is busy or full. Retry after the seconds in Retry-After.",
    },
)
def post_events() -> Response:
    """Append one event, or up to 1,000 at once, all or none.

    The events are durable when the response is sent. An array or NDJSON (one event a line) gets an array in the same
    order. The status is 201 if any event is new, and 200 if all existed. If each event has an `id`, the call is safe to
    repeat.
    """
    submitted, is_batch = _submitted()
    for event_type in dict.fromkeys(event["event_type"] for event in submitted):
        identity.principal().require_write(event_type)
    try:
        recorded = event_log.record(services().database, submitted, services().settings.max_event_bytes)
    except (InvalidEvent, EventConflict) as error:
        if not is_batch:
            error.index = None
        raise
    receipts = [{"id": one.event.id, "seq": one.seq, "epoch": one.epoch} for one in recorded]
    return json_answer(receipts if is_batch else receipts[0], 201 if any(one.is_new for one in recorded) else 200)


def _submitted() -> tuple[list[NewEvent], bool]:
    """Return the body's events, and whether they are a batch.

    This checks their shape. `outfeed/events.py` checks their values when it makes the events.
    """
    if request.mimetype in LINES:
        value: Any = _parsed_lines(bodies.read())
    elif request.is_json:
        value = _parsed(bodies.read(), "the body")
    else:
        raise UnsupportedMediaType(f"the body must be {JSON} or {NDJSON}")
    try:
        if isinstance(value, list):
            return _many.validate_python(value, strict=True), True
        return [_one.validate_python(value, strict=True)], False
    except ValidationError as error:
        raise _translate_error(error) from None


def _parsed_lines(body: bytes) -> list[Any]:
    if body.count(b"\n") > MAX_LINES:  # millions of blank lines take a second
        raise InvalidRequest("invalid_event", f"a batch has at most {MAX_LINES:,} lines")
    lines = ((number, line) for number, line in enumerate(io.BytesIO(body), 1) if line.strip())
    found = list(itertools.islice(lines, MAX_BATCH_EVENTS + 1))
    if len(found) > MAX_BATCH_EVENTS:  # before any line is parsed: millions of lines fit into the body
        raise InvalidRequest("invalid_event", _PLAIN["too_long"])
    return [_parsed(line, f"line {number}") for number, line in found]


def _parsed(text: bytes, name: str) -> Any:
    try:
        return bodies.parsed(lambda: json.loads(text, parse_constant=_refuse_constant), name)
    except ValueError as error:
        raise BadRequest(f"{name} is not JSON: {error}") from None
    except InvalidRequest:
        if text.rstrip().endswith((b"]", b"}")):
            raise
        raise BadRequest(f"{name} is not JSON: it ends inside a value") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _translate_error(error: ValidationError) -> InvalidEvent | InvalidRequest:
    """Return the first validation error as InvalidEvent or InvalidRequest.

    It names the event and the field.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # A misspelt name is the cause if another name is missing.
    unknown = [each for each in found if each["type"] == "extra_forbidden" and each["loc"][:-1] == found[0]["loc"][:-1]]
    first = (unknown or found)[0]
    index, field = [*(part for part in first["loc"] if isinstance(part, int)), None][0], first["loc"][-1:]
    problem = _PLAIN.get(first["type"], first["msg"])
    if first["type"] == "extra_forbidden":
        problem += _suggestion(str(field[0]))
    if field and isinstance(field[0], str):
        return InvalidEvent(f"{field[0]:.80}", problem, index=index)
    return InvalidRequest("invalid_event", problem if index is None else f"event {index}: {problem}")


def _suggestion(name: str) -> str:
    """Return the question for a similar field name, or an empty text."""
    meant = near(name, NewEvent.__annotations__)
    return f"; did you mean {meant}?" if meant else ""


# --- reading ----------------------------------------------------------------------------------------------------------


@events.get("/events")
@requires(READ)
@operation(query=LogQuery, answers={200: LogPage}, refusals={404: "No event has the id `before`."})
def list_events(query: LogQuery) -> Response:
    """Return a page of the log, newest first.

    A page that has scanned many events without a match ends before it is full, and may be empty. `next` continues the
    scan. With `text`, `match` is the part of the event that contains it.
    """
    visible = identity.principal().visible
    if query.id is not None:
        found = log_page.find(services().database, visible, query.id)
        return json_answer({"events": [found[1].as_dict()] if found else [], "next": None})
    cursor = query.cursor
    if cursor is None and query.before is not None:
        place = log_page.find(services().database, visible, query.before)
        if place is None:
            raise NotFound(f"no event with the id {query.before!r:.220}")
        cursor = place[0]
    database = services().database
    page = log_page.list_page(database, query.filter(visible, database), limit=query.limit, cursor=cursor)
    answered = [event.as_dict() | _match_of(event, query.words) for _, event in page.events]
    return json_answer({"events": answered, "next": page.older})


def _match_of(event: Event, text: str | None) -> dict[str, Any]:
    found = search.snippet_of(event, text) if text else None
    return {"match": found.as_dict()} if found else {}


@events.get("/events/summary")
@requires(READ)
@operation(query=SummaryQuery, answers={200: Summary})
def summarise(query: SummaryQuery) -> Response:
    """Return the number of events of each type in the last `minutes`."""
    summary = reading.get_event_summary(query.minutes, services().database, identity.principal().visible)
    return json_answer({"minutes": query.minutes, "summary": summary})


@events.get("/events/values")
@requires(READ)
@operation(query=ValuesQuery, answers={200: Values})
def list_values(query: ValuesQuery) -> Response:
    """Return values of a field that begin with a text, in alphabetical order.

    They are those of events that the principal may see. The names of agents precede their ids.
    """
    database, visible = services().database, identity.principal().visible
    values = completion.complete(database, visible, VALUE_FIELDS[query.field], query.prefix)
    if query.field == "agent":
        names = sorted({name for name in names_of_agents(database, visible).values() if name.startswith(query.prefix)})
        values = [*names, *values][: completion.MAX_VALUES]
    return json_answer({"values": values})


@events.get("/events/<path:event_id>")
@requires(READ)
@operation(answers={200: LoggedEvent}, refusals={404: "No event has this id."})
def get_event(event_id: str) -> Response:
    """Return one event of the log."""
    event = reading.get_event(event_id, services().database, identity.principal().visible)
    if event is None:
        raise NotFound(f"no event with the id {event_id!r:.220}")
    return json_answer(event.as_dict())
