"""The HTTP API: write events, read the log, read the feed by cursor, and the description of it all.

Each view names its shapes with `@operation`; they check what comes in and make /api/openapi.json.
"""

from __future__ import annotations

from flask import Blueprint

from app.web.api.docs import docs
from app.web.api.events import events
from app.web.api.feed import feeds

api = Blueprint("api", __name__, url_prefix="/api")
for part in (events, feeds, docs):
    api.register_blueprint(part)
