"""Every error code of HTTP and the WebSocket, its meaning and its remedy.

`/docs/errors` shows this table, and the `type` of each problem leads to its entry there.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

from outfeed.text import escaped

PAGE = "/docs/errors"
# The `type` of a problem that has no code (RFC 9457 section 4.2.1).
UNTYPED = "about:blank"


class ErrorCode(NamedTuple):
    """One code with its meaning and remedy.

    *statuses* are the HTTP statuses of responses with this code. A code that is only a WebSocket frame `error` has
    none.
    """

    statuses: tuple[int, ...]
    is_frame: bool
    meaning: str
    remedy: str


CODES: dict[str, ErrorCode] = {
    # of a subscription, an ack or a request
    "invalid_json": ErrorCode(
        (422,), True, "The message or the body is not JSON, or is nested too deeply.", "Correct the client."
    ),
    "invalid_message": ErrorCode(
        (), True, "A message on the WebSocket is not a JSON object with an `action`.", "Correct the client."
    ),
    "invalid_field": ErrorCode(
        (422,),
        True,
        "A parameter or field has a value that is not allowed. `detail` names each one.",
        "Correct the value.",
    ),
    "binary": ErrorCode(
        (), True, "The client sent a binary frame. Messages are JSON in text frames.", "Correct the client."
    ),
    "unknown_action": ErrorCode(
        (), True, "The `action` of a message does not exist.", "Use `subscribe`, `unsubscribe`, `ping` or `ack`."
    ),
    "unknown_channel": ErrorCode((), True, "The channel does not exist.", "Use the channel `events`."),
    "epoch_required": ErrorCode(
        (422,),
        True,
        "`after` was sent without the `epoch` that it belongs to.",
        "Store `epoch` and cursor together, and send both. `after=0` needs no epoch.",
    ),
    "no_consumer": ErrorCode(
        (), True, "`ack` was sent on a subscription without a consumer.", "Subscribe with `consumer` first."
    ),
    "ack_beyond": ErrorCode(
        (422,),
        True,
        "The acknowledged `seq` was never sent to this consumer.",
        "Acknowledge the `seq` of an event that was received.",
    ),
    "too_many_consumers": ErrorCode(
        (422,),
        True,
        "The owner has `OUTFEED_MAX_CONSUMERS_PER_OWNER` consumers already.",
        "Reuse a consumer, or remove one with `outfeed consumer remove`.",
    ),
    "too_many_rules": ErrorCode(
        (422,),
        False,
        "The limit of alert rules is reached.",
        "Remove a rule with `outfeed alert remove`.",
    ),
    "forbidden_consumer": ErrorCode(
        (403,),
        True,
        "The consumer belongs to another principal.",
        "Use a consumer of your own. An operator can give it to you with `outfeed consumer own`.",
    ),
    "invalid_signature": ErrorCode(
        (401,),
        False,
        "The signature of an incoming webhook is missing, wrong or too old. `detail` names the header and the rule.",
        "Compare the secret of the sender with that of the address, and the clocks of both machines.",
    ),
    # of an event
    "invalid_event": ErrorCode(
        (422,),
        False,
        "An event breaks a rule, or the body has the wrong shape. Nothing was written. `field` names the field, "
        "`index` the event of a batch.",
        "Correct the event. The rules stand in [Events and schema](events.md).",
    ),
    "event_conflict": ErrorCode(
        (409,),
        False,
        "An event with this `id` exists and has other content. Nothing was written.",
        "Use a new `id` for a new event.",
    ),
    "invalid_transition": ErrorCode(
        (409,),
        False,
        "The task or agent cannot do that in its current `state`. Nothing was written.",
        "Read the task or agent again, and decide by its `state`.",
    ),
    # of a request
    "bad_request": ErrorCode((400,), False, "The request is malformed.", "Correct the client."),
    "unauthorized": ErrorCode(
        (401,),
        False,
        "The request has no token and no session, or one that is unknown, expired or revoked.",
        "Send `Authorization: Bearer outfeed_…`, or sign in again.",
    ),
    "forbidden": ErrorCode(
        (403,),
        False,
        "The token or user lacks the permission that `detail` names, or the page's origin is not allowed.",
        "Use a token with that scope, or list the origin in `OUTFEED_ALLOWED_ORIGINS`.",
    ),
    "not_found": ErrorCode((404,), False, "The path, event, task, agent or name does not exist.", "Check the address."),
    "method_not_allowed": ErrorCode(
        (405,), False, "The path does not take this method.", "Use a method that the header `Allow` lists."
    ),
    "too_large": ErrorCode(
        (413,), False, "The body exceeds 8 MiB, counted after decompression.", "Send smaller batches."
    ),
    "unsupported_media_type": ErrorCode(
        (415,),
        False,
        "The server does not read this `Content-Type` or `Content-Encoding`.",
        "Send `application/json` or `application/x-ndjson`, and no encoding but `gzip`.",
    ),
    "uri_too_long": ErrorCode((414,), False, "The request line exceeds 368 KiB.", "Send fewer or shorter parameters."),
    "headers_too_large": ErrorCode((431,), False, "The header fields are too large.", "Send fewer or smaller headers."),
    "invalid": ErrorCode((422,), False, "The request breaks a rule. `detail` says which.", "Correct the request."),
    "upgrade_required": ErrorCode(
        (426,), False, "The path is a WebSocket of version 13.", "Connect with a WebSocket client."
    ),
    "too_many_requests": ErrorCode(
        (429,),
        False,
        "A limit of the address or token is reached: requests, sign-ins, connections or exports.",
        "Wait for the seconds in `Retry-After`, then retry.",
    ),
    # of the server
    "internal_error": ErrorCode(
        (500,),
        False,
        "The server failed unexpectedly. Its log has the traceback under the `X-Request-ID` of the response.",
        "Retry with back-off, and report the request id.",
    ),
    "not_supported": ErrorCode(
        (501,), False, "The server cannot do this as it was started.", "Start it with `outfeed serve`."
    ),
    "unavailable": ErrorCode(
        (503,),
        False,
        "The server is at a limit: connections, exports, file descriptors, memory or password checks.",
        "Wait for the seconds in `Retry-After`, then retry.",
    ),
    "query_cancelled": ErrorCode(
        (503,),
        False,
        "A query took longer than 10 s, or its client has disconnected.",
        "Narrow the filter, then send the request again.",
    ),
    "database_unavailable": ErrorCode(
        (503,),
        False,
        "The database cannot be used. `detail` gives the reason. A rejected write had no effect.",
        "Wait for the seconds in `Retry-After`, then send the same request again.",
    ),
    "engine_unavailable": ErrorCode(
        (503,),
        False,
        "The engine between origin and edges cannot be used, or is being filled. `detail` gives the reason.",
        "Wait for the seconds in `Retry-After`, then send the same request again.",
    ),
    "not_here": ErrorCode(
        (421,),
        False,
        "An edge serves the feed only. `origin` is the address of the server that has this path.",
        "Send the request to `origin`.",
    ),
    "origin_only": ErrorCode(
        (422,),
        True,
        "An edge does not serve durable consumers. `detail` names the origin.",
        "Connect to the origin.",
    ),
}
_BY_STATUS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "invalid",
    426: "upgrade_required",
    429: "too_many_requests",
    431: "headers_too_large",
    500: "internal_error",
    501: "not_supported",
    503: "unavailable",
}


def of_status(status: int) -> str | None:
    """Return the code of an error that has only an HTTP status."""
    return _BY_STATUS.get(status)


def body_of(status: int, detail: str, root: str, more: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a problem.

    *root* is the path that the server lies below. *more* are extension members.
    """
    code = more.get("code") or of_status(status)
    body = {
        "type": f"{root}{PAGE}#{code}" if code else UNTYPED,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": escaped(detail),  # a client prints it
    }
    return body | ({"code": code} if code else {}) | more
