"""Health checks: /healthz and /readyz, with or without a trailing slash.

A monitor follows redirects. Without the second route, the slash would lead it to the sign-in page with status 200.
"""

from __future__ import annotations

import os

from flask import Blueprint, Response, jsonify

from outfeed.errors import DatabaseError
from outfeed.http.permission import public
from outfeed.http.services import services
from outfeed.store import triggers

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
    problems = services().unready_reasons()
    try:
        problems += triggers.problems(services().database)
    except DatabaseError as error:
        problems.append(str(error))
    problems = list(dict.fromkeys(map(_without_folder, problems)))
    return jsonify(status="unready" if problems else "ready", problems=problems), 503 if problems else 200


def _without_folder(problem: str) -> str:
    """Return *problem* without the folder of the database.

    The route is public, and the folder would reveal part of the system.
    """
    return problem.replace(f"{services().database.path.absolute().parent}{os.sep}", "")
