"""Export of the log as NDJSON or CSV, streamed in short reads.

Its size has no limit.
"""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from flask import Blueprint, Response, stream_with_context
from werkzeug.exceptions import Unauthorized

from outfeed.errors import QueryCancelled
from outfeed.events import Event
from outfeed.http import deadlines, identity, limits
from outfeed.http.api.operation import operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log.shapes import Lines, LogFilters
from outfeed.log.store import log_page
from outfeed.log.store.log_filter import LogFilter
from outfeed.principal import READ

EVENTS_A_PIECE = 200
COLUMNS = ("id", "event_type", "source", "task_id", "agent_id", "timestamp", "data")
BOM = "\ufeff"  # without it Excel guesses the encoding
NDJSON, CSV = "application/x-ndjson", "text/csv"

# The first characters of a formula, including full-width signs.
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
_BLANK = frozenset("\t\r\n")
# The same characters behind another separator than the comma, as in Excel in most of Europe. Quotes don't prevent that.
_INNER = re.compile(r"""(?s)((?:;|(?<=.)[|\t\r\n])[\s"']*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])""")
export = Blueprint("export", __name__, url_prefix="/api")


class ExportQuery(LogFilters):
    """Filters of the log, and the format."""

    format: Literal["ndjson", "csv"] = "ndjson"


@export.get("/events/export")
@requires(READ)
@operation(query=ExportQuery, answers={200: {NDJSON: Lines, CSV: str}})
def export_events(query: ExportQuery) -> Response:
    """Return every event that matches, newest first, as a file.

    Events that are written during the export are not included. In CSV, a text that a spreadsheet would read as a
    formula begins with `'`.
    """
    if refusal := limits.admit_export():
        return refusal
    filter_ = query.filter(identity.principal().visible, services().database)
    filter_.expression()  # raises for an invalid text before the file begins
    write, mime, header = {"ndjson": (_as_lines, NDJSON, ""), "csv": (_as_rows, CSV, BOM + _row(COLUMNS))}[query.format]
    response = Response(stream_with_context(_stream(filter_, write, header)), content_type=f"{mime}; charset=utf-8")
    limits.hold_slot(response)
    response.headers["Content-Disposition"] = f'attachment; filename="events.{query.format}"'
    return response


def _stream(filter_: LogFilter, write: Callable[[Iterable[Event]], str], header: str) -> Iterator[bytes]:
    """Yield the file in pieces.

    Closes the connection if the export must stop early, because a normal end would look complete.
    """
    yield header.encode()
    events = log_page.iterate_events(services().database, filter_)
    while piece := _next_piece(events):
        yield write(piece).encode("utf-8", "replace")
        if services().hub.closing.is_set():
            raise ConnectionResetError(errno.ECONNRESET, "the server stops")
        try:
            identity.require_not_revoked()
        except Unauthorized as error:
            raise ConnectionResetError(errno.ECONNRESET, "signed out or revoked") from error


def _next_piece(events: Iterator[Event]) -> list[Event]:
    try:
        with deadlines.limited():
            return list(itertools.islice(events, EVENTS_A_PIECE))
    except QueryCancelled as error:
        raise ConnectionResetError(errno.ECONNRESET, "the query took too long") from error


def _as_lines(events: Iterable[Event]) -> str:
    return "".join(json.dumps(event.as_dict(), ensure_ascii=False, separators=(",", ":")) + "\n" for event in events)


def _as_rows(events: Iterable[Event]) -> str:
    return "".join(
        _row([_cell(getattr(event, name)) for name in COLUMNS[:-1]] + [_data_cell(event)]) for event in events
    )


def _data_cell(event: Event) -> str:
    if event.data is None:
        return ""
    return _cell(json.dumps(event.data, ensure_ascii=False, separators=(",", ":")))


def _cell(value: object) -> str:
    """Return a text that no spreadsheet reads as a formula.

    Source: owasp.org/www-community/attacks/CSV_Injection.
    """
    text = _INNER.sub(r"\1'", "" if value is None else str(value))
    return f"'{text}" if text[:1] in _BLANK or text.lstrip()[:1] in _FORMULA else text


def _row(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
