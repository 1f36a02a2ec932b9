"""HTTP and WebSocket. Flask turns requests into calls on the store and the feed; no rule of theirs lives here."""

from __future__ import annotations

from flask import Flask

from app.config import Settings
from app.web import auth, compression, limits, live, logs, problems
from app.web.api import api
from app.web.assets import assets
from app.web.consumers import consumers
from app.web.feed import feed
from app.web.health import health
from app.web.log import log
from app.web.metrics import metrics
from app.web.pages import pages
from app.web.proxies import Proxies
from app.web.services import Services
from app.web.sign_in import sign_in
from app.web.status import status_page
from app.web.swarm import swarm
from app.web.tickets import tickets

MAX_BODY_BYTES = 8 * 2**20


def create_app(settings: Settings) -> Flask:
    """Return the app over an upgraded database. It answers at once; `start` of its Services makes the feed move."""
    app = Flask("app", static_folder=None)
    app.config.update(SECRET_KEY=auth.secret_key(settings), MAX_CONTENT_LENGTH=MAX_BODY_BYTES)
    app.extensions["outfeed"] = Services(settings)
    app.wsgi_app = Proxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
    logs.init_app(app)
    problems.init_app(app)
    limits.init_app(app)
    auth.init_app(app)
    live.init_app(app)
    compression.init_app(app)
    for blueprint in (assets, health, metrics, sign_in, api, feed, consumers, tickets, swarm, pages, log, status_page):
        app.register_blueprint(blueprint)
    return app
