"""The HTTP API: write events, read the log."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from app.errors import InvalidRequest
from app.feed import subscription
from app.store import event_log
from app.web import auth
from app.web.services import services

api = Blueprint("api", __name__, url_prefix="/api")

_Limit = Annotated[int, Field(ge=1, le=1000)]


class _LogQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    event_type: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    source: str | None = None
    limit: _Limit = 100
    cursor: Annotated[int, Field(ge=1, le=subscription.MAX_SEQ)] | None = None


class _SummaryQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[float, Field(gt=0, le=60 * 24 * 366 * 10, allow_inf_nan=False)] = 60


@api.post("/events")
def post_event() -> Response:
    """Append the event in the body: 201, or 200 where its id is known with the same content. Durable when answered."""
    recorded = event_log.record(services().database, _event_fields(), services().settings.max_event_bytes)
    answer = {"id": recorded.event.id, "seq": recorded.seq, "epoch": recorded.epoch}
    return _json(answer, 201 if recorded.is_new else 200)


def _event_fields() -> dict[str, Any]:
    """Return the body as arguments of `log_event`; what they hold is checked where every event is."""
    if not request.is_json:
        raise UnsupportedMediaType("the body must be application/json")
    try:
        fields = json.loads(request.get_data(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("invalid_event", "the body must be one event, a JSON object")
    names = {"event_type", "source", "task_id", "agent_id", "data", "id", "timestamp"}
    if unknown := sorted(set(fields) - names):
        raise InvalidRequest("unknown_field", f"unknown fields: {', '.join(unknown)!s:.200}")
    if missing := sorted({"event_type", "source"} - set(fields)):
        raise InvalidRequest("missing_field", f"missing fields: {', '.join(missing)}")
    auth.principal().require_write(fields["event_type"])
    return fields


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


@api.get("/events")
def list_events() -> Response:
    """Return a page of the log, newest first."""
    query = subscription.validated(_LogQuery, request.args.to_dict())
    events, following = event_log.list_page(services().database, auth.principal().visible, **query.model_dump())
    return _json({"events": [event.as_dict() for event in events], "next": following})


@api.get("/events/summary")
def summary() -> Response:
    """Return how many events of each type the last *minutes* brought."""
    query = subscription.validated(_SummaryQuery, request.args.to_dict())
    counts = event_log.get_event_summary(query.minutes, services().database, auth.principal().visible)
    return _json({"minutes": query.minutes, "summary": counts})


@api.get("/events/<path:event_id>")
def get_event(event_id: str) -> Response:
    """Return one event of the log."""
    event = event_log.get_event(event_id, services().database, auth.principal().visible)
    if event is None:
        raise NotFound(f"no event with the id {event_id!r:.220}")
    return _json(event.as_dict())


def _json(value: Any, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, content_type="application/json")
