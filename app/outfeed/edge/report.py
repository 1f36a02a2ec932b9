"""Reports: edges write their state to the engine for the origin."""

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
# An edge without a report for longer than this is silent. It is listed until its last report expires.
SILENT_SECS = 10.0
LIFETIME_SECS = 600
MAX_EDGES = 1000
log = logging.getLogger(__name__)


class EdgeReport(BaseModel):
    """The state of one edge.

    *position* is that of its last read, and *age* the seconds since the report.
    """

    name: str
    address: str
    workers: int
    clients: int
    position: int
    version: str
    age: float = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether the edge was killed or cut off, or has hung."""
        return self.age > SILENT_SECS


class Reporter(Part):
    """Writes the report of an edge, in its first worker."""

    def __init__(self, serving: Serving, engine: Engine, edge: str, *, is_first: bool) -> None:
        self._serving = serving
        self._engine = engine
        self._edge = edge
        self.jobs = {"report": Job(self.write, REPORT_SECS)} if is_first else {}

    def write(self) -> None:
        """Write the report. An error is logged, not raised."""
        settings = self._serving.settings
        report = EdgeReport(
            name=socket.gethostname(),
            address=settings.bind,
            workers=settings.workers,
            clients=self._count_clients(),
            position=self._serving.hub.position,
            version=version(),
        )
        self._put(orjson.dumps(report.model_dump(exclude={"age"})), LIFETIME_SECS)

    def close(self) -> None:
        """Withdraw the report: an edge that was stopped is not silent."""
        if self.jobs:
            self._put(b"", 1)

    def _put(self, text: bytes, secs: int) -> None:
        try:
            self._engine.call(lambda client: client.set(EDGE + self._edge, text, ex=secs))
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
    """Return the last report of each edge, by name and address.

    Reports of the last LIFETIME_SECS count. Raises EngineDown.
    """

    def read(client: Any) -> list[tuple[bytes | None, int]]:
        keys = [key for key, _ in zip(client.scan_iter(match=f"{EDGE}*", count=1000), range(MAX_EDGES), strict=False)]
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(key).pttl(key)
            found = pipeline.execute()
        return list(zip(found[::2], found[1::2], strict=True))

    newest: dict[tuple[str, str], EdgeReport] = {}
    for text, left_ms in sorted(engine.call(read), key=lambda each: each[1]):
        try:
            report = EdgeReport.model_validate_json(text or b"")
        except ValidationError:
            continue  # it was withdrawn, has expired since the scan, or is another version's
        age = max(0.0, LIFETIME_SECS - left_ms / 1000)
        newest[report.name, report.address] = report.model_copy(update={"age": age})
    return [newest[place] for place in sorted(newest)]
