"""Guessed addresses: an extra slash, or the prefix of an existing path."""

from __future__ import annotations

import re
from urllib.parse import quote

from flask import Flask, current_app, redirect, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from outfeed.feature import registered
from outfeed.http.problems import http_problem


def init_app(app: Flask) -> None:
    """Redirect an address without a route to a similar existing one.

    The redirect contains no host.
    """
    app.register_error_handler(NotFound, _redirect)
    app.register_error_handler(MethodNotAllowed, _redirect)


def _redirect(error: HTTPException) -> ResponseReturnValue:
    target = _find_target() if request.url_rule is None and request.method in ("GET", "HEAD") else None
    if target is None:
        return http_problem(error)
    query = request.query_string.decode("ascii", "replace")
    return redirect(request.script_root + target + (f"?{query}" if query else ""))


def _find_target() -> str | None:
    path = re.sub("/+", "/", request.path).rstrip("/")
    for feature in registered():
        if path in feature.redirects:
            return feature.redirects[path]
    adapter = current_app.create_url_adapter(request)
    is_route = path != request.path and adapter is not None and adapter.test(path, "GET")
    return quote(path) if is_route else None
