"""A service that takes notices by HTTP, and checks their format."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.receiver import Post, Receiver, Reply, well


class ChatReceiver(Receiver):
    """Takes JSON.

    *check* returns the problems of a body, by the service's documentation.
    """

    def __init__(self, check: Callable[[Any], list[str]], behave: Callable[[Post], Reply] = well) -> None:
        super().__init__(behave=behave)
        self.check = check

    def take(self, handler: BaseHTTPRequestHandler) -> Reply:
        text = handler.rfile.read(int(handler.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = json.loads(text)
        if headers["content-type"] != "application/json":
            self.problems.append(f"content-type {headers['content-type']}")
        self.problems += self.check(body)
        post = Post(headers.get("webhook-id", ""), body, handler.path, headers, is_first=True)
        self.posts.append(post)
        return self.behave(post)


def texts_in(value: Any) -> list[str]:
    """Return every string in a JSON value."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts_in(each)]
    return [value] if isinstance(value, str) else []
