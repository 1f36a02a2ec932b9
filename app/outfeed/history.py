"""History: the items, pages and windows that a reader of the outbox gets.

Items are ready to be sent. No I/O.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from contextlib import suppress
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from outfeed.errors import Overtaken
from outfeed.events import MAX_NAME_CHARS
from outfeed.nesting import MAX_DEPTH, flattened, is_deep, may_be_deep
from outfeed.redaction import REDACTED, QuickLook, may_hold_secrets, redact


class Window(NamedTuple):
    """The range of a source at one moment: the epoch, first and last seq.

    `first_seq` is `last_seq + 1` when the source is empty. `last_seq` counts pruned events as well.
    A copy names its *origin*, the URL of the server that has the whole history. A copy can be behind: its `last_seq`
    may fall and rise again.
    """

    epoch: str
    first_seq: int
    last_seq: int
    origin: str | None = None

    @property
    def is_copy(self) -> bool:
        """Whether the source is a copy of another server's history."""
        return self.origin is not None

    def prove(self, epoch: str, cursor: int) -> None:
        """Raise Overtaken unless all events after *cursor* are still here.

        A window of another epoch than *epoch* raises it, too.
        """
        if self.epoch != epoch:
            raise Overtaken("the epoch changed")
        if self.first_seq > cursor + 1:
            raise Overtaken(f"{cursor + 1} to {self.first_seq - 1} were pruned")


CONSUMER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Claim(NamedTuple):
    """The checkpoint of a durable consumer for one of its connections.

    The newest connection has the highest generation. *reset_seq* is the head at which the consumer was first told that
    its epoch has ended. Events after it have not been delivered yet.
    """

    name: str
    epoch: str
    seq: int
    generation: int
    reset_seq: int | None = None


class Item(NamedTuple):
    """One event of the outbox: its seq, its JSON as bytes, and its fields.

    `data` is only in the JSON. A field may have any type if a raw writer wrote the event.
    """

    seq: int
    json: bytes
    id: str | None
    event_type: str
    source: str | None
    task_id: str | None
    agent_id: str | None
    timestamp: str | None


class Page(NamedTuple):
    """Items in seq order with the window of the same read.

    Every event up to *through* has been read. *written_at* is the earliest time at which one of them was written, as
    the rows say, or None.
    """

    window: Window
    items: list[Item]
    through: int
    written_at: object = None


def items_after(items: list[Item], seq: int) -> list[Item]:
    """Return those of *items*, which are in seq order, that follow *seq*."""
    return items[bisect_right(items, seq, key=attrgetter("seq")) :]


def read_item(seq: int, raw: bytes | None, size: int, max_event_bytes: int) -> Item:
    """Return the outbox row as an Item with valid, redacted JSON.

    *raw* is the payload. If *size*, the bytes of the whole payload, is not 0, *raw* is only its beginning.

    Never fails, so that no row can stop the relay: invalid UTF-8 becomes U+FFFD, a number beyond a double becomes its
    text, `data` nested deeper than MAX_DEPTH becomes its text with `flattened`, and `data` above *max_event_bytes*
    becomes null with `omitted_bytes`.
    """
    raw = raw or b"null"
    if may_be_deep(raw):
        raw = _flat(raw)
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        fields = _read_leniently(raw, size or len(raw))
        raw = b""
    if type(fields) is not dict or len(fields) == ("seq" in fields):
        fields, raw = _stub(data=fields), b""
    # Encoders insert a seq after the opening brace, so the object must have none of its own.
    if not raw.startswith(b'{"') or "seq" in fields:
        fields, raw = _written(fields, size or len(raw))
    if len(raw) > max_event_bytes:
        fields, raw = _written(_bounded(fields, max_event_bytes, len(raw)), len(raw))
    if may_hold_secrets(raw, fields):
        fields, raw = _redacted(raw, fields)
    return _item(seq, raw, fields)


