"""The app of an edge, which serves the feed from the engine's copy.

Requests for other paths are sent to the origin.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import quote

from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue

from outfeed.access import auth
from outfeed.config import Settings
from outfeed.edge.displays import EngineDisplays
from outfeed.edge.engine import Engine
from outfeed.edge.grants import EdgeRights, EngineGrants
from outfeed.edge.report import Reporter
from outfeed.edge.rules import fingerprint
from outfeed.edge.stream import EngineStream, Head, StreamWaker
from outfeed.errors import EngineDown, InvalidRequest
from outfeed.feature import Samples, registered
from outfeed.feed.source import CheckpointStore
from outfeed.history import Claim
from outfeed.http import bodies, limits, logs, parking, problems
from outfeed.http.app import MAX_BODY_BYTES, corrected
from outfeed.http.deadlines import DeadlineFlask
from outfeed.http.health import health
from outfeed.http.metrics import metrics as metrics_page
from outfeed.http.problems import problem
from outfeed.http.services import Serving, serving
from outfeed.http.transports import connection, websocket
from outfeed.http.transports.feed import feed
from outfeed.metrics import Metrics
from outfeed.principal import Principal

FEED_PATHS = ("/ws", "/api/feed", "/api/feed/stream", "/api/types")
OWN_PATHS = (*FEED_PATHS, "/healthz", "/healthz/", "/readyz", "/readyz/", "/metrics")


class EdgeServices(Serving):
    """The parts of a process of an edge.

    If the engine does not answer at the start, later polls try again.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None, worker: int, edge: str) -> None:
        assert settings.engine is not None
        assert settings.origin_url is not None
        self.engine = Engine(settings.engine.get_secret_value())
        self.origin = settings.origin_url.rstrip("/")
        self.stream = EngineStream(self.engine, self.origin, fingerprint(settings), self._take_head)
        super().__init__(settings, metrics or Metrics(), self.stream, OriginsConsumers(self.origin), _keep_no_mark)
        self.displays = EngineDisplays(self.engine)
        self.rights = EdgeRights(EngineGrants(self.engine), self.core)
        reporter = Reporter(self, self.engine, edge, is_first=worker == 0)
        self.parts = [self.rights, reporter]
        self.jobs = self.made_jobs({})
        self.waker = StreamWaker(self.engine, self.hub, self.relay.poll_if_wanted, self.core.wanted, self.metrics)

    def _take_head(self, head: Head) -> None:
        self.rights.take_head(head)
        if head.types is not None:
            self.core.note_types(head.types)

    def start(self) -> None:
        """Start to poll, every second and for each new entry of the stream."""
        self.relay.poll()
        self.core.pacer.start(self.relay.poll)
        self.jobs.start()
        self.waker.start()

    def stop(self) -> None:
        """End the threads. Returns when they have ended."""
        self.waker.stop()
        self.stop_feed()
        for part in self.parts:
            part.close()
        self.engine.close()

    def samples(self) -> Mapping[str, Samples]:
        """Return the metrics of the engine's copy."""
        try:
            window = self.stream.window()
        except EngineDown:
            return {"engine_up": [([], 0)], "origin_age_seconds": [([], self.stream.origin_age)]}
        return {
            "outbox_head": [([], window.last_seq)],
            "outbox_depth": [([], window.last_seq - window.first_seq + 1)],
            "engine_up": [([], 1)],
            "origin_age_seconds": [([], self.stream.origin_age)],
        }


def _keep_no_mark(*_: object) -> None:
    """Do nothing, because the high-water mark is at the origin."""


class OriginsConsumers(CheckpointStore):
    """Rejects every durable consumer, because checkpoints are at the origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def claim(self, name: str, by: Principal, *, may_create: bool = True) -> Claim:
        """Raise InvalidRequest."""
        raise self._refusal()

    def read(self, name: str, by: Principal) -> Claim:
        """Raise InvalidRequest."""
        raise self._refusal()

    def require(self, name: str, by: Principal) -> None:
        """Raise InvalidRequest."""
        raise self._refusal()

    def move(self, name: str, epoch: str, seq: int, by: Principal, generation: int | None = None) -> None:
        """Raise InvalidRequest."""
        raise self._refusal()

    def generations(self, names: object) -> dict[str, int]:
        """Return nothing: no consumer is connected here."""
        return {}

    def _refusal(self) -> InvalidRequest:
        return InvalidRequest(
            "origin_only", f"consumer: an edge serves no durable consumers; connect to {self._origin}"
        )


def create_edge(settings: Settings, metrics: Metrics | None = None, worker: int = 0, edge: str = "") -> Flask:
    """Return the app of an edge's *worker*; *edge* names the edge among all.

    Raises ConfigError, UndeclaredRoute.
    """
    app = DeadlineFlask("outfeed", static_folder=None)
    app.url_map.merge_slashes = False
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES)
    app.extensions["outfeed"] = EdgeServices(settings, metrics, worker, edge or secrets.token_hex(8))
    app.wsgi_app = corrected(app.wsgi_app, settings)  # type: ignore[method-assign,assignment]
    logs.init_app(app)
    bodies.init_app(app)
    problems.init_app(app)
    limits.init_app(app)
    parking.init_app(app)
    app.before_request(_send_to_origin)  # before any grant is looked up
    auth.init_app(app)
    app.before_request(_require_engine)
    connection.init_app(app)
    websocket.init_app(app)
    shared = [blueprint for feature in registered() for blueprint in feature.edge_blueprints()]
    for blueprint in (health, metrics_page, feed, *shared):
        app.register_blueprint(blueprint)
    return app


def _send_to_origin() -> ResponseReturnValue | None:
    """Redirect a browser to the same path at the origin.

    A program gets 421 with the address of the origin.
    """
    if request.path in OWN_PATHS:
        return None
    services = serving()
    assert isinstance(services, EdgeServices)
    if request.method in ("GET", "HEAD") and request.accept_mimetypes.best_match(_KINDS) == "text/html":
        query = request.query_string.decode("ascii", "replace")
        return redirect(services.origin + quote(request.path) + (f"?{query}" if query else ""))
    detail = f"this edge serves only {', '.join(FEED_PATHS)}; send the request to {services.origin}"
    return problem(421, detail, code="not_here", origin=services.origin)


_KINDS = ["application/problem+json", "text/html"]


def _require_engine() -> Response | None:
    """Reject a new viewer with 503 while the engine can't be read.

    Connected viewers wait. A new one would get no verdict.
    """
    if request.path in FEED_PATHS and request.method != "OPTIONS":
        services = serving()
        assert isinstance(services, EdgeServices)
        services.stream.window()
    return None
