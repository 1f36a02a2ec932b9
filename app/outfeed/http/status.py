"""/status: the state of this process's feed, for operators."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.feature import registered
from outfeed.feed.hub import POLL
from outfeed.feed.stats import Percentiles
from outfeed.http import vitals
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
        tiles=list(tiles_of(found)),
        version=importlib.metadata.version("outfeed"),
        uptime_secs=found.vitals.uptime_secs,
        memory_bytes=vitals.memory_bytes(),
        free_bytes=vitals.free_bytes(found.database.path.absolute()),
        sections=[feature.status_template for feature in registered() if feature.status_template],
        **{name: value for feature in registered() for name, value in feature.status(found).items()},
    )


class Tile(NamedTuple):
    """One figure with its line over the last minutes.

    *peak* is None without a value.
    """

    name: str
    title: str
    help: str
    value: str
    peak: str | None
    points: str


def tiles_of(found: Services) -> Iterator[Tile]:
    """Yield the figures at the top of the page."""
    series = found.vitals.series()
    for name, (title, help_, text_of) in TILES.items():
        known = [value for value in series[name] if value is not None]
        value = text_of(known[-1]) if known else "–"
        yield Tile(name, title, help_, value, text_of(max(known)) if known else None, vitals.points(series[name]))


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


def number(value: float) -> str:
    """Return a number with separators, and a decimal if it is small."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:,.1f}"


# For each series of the vitals: title, explanation, and the text of a value.
TILES: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "rate": ("Events per second", "Events that were written, on average over 10 s.", number),
    "p99": (
        "Delivery, p99",
        "From the commit of an event to the write to all live clients. 99 of 100 recent deliveries were faster.",
        duration,
    ),
    "clients": ("Clients", "Connections of this worker to the feed, on all transports.", number),
    "lag": ("Largest lag", "Events that the slowest consumer, webhook or edge has not handled yet.", number),
}


@status_page.app_template_filter("span")
def span(secs: float) -> str:
    """Return a long duration in its two largest units."""
    days, hours, minutes = int(secs // 86_400), int(secs % 86_400 // 3600), int(secs % 3600 // 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{int(secs)} s"


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
