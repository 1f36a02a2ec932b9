"""Logs: one line a happening, on stderr; text where a person looks on, JSON elsewhere; without secrets.

Each line of a request or a connection says of which one: by the id that the answer has as `X-Request-ID`.
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
# The same line again within this time is left out, and counted: what is tried every second may fail for hours.
REPEAT_SECS = 60.0
MAX_REMEMBERED = 1000
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
_IN_QUERY = re.compile(r"([?&](?:code|ticket)=)[^&\s'\"]+")


def configure(settings: Settings) -> None:
    """Log to stderr as the settings say."""
    handler = Handler(sys.stderr)
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


def formatter(settings: Settings) -> logging.Formatter:
    """Return what makes lines of records: OUTFEED_LOG_FORMAT, by default what suits the one who reads stderr."""
    is_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    return TextFormatter(TEXT_FORMAT) if is_text else JsonFormatter()


class Logger(glogging.Logger):
    """gunicorn's own lines, as ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers, log.propagate = [], True


def hide_secrets(text: str) -> str:
    """Return *text* without credentials, whatever line they came into: a parser quotes the request it can't read."""
    return _IN_QUERY.sub(rf"\1{REDACTED}", redact(text))


class TextFormatter(logging.Formatter):
    """Lines for people. Only a traceback takes several, and each but the first is indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of logging
        return escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        first, *traceback = hide_secrets(super().format(record)).split("\n")
        return "\n    ".join([first, *map(escaped, traceback)])


class JsonFormatter(logging.Formatter):
    """An object a line: each field of a LogMessage stands beside its text."""

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
    """Write each line at most once in REPEAT_SECS, with its request and how often it was left out since the last."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._written: dict[tuple[str, int, str], tuple[float, int]] = {}  # when, and how often left out since

    def emit(self, record: logging.LogRecord) -> None:
        try:
            times = self._times_left_out(record)
            if times is not None:
                super().emit(_with_fields(record, ({"repeated": times} if times else {}) | _request_of()))
        except Exception:  # noqa: BLE001 - handlers never fail their caller; handleError writes the traceback
            self.handleError(record)

    def _times_left_out(self, record: logging.LogRecord) -> int | None:
        """Return how often *record* was left out since it was last written, None if it is left out again."""
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
    """Return a copy of *record* with *more* fields: other handlers have the same record."""
    message, changed = _message_of(record), copy.copy(record)
    changed.msg, changed.args = LogMessage(message.text, **message.fields | more), None
    return changed


def _message_of(record: logging.LogRecord) -> LogMessage:
    return record.msg if isinstance(record.msg, LogMessage) else LogMessage(record.getMessage())


# --- which request ----------------------------------------------------------------------------------------------------


def init_app(app: Flask) -> None:
    """Give each request an id, or take the one that a proxy gave it, and say it in the answer."""
    app.before_request(_begin)
    app.after_request(_say)


def _begin() -> None:
    given = request.headers.get(HEADER, "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _say(response: Response) -> Response:
    response.headers[HEADER] = g.get("request_id", "")
    return response


def _request_of() -> dict[str, object]:
    request_id = g.get("request_id") if has_request_context() else None
    return {"request": request_id} if request_id else {}
