"""Values of options and arguments: the callback that checks them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from outfeed.errors import InvalidRequest


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


def separated(value: str) -> list[str]:
    """Return the parts of *value* between commas.

    Spaces around the parts and empty parts are removed.
    """
    return [part for each in value.split(",") if (part := each.strip())]
