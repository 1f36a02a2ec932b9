"""Saved views over HTTP: the API, and the forms of the log's page."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, redirect, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import NotFound

from outfeed.errors import Forbidden, InvalidRequest, UnknownName
from outfeed.feed.subscription import MAX_SEQ
from outfeed.http import addresses, bodies, identity
from outfeed.http.api.operation import JSON, json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log import query_language
from outfeed.log.query_language import MAX_QUERY_CHARS
from outfeed.log.store import views as store
from outfeed.log.store.views import MAX_NAME_CHARS, View
from outfeed.principal import READ

views = Blueprint("views", __name__)


class NewView(BaseModel):
    """The view to save."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS, examples=["Failed tasks"])]
    query: Annotated[str, Field(max_length=MAX_QUERY_CHARS, examples=["type:task.failed since:24h"])]
    is_shared: Annotated[bool, Field(description="Whether everyone sees it. Needs the scope admin.")] = False


class SavedView(BaseModel):
    """A saved query of the log."""

    id: int = Field(examples=[3])
    name: str = Field(examples=["Failed tasks"])
    query: str = Field(description="The `q` of `GET /api/events`.", examples=["type:task.failed since:24h"])
    owner: str = Field(description="`token:NAME` or `user:NAME`.", examples=["user:ann"])
    is_shared: bool = Field(examples=[False])


class SavedViews(BaseModel):
    """The caller's own views and all shared ones, by name."""

    views: list[SavedView]


@views.get("/api/views")
@requires(READ)
@operation(answers={200: SavedViews})
def list_views() -> Response:
    """Return the caller's own views of the log and all shared ones, by name."""
    found = store.list_views(services().database, identity.principal())
    return json_answer({"views": [view.as_dict() for view in found]})


@views.post("/api/views")
@requires(READ)
@operation(
    body={JSON: NewView},
    answers={201: SavedView, 200: SavedView},
    refusals={
        400: "The body is not JSON.",
        403: "The scope admin is missing, and the view is shared.",
        415: "The body is not JSON.",
        422: "The name or the query is invalid, or contains a secret, or the caller has 100 views.",
    },
)
def create() -> Response:
    """Save a view of the log.

    It replaces the caller's view of the same name; the status is then 200.
    """
    new = bodies.read_object(NewView)
    view, is_new = _save(new.name, new.query, is_shared=new.is_shared)
    return json_answer(view.as_dict(), 201 if is_new else 200)


@views.delete("/api/views/<int:view_id>")
@requires(READ)
@operation(answers={200: SavedViews}, refusals={404: "The caller may not delete a view with this id."})
def delete(view_id: int) -> Response:
    """Delete one of the caller's views, and return the others.

    The scope admin may delete every view.
    """
    _delete(view_id)
    return list_views()


@views.post("/swarm/views")
@requires(READ, is_page=True)
def save_by_form() -> ResponseReturnValue:
    """Save the query of the form, and show the log with it."""
    view, _ = _save(request.form.get("name", ""), request.form.get("q", ""), is_shared="shared" in request.form)
    return redirect(addresses.of_log(q=view.query), 303)


@views.post("/swarm/views/<int:view_id>/delete")
@requires(READ, is_page=True)
def delete_by_form(view_id: int) -> ResponseReturnValue:
    """Delete a view, and show the log with the query of the form."""
    _delete(view_id)
    return redirect(addresses.of_log(q=request.form.get("q", "")), 303)


@views.app_template_global()
def saved_views() -> list[View]:
    """Return the views that the visitor of the log's page sees."""
    return store.list_views(services().database, identity.principal())


def _save(name: str, text: str, *, is_shared: bool) -> tuple[View, bool]:
    principal = identity.principal()
    if is_shared and not principal.is_operator:
        raise Forbidden("only an operator may share a view")
    query = query_language.parse(text)
    if query.problems:
        raise InvalidRequest("invalid_field", f"query: {query.problems[0]}")
    return store.save(services().database, principal, name.strip(), str(query), is_shared=is_shared)


def _delete(view_id: int) -> None:
    if view_id > MAX_SEQ:  # SQLite has no such id
        raise NotFound(f"view {view_id} not found")
    try:
        store.delete(services().database, identity.principal(), view_id)
    except UnknownName as error:
        raise NotFound(str(error)) from None
