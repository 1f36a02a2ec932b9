"""/status: the state of this process's feed, for operators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.feature import registered
from outfeed.feed.hub import POLL
from outfeed.feed.stats import Percentiles
from outfeed.http.permission import requires
from outfeed.http.services import Services, services
from outfeed.principal import ADMIN
from outfeed.store import db_stats

TRANSPORTS = {"websocket": "WebSocket", "stream": "Server-sent events", POLL: "Long poll"}
_CREDENTIALS = re.compile(r"(?<=//)[^/@]*@|\?.*")

status_page = Blueprint("status", __name__)


@status_page.get("/status")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators the state of the feed, clients, consumers and webhooks."""
    found = services()
    seen = db_stats.read(found.database)
    return render_template(
        "status.html",
        now=clock.now(),
        problems=found.unready_reasons(),
        stats=seen,
        oldest_at=clock.parsed(seen.oldest_at),
        relay=found.relay,
        deliveries=percentiles_of(found.relay.stats.deliveries.recent()),
        polls=percentiles_of(found.relay.stats.polls.recent()),
        clients=list(clients_of(found)),
        settings=found.settings,
        sections=[feature.status_template for feature in registered() if feature.status_template],
        **{name: value for feature in registered() for name, value in feature.status(found).items()},
    )


class Clients(NamedTuple):
    """Numbers of clients of one transport, by state.

    An *idle* client is neither live nor replaying.
    """

    transport: str
    total: int
    live: int
    replaying: int
    idle: int


def clients_of(found: Services) -> Iterator[Clients]:
    """Yield the clients of this process by transport.

    Transports without clients are included.
    """
    counts = found.hub.counts()
    for transport, label in TRANSPORTS.items():
        states = {state: count for (name, state), count in counts.items() if name == transport}
        live, replaying = states.pop("live", 0) + states.pop("waiting", 0), states.pop("replaying", 0)
        idle = sum(states.values())
        yield Clients(label, live + replaying + idle, live, replaying, idle)


def percentiles_of(found: Percentiles) -> tuple[str, str, int]:
    """Return p50 and p99 in words, and the number of samples."""
    return duration(found.p50), duration(found.p99), found.samples


def duration(secs: float | None) -> str:
    """Return a duration in a suitable unit."""
    if secs is None:
        return "–"
    if secs < 0.01:
        return f"{secs * 1000:.1f} ms"
    return f"{secs * 1000:.0f} ms" if secs < 1 else f"{secs:.1f} s"


@status_page.app_template_filter("size")
def size(count: int) -> str:
    """Return a number of bytes in a suitable unit."""
    value, units = float(count), iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and (following := next(units, None)):
        value, unit = value / 1024, following
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


@status_page.app_template_filter("ago")
def ago(moment: datetime | str | None) -> str:
    """Return the time since *moment*, in the largest unit."""
    if isinstance(moment, str):
        moment = clock.parsed(moment)
    return clock.ago(min(moment, clock.now()) if moment else None)


@status_page.app_template_filter("address")
def address(url: str) -> str:
    """Return a URL without parts that may be secret."""
    return _CREDENTIALS.sub("", url)
