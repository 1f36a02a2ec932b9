"""Routes of the gateways. Each view imports its gateway's module."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict, Field

from outfeed.errors import InvalidSignature
from outfeed.http.api.operation import JSON, operation
from outfeed.http.api.receipt import WriteReceipt
from outfeed.http.permission import public, requires
from outfeed.http.problems import answer
from outfeed.principal import WRITE

incoming = Blueprint("incoming", __name__, url_prefix="/in")
_REFUSALS = {
    400: "The body is not valid JSON, not UTF-8, or not a form.",
    403: "The principal has no permission to write an event of this type.",
    409: "An event with this id already exists with different content.",
    413: "The body is larger than 8 MiB, before or after decompression.",
    415: "A form has a file, or the Content-Encoding is not gzip.",
    422: "An event breaks a rule, or the mapping finds no value for a field.",
    429: "Too many requests. Retry after the seconds in Retry-After.",
    503: "The database is busy or full. Retry after the seconds in Retry-After.",
}
Message = Annotated[str, Field(description="The text of the event.", examples=["backup done"])]
Fields = Annotated[
    dict[str, object], Field(description="The data of the event.", examples=[{"message": "backup done", "files": 310}])
]
_BODIES = {"text/plain": Message, JSON: Fields}


class IncomingQuery(BaseModel):
    """How to read the body."""

    model_config = ConfigDict(extra="forbid")

    as_: Annotated[
        str | None,
        Field(
            alias="as", max_length=80, description="The mapping of a webhook: github, alertmanager, grafana, standard."
        ),
    ] = None


@incoming.post("/<topic>")
@requires(WRITE)
@operation(
    query=IncomingQuery,
    body=_BODIES,
    answers={201: list[WriteReceipt], 200: list[WriteReceipt]},
    refusals=_REFUSALS,
)
def post_message(topic: str, query: IncomingQuery) -> Response:
    """Append the body as an event under a topic.

    The topic is an event type, or its first word: `backups` becomes `backups.message`. A text becomes `message`. A form
    or JSON becomes the data. The headers `Title` and `Level` (info, warning, error) add these fields. With
    `Idempotency-Key` the call is safe to repeat. With `as`, the body is a webhook, and each mapping says how its
    fields become events.
    """
    from outfeed.gateways import incoming as gateway

    return gateway.receive_as_principal(topic, query.as_)


@incoming.post("/at/<address>")
@public()
@operation(
    body=_BODIES,
    answers={201: list[WriteReceipt], 200: list[WriteReceipt]},
    refusals={**_REFUSALS, 401: "The signature is missing, wrong or too old.", 404: "The address does not exist."},
)
def post_at_address(address: str) -> Response:
    """Append the body as an event, at a write-only address.

    An operator makes the address with `outfeed address add`, which sets its topic, types, mapping and secret. It needs
    no token.
    """
    from outfeed.gateways import incoming as gateway

    return gateway.receive_at_address(address)


@incoming.errorhandler(InvalidSignature)
def refuse_signature(error: InvalidSignature) -> Response:
    """Answer 401 with the reason."""
    return answer(401, str(error), code="invalid_signature")
