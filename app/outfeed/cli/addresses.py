"""The `--url` of commands that talk to a server."""

from __future__ import annotations

from urllib.parse import urlsplit

import click


def feed_address(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return *value* if it is the address of a server, by HTTP or by WebSocket."""
    return _checked(value, ("http", "https", "ws", "wss"))


def http_address(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return *value* if it is the address of a server, by HTTP."""
    return _checked(value, ("http", "https"))


def _checked(value: str | None, schemes: tuple[str, ...]) -> str | None:
    if value is not None and not _is_address(value, schemes):
        raise click.BadParameter(f"{value!r} is not an address like https://feed.example")
    return value


def _is_address(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or a bracket is not closed
        return False
