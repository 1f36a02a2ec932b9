"""Values of options and arguments: the callback that checks them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from outfeed import clock
from outfeed.errors import InvalidRequest

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def checked(check: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a click callback that passes a given value to *check*.

    A ValueError of *check* becomes a usage error.
    """

    def callback(_: click.Context, __: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except (ValueError, InvalidRequest) as error:
            raise click.BadParameter(str(error)) from error

    return callback


def parsed_json(value: str) -> Any:
    """Return the JSON value of an option. Raises ValueError."""
    try:
        return json.loads(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error


def duration(value: str) -> timedelta | None:
    """Return the time span of `30s`, `15m`, `12h` or `90d`, or None."""
    match = re.fullmatch(r"([1-9]\d{0,5})([smhd])", value)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None


def past(value: str) -> datetime:
    """Return a time that is given as an age or in ISO 8601.

    An age is like `15m`. Raises ValueError.
    """
    if (age := duration(value)) is not None:
        try:
            return clock.now() - age
        except OverflowError:
            raise ValueError(f"{value} lies before the year 1") from None
    if (moment := clock.parsed(value)) is None:
        raise ValueError(f"must be like 15m, 2h, 7d or 2026-01-31T12:00:00Z (got {value!r:.80})")
    return moment
