"""Routes of the gateways. Each view imports its gateway's module."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import MethodNotAllowed

from outfeed.errors import InvalidSignature
from outfeed.http.api.operation import JSON, operation
from outfeed.http.api.receipt import WriteReceipt
from outfeed.http.permission import public, requires, requires_token
from outfeed.http.problems import answer, problem
from outfeed.principal import WRITE

incoming = Blueprint("incoming", __name__, url_prefix="/in")
mcp = Blueprint("mcp", __name__)
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
Content = Annotated[
    dict[str, object] | list[object] | str | float | bool | None,
    Field(description="The data of the event.", examples=[{"message": "backup done", "files": 310}]),
]
_BODIES = {"text/plain": Message, JSON: Content}


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
    from outfeed.gateways.incoming import endpoint as gateway

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
    from outfeed.gateways.incoming import endpoint as gateway

    return gateway.receive_at_address(address)


@incoming.errorhandler(InvalidSignature)
def refuse_signature(error: InvalidSignature) -> Response:
    """Answer 401 with the reason."""
    return answer(401, str(error), code="invalid_signature")


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------

otlp = Blueprint("otlp", __name__, url_prefix="/v1")
_RECORD = {
    "timeUnixNano": "1769860800000000000",
    "severityNumber": 9,
    "eventName": "backup.done",
    "body": {"stringValue": "310 files"},
    "attributes": [{"key": "session.id", "value": {"stringValue": "nightly-7"}}],
}
_SERVICE = {"attributes": [{"key": "service.name", "value": {"stringValue": "nas"}}]}


class LogsExport(BaseModel):
    """OTLP's ExportLogsServiceRequest."""

    resourceLogs: list[dict[str, object]] = Field(  # noqa: N815 - OTLP's name
        [], examples=[[{"resource": _SERVICE, "scopeLogs": [{"logRecords": [_RECORD]}]}]]
    )


class PartialSuccess(BaseModel):
    """The records that were rejected, for good."""

    rejectedLogRecords: str = Field(examples=["1"])  # noqa: N815
    errorMessage: str = Field(examples=["record 0: event_type: must be lower-case words joined by dots"])  # noqa: N815


class LogsExported(BaseModel):
    """OTLP's ExportLogsServiceResponse."""

    partialSuccess: PartialSuccess | None = Field(  # noqa: N815
        None, description="Absent if all records are stored."
    )


class RpcStatus(BaseModel):
    """An error, as google.rpc.Status."""

    code: int = Field(description="A code of gRPC.", examples=[3])
    message: str = Field(examples=["the body is not JSON: Expecting value: line 1 column 1 (char 0)"])


Signal = Annotated[Any, Field(description="Metrics or traces. They are not read.", examples=[{"resourceMetrics": []}])]


class SignalDiscarded(BaseModel):
    """An empty answer, which exporters take as success."""

    model_config = ConfigDict(extra="forbid")


@otlp.post("/logs")
@requires(WRITE)
@operation(
    body={JSON: LogsExport},
    answers={200: LogsExported},
    refusals={
        400: "The body is not a valid request.",
        413: "The body is larger than 8 MiB, before or after decompression, or its records grow too large as events.",
        415: "The body is neither JSON nor protobuf, protobuf needs the extra outfeed[otel], or the Content-Encoding is"
        " not gzip.",
        429: "Too many requests. Retry after the seconds in Retry-After.",
        503: "The database is busy or full. Retry after the seconds in Retry-After.",
    },
    errors={JSON: RpcStatus},
)
def post_logs() -> Response:
    """Append log records of OpenTelemetry, as OTLP over HTTP sends them.

    Each record becomes an event. The body is JSON, or protobuf with the extra outfeed[otel]. The answer has the same
    encoding. A rejected record does not affect the others. The call is safe to repeat.
    """
    from outfeed.gateways.otlp import endpoint as gateway

    return gateway.receive()


@otlp.post("/metrics", endpoint="discard_metrics")
@otlp.post("/traces", endpoint="discard_traces")
@requires(WRITE)
@operation(
    body={JSON: Signal},
    answers={200: SignalDiscarded},
    refusals={429: "Too many requests. Retry after the seconds in Retry-After."},
    errors={JSON: RpcStatus},
)
def discard() -> Response:
    """Accept metrics and traces of OpenTelemetry, and store nothing.

    Some programs, such as Gemini CLI, send all signals to one address, and print each refusal to their user.
    """
    from outfeed.gateways.otlp import endpoint as gateway

    return gateway.discard()


@otlp.after_request
def answer_with_status(response: Response) -> Response:
    """Return errors in the form that exporters expect."""
    if response.status_code < 400:
        return response
    from outfeed.gateways.otlp import endpoint as gateway

    return gateway.as_status(response)


# --- MCP --------------------------------------------------------------------------------------------------------------


@mcp.post("/mcp")
@requires_token()
def post_mcp() -> Response:
    """Answer one message of the Model Context Protocol."""
    try:
        from outfeed.gateways.mcp import endpoint
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "mcp_types":
            raise
        return problem(501, "MCP needs the library mcp-types: pip install 'outfeed[mcp]'")
    return endpoint.respond()


@mcp.route("/mcp", methods=["GET", "DELETE"])
@requires_token()
def refuse_mcp_session() -> Response:
    """Answer 405: MCP has no session and no stream without a request here."""
    raise MethodNotAllowed(["POST"])
