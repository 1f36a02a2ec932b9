"""The option `--url` of commands that connect to a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from outfeed.cli.values import checked


def _address(*schemes: str) -> Callable[..., Any]:
    def check(value: str) -> str:
        if not _is_address(value, schemes):
            raise ValueError(f"must be an address like https://feed.example (got {value!r})")
        return value

    return checked(check)


def _is_address(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or a bracket is not closed
        return False


feed_address = _address("http", "https", "ws", "wss")
http_address = _address("http", "https")
