"""Notifications of saved views over HTTP: the choices, and the news."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import NotFound

from outfeed.feed.subscription import MAX_SEQ
from outfeed.http import addresses, bodies, identity
from outfeed.http.api.operation import JSON, json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log import query_language
from outfeed.log.agent_names import names_for
from outfeed.log.filters import filter_of
from outfeed.log.live import rows_of
from outfeed.log.store import notifications as store
from outfeed.log.store.notifications import NotificationChoice
from outfeed.log.store.views import View, list_views
from outfeed.principal import READ

notifications = Blueprint("notifications", __name__)


class ChosenNotification(BaseModel):
    """Whether and how the browser notifies the caller of new events."""

    model_config = ConfigDict(extra="forbid", strict=True)

    is_on: bool = Field(examples=[True])
    has_sound: Annotated[bool, Field(description="Whether a sound is played.")] = False
    is_always: Annotated[bool, Field(description="Also while a page of Outfeed is visible.")] = False


class NewsQuery(BaseModel):
    """The position of the last answer."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=MAX_SEQ, description="`position` of the last answer.")] | None = None
    epoch: Annotated[str, Field(max_length=100, description="`epoch` of the last answer.")] | None = None


class NewsEvent(BaseModel):
    """How one event reads."""

    id: str = Field(examples=["0192f0c1-7d3a-7e2b-9c55-3f1a2b4c5d6e"])
    icon: str = Field(examples=["❌"])
    sentence: str = Field(examples=["Task t1 failed: no route to host"])
    level: str = Field(description="info, warning or error.", examples=["error"])


class News(BaseModel):
    """The events that match a view since the last answer."""

    count: int = Field(examples=[12])
    is_more: bool = Field(description="Whether more events match than are counted.", examples=[False])
    events: list[NewsEvent] = Field(description="The newest 3, oldest first.")
    position: int = Field(description="The `after` of the next request.", examples=[1042])
    epoch: str = Field(description="The `epoch` of the next request.", examples=["b7f9f1c0"])


@notifications.put("/api/views/<int:view_id>/notification")
@requires(READ)
@operation(
    body={JSON: ChosenNotification},
    answers={200: ChosenNotification},
    refusals={
        400: "The body is not JSON.",
        404: "The caller sees no view with this id.",
        415: "The body is not JSON.",
        422: "A field is invalid.",
    },
)
def choose(view_id: int) -> Response:
    """Choose whether browsers notify the caller of a view's new events."""
    view = _require(view_id)
    chosen = bodies.read_object(ChosenNotification)
    choice = NotificationChoice(chosen.is_on, chosen.has_sound, chosen.is_always)
    store.choose(services().database, identity.principal(), view.id, choice)
    return json_answer(choice._asdict())


@notifications.get("/api/views/<int:view_id>/news")
@requires(READ)
@operation(query=NewsQuery, answers={200: News}, refusals={404: "The caller sees no view with this id."})
def news(query: NewsQuery, view_id: int) -> Response:
    """Return the events that match a view since the last answer.

    Without `after` there are none, and the answer has the position to begin at.
    """
    view, current = _require(view_id), services()
    epoch = current.outbox.window().epoch
    after = query.after if query.epoch == epoch else None
    wanted, visible = query_language.parse(view.query), identity.principal().visible
    filter_ = filter_of(wanted, visible, agents=names_for(wanted, current.database, visible))
    found = store.read_news(current.database, filter_, after)
    return json_answer(
        {
            "count": found.matches,
            "is_more": found.is_more,
            "events": [
                {"id": row.event.id, "icon": row.look.icon, "sentence": row.look.text, "level": row.look.level.value}
                for row in rows_of(found.events)
            ],
            "position": found.position,
            "epoch": epoch,
        }
    )


@notifications.app_template_global()
def notified_views() -> list[tuple[View, str, NotificationChoice]]:
    """Return the visitor's views, each with its address and its choice."""
    principal, database = identity.principal(), services().database
    chosen = store.choices(database, principal)
    return [
        (view, addresses.of_log(q=view.query), chosen.get(view.id, NotificationChoice()))
        for view in list_views(database, principal)
    ]


def _require(view_id: int) -> View:
    found = store.find_view(services().database, identity.principal(), view_id) if view_id <= MAX_SEQ else None
    if found is None:
        raise NotFound(f"view {view_id} not found")
    return found
