"""Compression of pages and of what they load: a third of the bytes, where the reader's line is slow.

Not of the API: what it answers carries strong ETags. Pages with a CSRF token in them may be compressed, although
another site can have them fetched with text of its choice and watch their length (breachattack.com): a SameSite=Lax
cookie goes with each top-level GET. That takes many answers with the same secret in them. The token is signed together
with the second it was made in, so its signature is another one each second; what stays is the session's random value,
and a request with that value and no valid signature is refused.
"""

from __future__ import annotations

import functools
import gzip

from flask import Flask, Response, request

TYPES = {"text/html", "text/css", "text/javascript", "image/svg+xml"}
MIN_BYTES = 1024  # less fits one packet anyway


def init_app(app: Flask) -> None:
    """Compress what is worth it for whoever takes gzip."""
    app.after_request(_compress)


def _compress(response: Response) -> Response:
    is_static = request.path.startswith("/static/")
    if not is_static and (response.mimetype not in TYPES or response.is_streamed):
        return response
    response.vary.add("Accept-Encoding")
    is_wanted = request.accept_encodings["gzip"] and "Content-Encoding" not in response.headers
    if response.status_code != 200 or request.method != "GET" or not is_wanted:
        return response
    data = response.get_data()
    if len(data) >= MIN_BYTES:
        response.set_data(_kept(data) if is_static else gzip.compress(data, 5, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        etag, _ = response.get_etag()
        if etag:
            response.set_etag(etag, weak=True)  # not byte for byte what others get
    return response


@functools.lru_cache(maxsize=64)  # for more than there are files: tests/swarm/test_dashboard.py
def _kept(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)
