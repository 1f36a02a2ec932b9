"""Compression of pages and their files: a third of the bytes.

API responses are not compressed, because they carry strong ETags. Pages with a CSRF token may be compressed. An attack
on compression (breachattack.com) needs many responses that contain the same secret: another site requests the page with
text of its choice and observes the length, and a SameSite=Lax cookie goes with each top-level GET. The token is signed
together with the second in which it was made, so its signature changes each second. Only the session's random value
stays the same, and the server rejects a request with that value and without a valid signature.
"""

from __future__ import annotations

import functools
import gzip

from flask import Flask, Response, request

TYPES = {"text/html", "text/css", "text/javascript", "image/svg+xml"}
MIN_BYTES = 1024  # a smaller response fits into one packet


def init_app(app: Flask) -> None:
    """Compress large responses for clients that accept gzip."""
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
        response.set_data(_compressed_once(data) if is_static else gzip.compress(data, 5, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        etag, _ = response.get_etag()
        if etag:
            response.set_etag(etag, weak=True)  # the bytes differ from those of uncompressed responses
    return response


@functools.lru_cache(maxsize=64)  # more than the number of files: tests/swarm/test_dashboard.py
def _compressed_once(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)
