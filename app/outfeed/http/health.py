"""Health: alive, and ready. Also with a slash at the end: monitors follow redirects, and a sign-in page is a 200."""

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
    """Answer 200 as long as the process answers requests."""
    return jsonify(status="alive")


@health.get("/readyz")
@health.get("/readyz/")
@public()
def readyz() -> tuple[Response, int]:
    """Answer 200 while polls are current and events can be written and delivered, else 503 with the reasons."""
    problems = services().unready_because()
    try:
        problems += triggers.problems(services().database)
    except DatabaseError as error:
        problems.append(str(error))
    problems = list(dict.fromkeys(map(_without_folder, problems)))
    return jsonify(status="unready" if problems else "ready", problems=problems), 503 if problems else 200


def _without_folder(problem: str) -> str:
    """Return *problem* without the folder of the database: anybody may ask."""
    return problem.replace(f"{services().database.path.absolute().parent}{os.sep}", "")
