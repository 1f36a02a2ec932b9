"""Application factory: Flask turns requests into calls of store and feed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Flask
from jinja2 import FileSystemLoader

from outfeed.config import Settings
from outfeed.feature import registered
from outfeed.http import bodies, compression, guesses, limits, logs, parking, problems
from outfeed.http.admin import admin
from outfeed.http.api.docs import docs
from outfeed.http.assets import PACKAGE, assets
from outfeed.http.deadlines import DeadlineFlask
from outfeed.http.docs_pages import docs_pages
from outfeed.http.health import health
from outfeed.http.metrics import metrics as metrics_page
from outfeed.http.mount import mount
from outfeed.http.proxies import Proxies
from outfeed.http.services import Services
from outfeed.http.shell import shell
from outfeed.http.status import status_page
from outfeed.http.transports import connection
from outfeed.http.transports import websocket as live
from outfeed.http.transports.feed import feed
from outfeed.metrics import Metrics

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MAX_BODY_BYTES = 8 * 2**20


def create_app(settings: Settings, metrics: Metrics | None = None) -> Flask:
    """Return the app over an upgraded database.

    The app answers requests at once. The feed moves when `start` of its Services has run. The app counts in *metrics*,
    by default in its own. Raises ConfigError, UndeclaredRoute.
    """
    app = DeadlineFlask("outfeed", static_folder=None)
    folders = [PACKAGE / "templates", *PACKAGE.glob("*/templates")]
    app.jinja_loader = FileSystemLoader(folders)
    app.url_map.merge_slashes = False  # werkzeug would redirect to the request's unchecked Host
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES)
    app.extensions["outfeed"] = Services(settings, metrics)
    app.wsgi_app = corrected(app.wsgi_app, settings)  # type: ignore[method-assign,assignment]
    logs.init_app(app)
    bodies.init_app(app)
    problems.init_app(app)
    limits.init_app(app)
    parking.init_app(app)
    for feature in registered():
        feature.init_app(app)
    connection.init_app(app)
    live.init_app(app)
    guesses.init_app(app)
    compression.init_app(app)
    own = (assets, shell, health, metrics_page, docs, docs_pages, feed, status_page, admin)
    for blueprint in (*own, *(each for feature in registered() for each in feature.blueprints())):
        app.register_blueprint(blueprint)
    return app


def corrected(wsgi_app: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Return WSGI middleware that corrects each request.

    It sets the client's address, and moves the request below the prefix. The middleware is a plain function: each
    object with a `__call__` in its place takes more of the stack of each client's thread, which has a size in steps of
    4 KiB.
    """
    proxies = Proxies(settings.trusted_proxies)

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        proxies.correct(environ)
        mount(environ, settings.prefix)
        return wsgi_app(environ, start_response)

    return respond
