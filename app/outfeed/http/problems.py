"""Error responses as `application/problem+json` (RFC 9457).

They cover every error, including those before a route was found.
"""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, g, render_template, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from outfeed.errors import (
    EngineDown,
    EventConflict,
    Forbidden,
    ForbiddenConsumer,
    InvalidEvent,
    InvalidForm,
    InvalidRequest,
    InvalidTransition,
    QueryCancelled,
    SourceError,
    TooManyChecks,
    UnknownName,
)
from outfeed.http import error_codes, permission
from outfeed.http.services import serving
from outfeed.log_message import LogMessage

RETRY_AFTER_SECS = 2
# Of pages, if the phrase of the status is not plain.
TITLES = {
    401: "Sign in to continue",
    403: "You don't have access",
    404: "Not found",
    413: "Too large",
    422: "Not accepted",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Temporarily unavailable",
}
# Texts in place of the library's.
_PLAIN: dict[type[HTTPException], str] = {
    NotFound: "Page not found.",
    RequestEntityTooLarge: "The body exceeds the limit of 8 MiB.",
    MethodNotAllowed: "This path does not take this method.",
}
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)
log = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Answer every error of the app with a problem, or a page in a browser."""
    app.register_error_handler(HTTPException, http_problem)
    app.register_error_handler(InvalidEvent, _invalid_event)
    app.register_error_handler(InvalidRequest, _invalid_request)
    app.register_error_handler(InvalidForm, lambda error: answer(422, str(error), code="invalid_field"))
    app.register_error_handler(EventConflict, _event_conflict)
    app.register_error_handler(Forbidden, _forbidden)
    app.register_error_handler(ForbiddenConsumer, _forbidden_consumer)
    app.register_error_handler(TooManyChecks, _too_many_checks)
    app.register_error_handler(QueryCancelled, _query_cancelled)
    app.register_error_handler(InvalidTransition, _invalid_transition)
    app.register_error_handler(UnknownName, lambda error: answer(404, str(error)))
    app.register_error_handler(SourceError, _unavailable)
    app.register_error_handler(OSError, _answer_shortage)
    app.register_error_handler(Exception, _internal_error)


def problem(status: int, detail: str, **more: Any) -> Response:
    """Return the problem as a response. *more* are extension members.

    Its `type` leads to its code in the documentation.
    """
    body = error_codes.body_of(status, detail, request.script_root, more)
    return Response(orjson.dumps(body), status, content_type="application/problem+json")


def answer(status: int, detail: str, **more: Any) -> Response:
    """Return the problem as a page for a browser, else as JSON.

    A path of the API returns JSON, unless it is a page.
    """
    if wants_page():
        title = TITLES.get(status, HTTPStatus(status).phrase.capitalize())
        return Response(render_template("error.html", status=status, title=title, detail=detail), status)
    return problem(status, detail, **more)


def wants_page() -> bool:
    """Return whether a browser requests a page, or a path outside the API."""
    best = request.accept_mimetypes.best_match(["application/problem+json", "text/html"])
    is_outside = not request.path.startswith(("/api/", "/ws", "/mcp"))
    return best == "text/html" and (is_outside or permission.of_request().is_page)


def http_problem(error: HTTPException) -> Response:
    """Return an HTTP error in the app's own form."""
    status = error.code or 500
    response = answer(status, _description(error, status))
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _description(error: HTTPException, status: int) -> str:
    """Return the error's own text, or a plain one in place of the library's."""
    plain = _PLAIN.get(type(error))
    if plain and error.description == type(error).description:
        return plain
    return error.description or HTTPStatus(status).phrase


def _invalid_event(error: InvalidEvent) -> Response:
    return _about_event(422, error, field=error.field, code="invalid_event")


def _event_conflict(error: EventConflict) -> Response:
    return _about_event(409, error, code="event_conflict")


def _about_event(status: int, error: InvalidEvent | EventConflict, **more: Any) -> Response:
    if error.index is None:
        return answer(status, str(error), **more)
    return answer(status, f"event {error.index}: {error}", index=error.index, **more)


def _invalid_request(error: InvalidRequest) -> Response:
    return answer(422, str(error), code=error.code)


def _forbidden(error: Forbidden) -> Response:
    serving().metrics.note_refusal("forbidden", path=request.path, error=error)
    return answer(403, str(error))


def _forbidden_consumer(error: ForbiddenConsumer) -> Response:
    serving().metrics.note_refusal("ownership", path=request.path, error=error)
    return answer(403, str(error), code=error.code)


def _invalid_transition(error: InvalidTransition) -> Response:
    return answer(409, str(error), state=error.state, code="invalid_transition")


def _too_many_checks(error: TooManyChecks) -> Response:
    serving().metrics.note_refusal("password_checks")
    return _unavailable_now(str(error))


def _query_cancelled(error: QueryCancelled) -> Response:
    serving().metrics.note_refusal("slow_query", path=request.path)
    return _unavailable_now(str(error), code="query_cancelled")


def _unavailable(error: SourceError) -> Response:
    log.error(LogMessage("database unavailable", path=request.path, error=error))
    serving().metrics.note_refusal("engine" if isinstance(error, EngineDown) else "database")
    return _unavailable_now(error.in_short, code=error.code)


def _unavailable_now(detail: str, **more: Any) -> Response:
    response = answer(503, detail, **more)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECS)
    return response


def _answer_shortage(error: OSError) -> Response:
    """Return 503 if the system has no descriptor, memory or disk space left.

    The shortage is temporary and not the request's fault.
    """
    if error.errno not in _SHORTAGES:
        return _internal_error(error)
    log.error(LogMessage("request refused", path=request.path, error=error))
    return _unavailable_now(f"the server is out of a resource: {error.strerror}")


def _internal_error(error: Exception) -> Response:
    # The edge of a request: the traceback goes to the log, not to the client.
    log.error(LogMessage("request failed", method=request.method, path=request.path), exc_info=error)
    serving().metrics.note_error("request", error)
    request_id = g.get("request_id")
    if wants_page():
        named = f" (request {request_id})" if request_id else ""
        return answer(500, f"Something went wrong on our side{named}. It has been logged.")
    logged = f"It was logged as request {request_id}." if request_id else "It was logged."
    return answer(500, f"Internal server error. {logged}")
