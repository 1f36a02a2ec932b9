"""The event of all measurements, and how to find it in a stream of bytes."""

from __future__ import annotations

import re
import time
from typing import Any

MAX_EVENTS = 999_999
ANCHOR = b'"n":1'
ITEM = re.compile(rb'"n":1(\d{6}),"t_ns":(\d{19})')
ITEM_BYTES = 38

_TEXT = "measured, not guessed"


def make(number: int, t_ns: int) -> dict[str, Any]:
    """Return event *number* (from 1), created at *t_ns*.

    It has about 250 bytes as JSON. Number and time have a fixed width in JSON, so that a reader can check a regular
    stream by stride. The number has six digits behind a 1 that keeps the zeros.
    """
    return {
        "id": _uuid7(number),
        "event_type": "tool.called",
        "source": "bench",
        "task_id": "task-0123",
        "agent_id": "agent-0456",
        "timestamp": _timestamp(t_ns),
        "data": {"n": 1_000_000 + number, "t_ns": t_ns, "text": _TEXT},
    }


def digits(events: int) -> list[bytes]:
    """Return six strings: byte n of string k is digit k of event n + 1."""
    numbers = [f"{number:06d}" for number in range(1, events + 1)]
    return ["".join(column).encode() for column in zip(*numbers, strict=True)]


def _uuid7(number: int) -> str:
    millis = time.time_ns() // 1_000_000
    return f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{number:012x}"


def _timestamp(t_ns: int) -> str:
    seconds, nanos = divmod(t_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos // 1_000_000:03d}Z"
