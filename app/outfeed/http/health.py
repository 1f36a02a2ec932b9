"""Health checks: /healthz and /readyz, with or without a trailing slash.

A monitor follows redirects. Without the second route, the slash would lead it to the sign-in page with status 200.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from outfeed.http.permission import public
from outfeed.http.services import serving

health = Blueprint("health", __name__)


@health.get("/healthz")
@health.get("/healthz/")
@public()
def healthz() -> Response:
    """Return 200 while the process answers requests."""
    return jsonify(status="alive")


@health.get("/readyz")
@health.get("/readyz/")
@public()
def readyz() -> tuple[Response, int]:
    """Return 200 if the feed is ready, else 503 with the reasons.

    Ready means that polls are current, and that events can be written and delivered.
    """
    problems = serving().problems()
    return jsonify(status="unready" if problems else "ready", problems=problems), 503 if problems else 200
