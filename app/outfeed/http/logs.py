"""Log lines on stderr: text for a terminal, JSON otherwise, no secrets.

Each line of a request or connection contains its id, which the response has as `X-Request-ID`.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import secrets
import sys
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, has_request_context, request
from gunicorn import glogging

from outfeed import clock
from outfeed.config import Settings
from outfeed.log_message import LogMessage
from outfeed.redaction import REDACTED, redact
from outfeed.text import escaped

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
HEADER = "X-Request-ID"
# A repeated line within this time is counted and not written: an action that runs each second may fail for hours.
REPEAT_SECS = 60.0
MAX_REMEMBERED = 1000
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
_IN_QUERY = re.compile(r"([?&](?:code|ticket)=)[^&\s'\"]+")


def configure(settings: Settings) -> None:
    """Log to stderr according to the settings."""
    handler = Handler(sys.stderr)
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


def formatter(settings: Settings) -> logging.Formatter:
    """Return the formatter that OUTFEED_LOG_FORMAT selects.

    `auto` selects text if stderr is a terminal, else JSON.
    """
    is_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    return TextFormatter(TEXT_FORMAT) if is_text else JsonFormatter()


class Logger(glogging.Logger):
    """gunicorn's logger, which writes through Outfeed's handler."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers, log.propagate = [], True


def hide_secrets(text: str) -> str:
    """Return *text* without credentials.

    Any line may contain one: a parser quotes the request that it can't read.
    """
    return _IN_QUERY.sub(rf"\1{REDACTED}", redact(text))


class TextFormatter(logging.Formatter):
    """Lines for people.

    Only a traceback takes several lines, and each line but the first is indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of logging
        return escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        first, *traceback = hide_secrets(super().format(record)).split("\n")
        return "\n    ".join([first, *map(escaped, traceback)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the LogMessage's fields as members."""

    def format(self, record: logging.LogRecord) -> str:
        message = _message_of(record)
        line = {
            "time": clock.isoformat(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": message.text,
        }
        fields = {name: str(value) for name, value in message.fields.items() if name not in line}
        if record.exc_info:
            fields["exc_info"] = self.formatException(record.exc_info)
        return json.dumps({name: hide_secrets(value) for name, value in (line | fields).items()})


class Handler(logging.StreamHandler[Any]):
    """Handler that writes each line at most once in REPEAT_SECS.

    It adds the request's id, and how many repetitions were omitted since the line was last written.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._written: dict[tuple[str, int, str], tuple[float, int]] = {}  # when written, and how many omitted since

    def emit(self, record: logging.LogRecord) -> None:
        try:
            times = self._omitted_count(record)
            if times is not None:
                super().emit(_with_fields(record, ({"repeated": times} if times else {}) | _request_of()))
        except Exception:  # noqa: BLE001 - a handler never fails its caller, and handleError writes the traceback
            self.handleError(record)

    def _omitted_count(self, record: logging.LogRecord) -> int | None:
        """Return how many repetitions of *record* were omitted.

        The count begins when the line was last written. Returns None if this record is omitted too.
        """
        if record.levelno < logging.WARNING:
            return 0
        key = (record.name, record.levelno, record.getMessage())
        now = clock.monotonic()
        at, times = self._written.get(key, (-REPEAT_SECS, 0))
        if now - at < REPEAT_SECS:
            self._written[key] = (at, times + 1)
            return None
        if len(self._written) >= MAX_REMEMBERED:
            self._written.clear()
        self._written[key] = (now, 0)
        return times


def _with_fields(record: logging.LogRecord, more: dict[str, object]) -> logging.LogRecord:
    """Return a copy of *record* with *more* fields.

    Other handlers receive the same record, so it is not changed.
    """
    message, changed = _message_of(record), copy.copy(record)
    changed.msg, changed.args = LogMessage(message.text, **message.fields | more), None
    return changed


def _message_of(record: logging.LogRecord) -> LogMessage:
    return record.msg if isinstance(record.msg, LogMessage) else LogMessage(record.getMessage())


# --- request ids ------------------------------------------------------------------------------------------------------


def init_app(app: Flask) -> None:
    """Give each request an id and return it in the response's header.

    An id in the request's header, which a proxy sets, is kept.
    """
    app.before_request(_set_request_id)
    app.after_request(_add_header)


def _set_request_id() -> None:
    given = request.headers.get(HEADER, "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _add_header(response: Response) -> Response:
    response.headers[HEADER] = g.get("request_id", "")
    return response


def _request_of() -> dict[str, object]:
    request_id = g.get("request_id") if has_request_context() else None
    return {"request": request_id} if request_id else {}
