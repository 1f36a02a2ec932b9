"""Reports.

Each edge says in the engine how it is, and the origin lists them.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ValidationError

from outfeed.edge.engine import EDGE, Engine
from outfeed.errors import EngineDown
from outfeed.feature import Part
from outfeed.jobs import Job
from outfeed.log_message import LogMessage
from outfeed.metrics import PREFIX
from outfeed.store.serving import version

if TYPE_CHECKING:
    from outfeed.http.services import Serving

REPORT_SECS = 3.0
LIFETIME_SECS = 10
MAX_EDGES = 1000
log = logging.getLogger(__name__)


class EdgeReport(BaseModel):
    """How one edge is.

    Its address, workers and clients, and the *position* of its last read.
    """

    name: str
    address: str
    workers: int
    clients: int
    position: int
    version: str


class Reporter(Part):
    """Writes the report of an edge, in its first worker."""

    def __init__(self, serving: Serving, engine: Engine, edge: str, *, is_first: bool) -> None:
        self._serving = serving
        self._engine = engine
        self._edge = edge
        self.jobs = {"report": Job(self.write, REPORT_SECS)} if is_first else {}

    def write(self) -> None:
        """Write the report. Never raises: the origin misses an edge that can't."""
        settings = self._serving.settings
        report = EdgeReport(
            name=socket.gethostname(),
            address=settings.bind,
            workers=settings.workers,
            clients=self._count_clients(),
            position=self._serving.hub.position,
            version=version(),
        )
        text = orjson.dumps(report.model_dump())
        try:
            self._engine.call(lambda client: client.set(EDGE + self._edge, text, ex=LIFETIME_SECS))
        except EngineDown as error:
            log.debug(LogMessage("report not written, trying again", error=error))

    def _count_clients(self) -> int:
        self._serving.measure()
        return int(
            sum(
                sample.value
                for _, families in self._serving.metrics.by_worker()
                for family in families
                if family.name == f"{PREFIX}clients"
                for sample in family.samples
            )
        )


def list_edges(engine: Engine) -> list[EdgeReport]:
    """Return the reports of the last LIFETIME_SECS, by name and address.

    Raises EngineDown.
    """

    def read(client: Any) -> list[bytes | None]:
        keys = [key for key, _ in zip(client.scan_iter(match=f"{EDGE}*", count=1000), range(MAX_EDGES), strict=False)]
        return list(client.mget(keys)) if keys else []

    found = []
    for text in engine.call(read):
        try:
            found.append(EdgeReport.model_validate_json(text or b""))
        except ValidationError:
            continue  # it has expired since the scan, or another version wrote it
    return sorted(found, key=lambda each: (each.name, each.address))
