"""HTTP and WebSocket. Flask turns requests into calls on the store and the feed; no rule of theirs lives here."""

from __future__ import annotations

from flask import Flask

from outfeed.config import Settings
from outfeed.metrics import Metrics
from outfeed.web import auth, bodies, compression, guesses, limits, live, logs, problems
from outfeed.web.api import api
from outfeed.web.assets import assets
from outfeed.web.consumers import consumers
from outfeed.web.feed import feed
from outfeed.web.health import health
from outfeed.web.log import log
from outfeed.web.metrics import metrics as metrics_page
from outfeed.web.pages import pages
from outfeed.web.permission import DeclaringFlask
from outfeed.web.proxies import Proxies
from outfeed.web.services import Services
from outfeed.web.sign_in import sign_in
from outfeed.web.status import status_page
from outfeed.web.swarm import swarm
from outfeed.web.tickets import tickets

MAX_BODY_BYTES = 8 * 2**20


def create_app(settings: Settings, metrics: Metrics | None = None) -> Flask:
    """Return the app over an upgraded database. It answers at once; `start` of its Services makes the feed move.

    It counts in *metrics*, by default in its own. Raises ConfigError, UndeclaredRoute.
    """
    app = DeclaringFlask("outfeed", static_folder=None)
    app.url_map.merge_slashes = False  # werkzeug would redirect to the Host of the request, whatever that is
    app.config.update(SECRET_KEY=auth.secret_key(settings), MAX_CONTENT_LENGTH=MAX_BODY_BYTES)
    app.extensions["outfeed"] = Services(settings, metrics)
    app.wsgi_app = Proxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
    logs.init_app(app)
    bodies.init_app(app)
    problems.init_app(app)
    limits.init_app(app)
    auth.init_app(app)
    live.init_app(app)
    guesses.init_app(app)
    compression.init_app(app)
    for blueprint in (
        assets,
        health,
        metrics_page,
        sign_in,
        api,
        feed,
        consumers,
        tickets,
        swarm,
        pages,
        log,
        status_page,
    ):
        app.register_blueprint(blueprint)
    return app
