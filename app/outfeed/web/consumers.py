"""Durable consumers over HTTP: acknowledging what `GET /api/feed?consumer=` gave."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import BadRequest, NotFound

from outfeed.errors import Superseded
from outfeed.feed.subscription import MAX_SEQ, validated
from outfeed.history import CONSUMER_NAME
from outfeed.web.api.operation import JSON, operation
from outfeed.web.services import services

consumers = Blueprint("consumers", __name__, url_prefix="/api/consumers")


class Ack(BaseModel):
    """How far a consumer has handled the feed: `cursor` and `epoch` of a page, or an event's seq."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seq: Annotated[int, Field(ge=0, le=MAX_SEQ, examples=[57])]
    epoch: Annotated[str, Field(min_length=1, max_length=200, examples=["0f3c…"])]


@consumers.post("/<name>/ack")
@operation(
    body={JSON: Ack},
    answers={200: Ack},
    refusals={
        400: "The body is no JSON.",
        404: "No consumer has this name.",
        415: "The body is not JSON.",
        422: "The seq was never given out, or a field breaks a rule.",
    },
)
def acknowledge(name: str) -> Response:
    """Move the checkpoint of the consumer to `seq` of `epoch`; on the disk when answered."""
    if not CONSUMER_NAME.fullmatch(name):
        raise NotFound(f"no consumer can be named {name!r:.80}")
    body = request.get_json()
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    ack = validated(Ack, body)
    try:
        services().checkpoints.move(name, ack.epoch, ack.seq)
    except Superseded:
        raise NotFound(f"no consumer is named {name!r}") from None
    return jsonify(seq=ack.seq, epoch=ack.epoch)
