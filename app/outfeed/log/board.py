"""The board: the figures and the chart of the live page.

The page and each update of it use the same rendering. A feature may show its own figures and panels in place of those
of types and sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from flask import Blueprint, Response, current_app, render_template, request
from flask.blueprints import BlueprintSetupState
from markupsafe import Markup

from outfeed import clock
from outfeed.display import colour_of, kind_of
from outfeed.http import addresses, identity
from outfeed.http.limits import retry_later
from outfeed.http.permission import requires
from outfeed.http.services import Services, services
from outfeed.log import live_chart
from outfeed.log.boards import BoardContent, Boards, Scope
from outfeed.log.store.activity import HOUR, RANGES, Range, has_events
from outfeed.principal import READ, EventScope
from outfeed.store.database import Connection

MAX_SHOWN_KINDS = 20
SHOWN_SHARES = 50
ROOT_SCALE = "root"  # in an address

board = Blueprint("board", __name__)


class Panels(NamedTuple):
    """The figures and the panels of a feature, as HTML."""

    figures: Markup
    side: Markup


class PanelContent(NamedTuple):
    """The input of a feature's panels.

    *counts* has the events of each type in *range_title*.
    """

    connection: Connection
    visible: EventScope
    counts: Mapping[str, int]
    range_title: str
    host_url: str


# The type of app.extensions["live_panels"], which a feature may set. It returns None if it has nothing to show.
LivePanels = Callable[[PanelContent], tuple[Markup, Markup] | None]


@board.record_once
def prepare(state: BlueprintSetupState) -> None:
    """Register the shared boards, one for each range of the chart."""
    found: Services = state.app.extensions["outfeed"]
    state.app.extensions["outfeed_boards"] = {
        name: Boards(found.database, render, lambda: len(found.hub.clients()), range_)
        for name, range_ in RANGES.items()
    }


@board.get("/swarm/board")
@requires(READ, is_page=True)
def show() -> Response:
    """Return the board alone, for a page that shows an older one.

    Returns 304 if the page shows this board. The board may lack the newest events; `data-seq` is the last seq in it.
    """
    found = _boards().recent(_scope())
    if found is None:
        return retry_later(503, "the board is being rendered for another viewer", 1)
    response = Response(found.html, mimetype="text/html")
    if request.accept_encodings["gzip"]:
        response = Response(found.gzipped, mimetype="text/html", headers={"Content-Encoding": "gzip"})
    response.set_etag(found.etag, weak=True)
    response.headers["Outfeed-Now"] = clock.timestamp()
    response.headers["Outfeed-Spread"] = f"{found.spread_secs:.3f}"
    response.make_conditional(request)
    return response


def current() -> Markup:
    """Return the board for the live page, up to the last event."""
    found = _boards().current(_scope())
    html = render_template(
        "_board.html",
        rendering=Markup(found.html.decode()),  # noqa: S704 - a template made it
        spread_secs=found.spread_secs,
        now=clock.timestamp(),
        agent_timeout_secs=services().settings.agent_timeout_secs,
    )
    return Markup(html)  # noqa: S704 - a template made it


def _boards() -> Boards:
    found = current_app.extensions["outfeed_boards"][_range().name]
    assert isinstance(found, Boards)
    return found


def _range() -> Range:
    return RANGES.get(request.args.get("range", ""), HOUR)


def shown_kinds() -> frozenset[str]:
    """Return the kinds that the request's address names."""
    return frozenset(islice(filter(None, request.args.get("kind", "").split(",")), MAX_SHOWN_KINDS))


def _scope() -> Scope:
    is_root = request.args.get("scale") == ROOT_SCALE
    return Scope(identity.principal().visible.types, shown_kinds(), f"{addresses.of_site()}/", is_root)


def render(scope: Scope, content: BoardContent) -> str:
    """Return the board as HTML."""
    visible = EventScope(scope.types)
    figures = live_chart.count(content.activity, visible, services().displays.current().by_type)
    return render_template(
        "_board_rows.html",
        chart=live_chart.draw(content.activity, visible, scope.shown, is_root=scope.is_root),
        figures=figures,
        ranges=RANGES.values(),
        panels=_panels(scope, content, visible, figures),
        is_empty=not figures.total and not has_events(content.connection, visible),
        shown_shares=SHOWN_SHARES,
        link=_link,
        kind_of=kind_of,
        colour_of=colour_of,
    )


def _panels(scope: Scope, content: BoardContent, visible: EventScope, figures: live_chart.Figures) -> Panels | None:
    make: LivePanels | None = current_app.extensions.get("live_panels")
    if make is None:
        return None
    counts = {each.name: each.number for each in figures.types}
    title = content.activity.range.title
    found = make(PanelContent(content.connection, visible, counts, title, scope.host_url))
    return Panels(*found) if found else None


def _link(begin: datetime, end: datetime | None = None, **filters: str | None) -> str:
    """Return the address of the log from *begin* to *end*, filtered."""
    times = {"from": _as_input(begin)} | ({"to": _as_input(end)} if end else {})
    return addresses.of_log(**{name: value for name, value in filters.items() if value}, **times)


def _as_input(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}".removesuffix(":00")
