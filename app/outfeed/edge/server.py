"""`outfeed edge`: the same server as the origin's, over the engine."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from flask import Flask
from gunicorn.arbiter import Arbiter

from outfeed.cli import show
from outfeed.config import Settings, warn_of_unknown_settings
from outfeed.config.addresses import url_host
from outfeed.edge.engine import Engine
from outfeed.edge.web import create_edge
from outfeed.errors import ConfigError
from outfeed.http import logs
from outfeed.http.server import binding
from outfeed.http.server.serve import Server, raise_descriptor_limit
from outfeed.metrics import Metrics

_REQUIRED = {
    "engine": "the Redis or Valkey that the origin fills, like redis://192.0.2.1:6379/0",
    "origin_url": "the address of the origin, like https://feed.example",
    "secret_key": "the origin's key: its OUTFEED_SECRET_KEY, or the content of <database>.secret",
}


def serve(settings: Settings) -> None:
    """Serve viewers until SIGTERM or SIGINT. Raises ConfigError."""
    logs.configure(settings)
    warn_of_unknown_settings()
    missing = [
        f"OUTFEED_{name.upper()}: must be {what}" for name, what in _REQUIRED.items() if not getattr(settings, name)
    ]
    if missing:
        raise ConfigError("\n".join(missing))
    raise_descriptor_limit(settings)
    binding.require_free(settings)
    EdgeServer(settings).run()


class EdgeServer(Server):
    """gunicorn with the settings of the origin's server and an edge's app."""

    def __init__(self, settings: Settings) -> None:
        self._edge = secrets.token_hex(8)
        super().__init__(settings)

    def load(self) -> Flask:
        """Return the worker's app; gunicorn calls this after the fork."""
        metrics = Metrics.shared(self._metrics.path, self._number) if self._metrics else Metrics()
        return create_edge(self.settings, metrics, self._number, self._edge)

    def _announce(self, arbiter: Arbiter) -> None:
        host, port = arbiter.LISTENERS[0].sock.getsockname()[:2]
        assert self.settings.engine is not None
        engine = Engine(self.settings.engine.get_secret_value())
        show.say(f"Outfeed serves http://{url_host(host)}:{port} from {engine.address}")
        show.say(f"Pages and publishing: {urlsplit(self.settings.origin_url or '').geturl()}")
        engine.close()

    def _clean_up(self, _: Arbiter) -> None:
        if self._metrics is not None:
            self._metrics.remove()
        show.say("Outfeed stopped.")
