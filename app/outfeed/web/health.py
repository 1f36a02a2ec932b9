"""Health: alive, and ready."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from outfeed.errors import DatabaseError
from outfeed.store import triggers
from outfeed.web.services import services

health = Blueprint("health", __name__)


@health.get("/healthz")
def healthz() -> Response:
    """Answer as long as requests are answered at all."""
    return jsonify(status="alive")


@health.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 while polls are current, events can be written and reach the feed; 503 with the reasons otherwise."""
    problems = services().unready_because()
    try:
        problems += triggers.problems(services().database)
    except DatabaseError as error:
        problems.append(str(error))
    problems = list(dict.fromkeys(problems))
    return jsonify(status="unready" if problems else "ready", problems=problems), 503 if problems else 200
