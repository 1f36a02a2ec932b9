"""Durable consumers over HTTP: creation, acknowledgement and removal.

`GET /api/feed?consumer=` returns the events to acknowledge.
"""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import NotFound

from outfeed.errors import Superseded
from outfeed.feed.subscription import MAX_SEQ, ConsumerName
from outfeed.history import CONSUMER_NAME
from outfeed.http import bodies, identity
from outfeed.http.api.operation import JSON, json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import READ
from outfeed.store.checkpoint import Checkpoint

_FORBIDDEN = "The scope read is missing, or the consumer belongs to another principal (`forbidden_consumer`)."
_EPOCH = "0f3c9d2a7b1e4c58a6d0e2f4b7c91d35"

consumers = Blueprint("consumers", __name__, url_prefix="/api/consumers")


class NewConsumer(BaseModel):
    """The consumer to create."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[ConsumerName, Field(examples=["cron"])]


class Consumer(BaseModel):
    """A durable consumer, with everything up to `seq` acknowledged.

    `seq` belongs to `epoch`.
    """

    name: str = Field(examples=["cron"])
    owner: str | None = Field(
        description="`token:NAME` or `user:NAME`; null before the first claim.", examples=["token:cron"]
    )
    epoch: str = Field(examples=[_EPOCH])
    seq: int = Field(examples=[57])
    is_protected: bool = Field(description="Whether pruning keeps unacknowledged events for it.", examples=[False])


class Ack(BaseModel):
    """The position that a consumer has acknowledged.

    It is `cursor` and `epoch` of a page, or an event's seq.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    seq: Annotated[int, Field(ge=0, le=MAX_SEQ, examples=[57])]
    epoch: Annotated[str, Field(min_length=1, max_length=200, examples=[_EPOCH])]


@consumers.post("")
@requires(READ)
@operation(
    body={JSON: NewConsumer},
    answers={201: Consumer, 200: Consumer},
    refusals={
        400: "The body is not JSON.",
        403: _FORBIDDEN,
        415: "The body is not JSON.",
        422: "The name breaks a rule, or the caller has too many consumers (`too_many_consumers`).",
    },
)
def create() -> Response:
    """Create a durable consumer at the head, owned by the caller.

    The status is 200 if the consumer exists and the caller owns it or is an operator. An open connection of the
    consumer continues.
    """
    found, is_new = services().checkpoints.create(bodies.read_object(NewConsumer).name, identity.principal())
    return json_answer(_fields(found), 201 if is_new else 200)


def _fields(found: Checkpoint) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Consumer.model_fields}


@consumers.post("/<name>/ack")
@requires(READ)
@operation(
    body={JSON: Ack},
    answers={200: Ack},
    refusals={
        400: "The body is not JSON.",
        403: _FORBIDDEN,
        404: "No consumer has this name.",
        415: "The body is not JSON.",
        422: "The seq was never sent, or a field breaks a rule.",
    },
)
def acknowledge(name: str) -> Response:
    """Move the consumer's checkpoint to `seq` of `epoch`.

    The checkpoint is on disk before the response is sent.
    """
    _require_name(name)
    ack = bodies.read_object(Ack)
    try:
        services().checkpoints.move(name, ack.epoch, ack.seq, identity.principal())
    except Superseded:
        raise NotFound(f"consumer not found: {name!r}") from None
    return jsonify(seq=ack.seq, epoch=ack.epoch)


@consumers.delete("/<name>")
@requires(READ)
@operation(answers={200: Consumer}, refusals={403: _FORBIDDEN, 404: "No consumer has this name."})
def remove(name: str) -> Response:
    """Delete the consumer. Its connection ends with 4009."""
    _require_name(name)
    return json_answer(_fields(services().checkpoints.remove(name, identity.principal())))


def _require_name(name: str) -> None:
    """Raise NotFound if no consumer can have *name*."""
    if not CONSUMER_NAME.fullmatch(name):
        raise NotFound(f"no consumer can be named {name!r:.80}")
