"""What the API can do: for machines as OpenAPI, for people as a page."""

from __future__ import annotations

import functools
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, render_template

from app.web.api import openapi

docs = Blueprint("docs", __name__)


@docs.get("/openapi.json")
def specification() -> Response:
    """Return the OpenAPI document."""
    return jsonify(_document())


def _document() -> dict[str, Any]:
    return openapi.document(current_app)
