"""The feature: edges.

The other modules of this folder, and redis, are imported only if OUTFEED_ENGINE is set or for `outfeed edge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.feature import Feature, Finding, Process, Samples
from outfeed.metrics import Metric

if TYPE_CHECKING:
    from outfeed.edge.grants import EngineTickets
    from outfeed.edge.origin import OriginPart
    from outfeed.store.database import Database


class EdgeFeature(Feature):
    """Additional hosts that serve viewers."""

    commands: ClassVar[Mapping[str, str]] = {"edge": "edge.command:edge"}
    metrics: ClassVar[Mapping[str, Metric]] = {
        "engine_up": Metric("gauge", "1 if the engine answers and holds the feed, else 0."),
        "engine_position": Metric("gauge", "Last seq in the engine."),
        "engine_lag": Metric("gauge", "Seqs of the outbox that the engine lacks."),
        "engine_owner": Metric("gauge", "1 if this host's uplink owns the engine, else 0."),
        "engine_oom": Metric("counter", "Times the engine had no memory left and its stream was trimmed."),
        "origin_age_seconds": Metric("gauge", "Seconds since the origin last wrote to the engine."),
        "edge_clients": Metric("gauge", "Connected clients of an edge.", ("edge",)),
        "edge_lag": Metric("gauge", "Seqs of the outbox that an edge has not read.", ("edge",)),
    }
    status_template = "_engine_status.html"

    def check(self, settings: Settings) -> None:
        """Raise ConfigError if OUTFEED_ENGINE is set without its library."""
        if settings.engine is not None:
            _require_library()

    def prepare(self, settings: Settings) -> None:
        """Renew the epoch if edges may know other events under it.

        It is called before any client is served.
        """
        if settings.engine is not None:
            from outfeed.edge import origin

            origin.renew_epoch_if_published(settings)

    def part(self, process: Process) -> OriginPart | None:
        if process.settings.engine is None:
            return None
        from outfeed.edge.origin import OriginPart

        return OriginPart(process)

    def shared_grants(self, settings: Settings) -> EngineTickets | None:
        if settings.engine is None:
            return None
        _require_library()
        from outfeed.edge import origin

        return origin.tickets(settings)

    def check_health(self, database: Database, settings: Settings) -> Mapping[str, Iterable[Finding]]:
        if settings.engine is None:
            return {}
        from outfeed.edge import examination

        return {"engine": examination.examine(database, settings)}

    def status(self, process: Process) -> Mapping[str, Any]:
        if process.settings.engine is None:
            return {"engine": None}
        from outfeed.edge import origin

        return {"engine": origin.state_of(process)}

    def samples(self, process: Process) -> Mapping[str, Samples]:
        if process.settings.engine is None:
            return {}
        from outfeed.edge import origin

        return origin.samples_of(process)


def _require_library() -> None:
    try:
        import redis  # noqa: F401
    except ImportError as error:
        raise ConfigError("OUTFEED_ENGINE: needs the library redis; pip install 'outfeed[edge]'") from error
