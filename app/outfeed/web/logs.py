"""Logs: one line a happening, on stderr; text where a person looks on, JSON elsewhere; without secrets.

Each line of a request or a connection says of which one: by the id that the answer has as `X-Request-ID`.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import threading
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, has_request_context, request
from gunicorn import glogging
from pythonjsonlogger.json import JsonFormatter

from outfeed import clock
from outfeed.config import Settings
from outfeed.redaction import REDACTED, redact
from outfeed.text import escaped

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s%(where)s"
HEADER = "X-Request-ID"
# The same line again within this time is left out, and counted: what is tried every second may fail for hours.
REPEAT_SECS = 60.0
MAX_REMEMBERED = 1000
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
_FIELD = re.compile(r"(\w+)=%[-+.\d]*[a-z]")
_IN_QUERY = re.compile(r"([?&](?:code|ticket)=)[^&\s'\"]+")


def configure(settings: Settings) -> None:
    """Log to stderr as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings))
    handler.addFilter(Repeats())
    handler.addFilter(add_request)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


def formatter(settings: Settings) -> logging.Formatter:
    """Return what makes lines of records: OUTFEED_LOG_FORMAT, by default what suits the one who reads stderr."""
    is_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    return Text(TEXT_FORMAT, defaults={"where": ""}) if is_text else Json()


class Logger(glogging.Logger):
    """gunicorn's own lines, as ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers, log.propagate = [], True


def hide_secrets(text: str) -> str:
    """Return *text* without credentials, whatever line they came into: a parser quotes the request it can't read."""
    return _IN_QUERY.sub(rf"\1{REDACTED}", redact(text))


class Text(logging.Formatter):
    """Lines for people. Only a traceback takes several, and each but the first is indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of logging
        return escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        first, *traceback = hide_secrets(super().format(record)).split("\n")
        return "\n    ".join([first, *map(escaped, traceback)])


class Json(JsonFormatter):
    """An object a line: what stands as `name=%s` in a message becomes a field of that name beside it."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s", rename_fields={"levelname": "level", "name": "logger"})

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.pop("where", None)
        names = _FIELD.findall(str(record.msg))
        if names and isinstance(record.args, tuple) and len(names) == len(record.args):
            fields = {name: str(value) for name, value in zip(names, record.args, strict=True)}
            text = _FIELD.sub("", str(record.msg)).strip()
        else:
            fields, text = {}, record.getMessage()
        start = {
            "time": clock.isoformat(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "message": text,
        }
        log_data.update({**start, **{name: value for name, value in fields.items() if name not in start}})

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {key: hide_secrets(value) if isinstance(value, str) else value for key, value in log_data.items()}


class Repeats(logging.Filter):
    """Leaves out what was said a moment ago, and says how often when it says it again. `_lock` guards `_said`."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, record.levelno, record.getMessage())
        now = clock.monotonic()
        with self._lock:
            at, times = self._said.get(key, (-REPEAT_SECS, 0))
            is_again = now - at < REPEAT_SECS
            if not is_again and len(self._said) >= MAX_REMEMBERED:
                self._said.clear()
            self._said[key] = (at, times + 1) if is_again else (now, 0)
        if is_again:
            return False
        if times and isinstance(record.args, tuple):
            record.msg, record.args = f"{record.msg} repeated=%d", (*record.args, times)
        return True


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


def add_request(record: logging.LogRecord) -> bool:
    """Note on *record* in which request it was made."""
    request_id = g.get("request_id") if has_request_context() else None
    record.where = f" request={request_id}" if request_id else ""
    if request_id:
        record.request = request_id
    return True
