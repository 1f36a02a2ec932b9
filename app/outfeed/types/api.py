"""Displays over HTTP."""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response, request
from pydantic import BaseModel, Field

from outfeed.http import identity
from outfeed.http.api.operation import json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import serving
from outfeed.principal import READ

types = Blueprint("types", __name__)


class SetDisplay(BaseModel):
    """The display of one event type."""

    icon: str | None = Field(None, description="Up to 16 characters. Absent for that of the level.")
    label: str | None = Field(None, description="Text with places such as `{amount}`, up to 200 characters.")
    level: str | None = Field(None, description="`info`, `warning` or `error`. Absent if the data and the type decide.")


class SetDisplays(BaseModel):
    """The displays of event types: those that were set, and Outfeed's own."""

    types: int = Field(
        description="Number of changes of displays. Heartbeats carry it. If it has changed, ask again.", examples=[2]
    )
    displays: dict[str, SetDisplay] = Field(
        examples=[{"payment.received": {"icon": "⚡", "label": "Received {amount_sats} sats: {memo}", "level": "info"}}]
    )


@types.get("/api/types")
@requires(READ, takes_tickets=True)
@operation(answers={200: SetDisplays}, refusals={304: "Nothing has changed since the answer with this ETag."})
def list_displays() -> Response:
    """Return the displays of the types that the principal may see."""
    found, visible = serving().displays.current(), identity.principal().visible
    shown = {name: each.as_dict() for name, each in found.by_type.items() if visible.covers(name)}
    response = json_answer({"types": found.version, "displays": shown})
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:32])
    response.make_conditional(request)
    return response