def read_plain_item(seq: int, raw: bytes, max_event_bytes: int, look: QuickLook) -> Item | None:
    """Return the result of `read_item` if *raw* needs no change, or None.

    A result of None does not mean that *raw* needs a change: *look* recognizes most events without a secret, but not
    all.
    """
    if not raw.startswith(b'{"') or len(raw) > max_event_bytes:
        return None
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return _item(seq, raw, fields) if "seq" not in fields and look.is_plain(raw, fields) else None


def _item(seq: int, raw: bytes, fields: dict[str, Any]) -> Item:
    get = fields.get
    type_ = str(get("event_type"))
    return Item(seq, raw, get("id"), type_, get("source"), get("task_id"), get("agent_id"), get("timestamp"))


def _flat(raw: bytes) -> bytes:
    """Return the event with values that are nested too deeply as text."""
    with suppress(ValueError):  # deeper than orjson reads, or not JSON
        if not is_deep(orjson.loads(raw), MAX_DEPTH + 1):
            return raw
    return flattened(raw.decode("utf-8", "replace")).encode()


def loads_leniently(text: str) -> Any:
    """Parse JSON into a value that can be written again.

    A number beyond a double and NaN become their text, a lone surrogate becomes U+FFFD. *text* itself has no
    surrogates. Raises ValueError, RecursionError.
    """
    value = json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=str)
    return _without_surrogates(value) if "\\u" in text else value


def _read_leniently(raw: bytes, size: int) -> Any:
    text = raw.decode("utf-8", "replace")
    try:
        return loads_leniently(text)
    except (ValueError, RecursionError):
        return _read_head(text, size)


def _read_head(text: str, size: int) -> dict[str, Any]:
    """Return the fields before `data` of a payload that was cut.

    The trigger writes `data` last.
    """
    head, separator, _ = text.partition(',"data":')
    try:
        fields = json.loads(head + "}")
    except (ValueError, RecursionError):
        fields = None
    if type(fields) is not dict or not separator:
        return _stub(data=None, omitted_bytes=size)
    omitted_bytes = size - len((head + separator + "}").encode())
    return _without_surrogates(fields) | {"data": None, "omitted_bytes": omitted_bytes}


def _redacted(raw: bytes, fields: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the redacted fields and their JSON.

    The JSON is parsed again, because orjson rounds large integers.
    """
    try:
        fields = redact(loads_leniently(raw.decode()))
        return fields, _dump(fields)
    except (ValueError, RecursionError):  # nested deeper than can be written
        fields = redact({**fields, "data": None}) | {"data": REDACTED}
        return fields, _dump(fields)


def _stub(**fields: Any) -> dict[str, Any]:
    names = dict.fromkeys(("id", "source", "task_id", "agent_id", "timestamp"))
    return {"event_type": "system.unreadable", **names, **fields}


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _whole(text: str) -> int | str:
    # Python would raise for more than 4,300 digits: tests/test_history.py.
    return int(text) if len(text) <= 300 or math.isfinite(float(text)) else text


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


def _written(fields: dict[str, Any], size: int) -> tuple[dict[str, Any], bytes]:
    """Return the fields without `seq`, and their JSON.

    Values that are nested too deeply to be written are left out.
    """
    fields = {name: value for name, value in fields.items() if name != "seq"}
    try:
        return fields, _dump(fields)
    except RecursionError:
        flat = {name: value for name, value in fields.items() if not isinstance(value, dict | list)}
        fields = flat | {"data": None, "omitted_bytes": size}
        return fields, _dump(fields)


def _bounded(fields: dict[str, Any], max_event_bytes: int, raw_size: int) -> dict[str, Any]:
    """Return the fields, without `data` if it is too large.

    Every other text is cut to a readable length.
    """
    data = fields.get("data")
    rest = {name: _shortened(value) for name, value in fields.items() if name != "data"}
    try:
        size = len(_dump(data))
    except RecursionError:
        size = raw_size
    return rest | ({"data": data} if size <= max_event_bytes else {"data": None, "omitted_bytes": size})


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_NAME_CHARS:
        return value[:MAX_NAME_CHARS] + "…"
    return value


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # deeper than orjson writes, or an integer beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
