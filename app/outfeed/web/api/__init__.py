"""The HTTP API: write events, read the log; and how every view under /api says what it takes and answers.

Each names its shapes with `@operation`; they check what comes in, and make /api/openapi.json.
"""

from __future__ import annotations

from flask import Blueprint

from outfeed.web.api.docs import docs
from outfeed.web.api.events import events
from outfeed.web.api.export import export

api = Blueprint("api", __name__, url_prefix="/api")
for part in (events, export, docs):
    api.register_blueprint(part)
