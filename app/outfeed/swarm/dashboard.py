"""The board: panels of the swarm and the chart, rendered on the server.

The page and each update of it use the same rendering.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from flask import Blueprint, Response, current_app, render_template, request
from flask.blueprints import BlueprintSetupState
from markupsafe import Markup

from outfeed import clock
from outfeed.display import KINDS, OTHER, colour_of, kind_of
from outfeed.errors import UnknownName
from outfeed.http import addresses, identity
from outfeed.http.limits import retry_later
from outfeed.http.permission import requires
from outfeed.http.services import Services, services
from outfeed.principal import READ, WRITE, EventScope
from outfeed.swarm.api import covers_swarm
from outfeed.swarm.boards import BoardContent, Boards, Scope
from outfeed.swarm.store.activity import MINUTES, Activity
from outfeed.swarm.store.swarm import MAX_COUNTED, Agent, SwarmReader, Task, TaskState, read_transaction

SHOWN_AGENTS = 50
SHOWN_AUCTIONS = 50
SHOWN_WORK = 50
SHOWN_ENDED = 20
MAX_TEXT_CHARS = 200
MINUTES_A_ROW = 5
MAX_KINDS = 12  # in the chart; the others count as other
MAX_HIDDEN = 20
BAR, GAP, HEIGHT = 10, 2, 100  # units of the drawing, which is stretched to the page's width

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

Row = dict[str, Any]  # the fields that `_swarm_rows.html` shows
WORK = (TaskState.STARTED, TaskState.ASSIGNED)
ENDED = (TaskState.COMPLETED, TaskState.FAILED)

dashboard = Blueprint("dashboard", __name__)


@dataclass(frozen=True, slots=True)
class BoardRows:
    """The rows of a panel, and the total number of rows."""

    rows: list[Row]
    total: int

    @property
    def count(self) -> str:
        """Return the total; if not all rows are shown, also how many are."""
        shown = f", {len(self.rows)} shown" if self.total > len(self.rows) else ""
        return f"{count_text(self.total)}{shown}"


@dataclass(frozen=True, slots=True)
class Board:
    """A snapshot of the swarm: counts by state, and each panel."""

    counts: dict[str, str]
    agents: BoardRows
    auctions: BoardRows
    work: BoardRows
    ended: BoardRows


# --- views ------------------------------------------------------------------------------------------------------------


@dashboard.record_once
def prepare(state: BlueprintSetupState) -> None:
    """Register the shared boards, and the heads of task and agent stories."""
    found: Services = state.app.extensions["outfeed"]
    boards = Boards(found.database, render, lambda: len(found.hub.clients()))
    state.app.extensions["outfeed_boards"] = boards
    state.app.extensions["story_heads"] = {"task": _task_head, "agent": _agent_head}


@dashboard.get("/swarm/board")
@requires(READ, is_page=True)
def show_board() -> Response:
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


@dashboard.app_template_global()
def live_board() -> Markup:
    """Return the board and the form that posts a task, for the live page."""
    found = _boards().current(_scope())
    html = render_template(
        "_board.html",
        rendering=Markup(found.html.decode()),  # noqa: S704 - a template made it
        spread_secs=found.spread_secs,
        now=clock.timestamp(),
        may_post=covers_swarm(identity.principal().visible) and identity.principal().may(WRITE),
        agent_timeout_secs=services().settings.agent_timeout_secs,
    )
    return Markup(html)  # noqa: S704 - a template made it


def _boards() -> Boards:
    found = current_app.extensions["outfeed_boards"]
    assert isinstance(found, Boards)
    return found


def _scope() -> Scope:
    hidden = islice(filter(None, request.args.get("hide", "").split(",")), MAX_HIDDEN)
    return Scope(identity.principal().visible.types, frozenset(hidden), f"{addresses.of_site()}/")


def render(scope: Scope, content: BoardContent) -> str:
    """Return the board as HTML.

    A viewer without permission for all of the swarm's events gets only the chart.
    """
    visible = EventScope(scope.types)
    return render_template(
        "_swarm_rows.html",
        board=read_board(content.view) if covers_swarm(visible) else None,
        chart=draw(content.activity, visible, scope.hidden),
        host_url=scope.host_url,
    )


# --- stories ----------------------------------------------------------------------------------------------------------


def _task_head(task_id: str) -> Markup | None:
    return _head("task", lambda view: view.task(task_id))


def _agent_head(agent_id: str) -> Markup | None:
    return _head("agent", lambda view: view.agent(agent_id))


def _head(kind: str, find: Callable[[SwarmReader], Task | Agent]) -> Markup | None:
    """Return the head of a story if the viewer may read all types.

    A viewer of some types gets None: another writer may use the same id.
    """
    if identity.principal().visible.types:
        return None
    try:
        with read_transaction(services().database) as view:
            known = find(view)
    except UnknownName:
        return None
    return Markup(render_template("_story_head.html", kind=kind, known=known))  # noqa: S704 - a template made it


# --- the panels -------------------------------------------------------------------------------------------------------


def read_board(view: SwarmReader) -> Board:
    """Return the board of the swarm that *view* reads."""
    now = clock.now()
    counts = {TaskState(state): number for state, number in view.counts().items()}
    agents = view.present_agents(SHOWN_AGENTS)
    doing = view.work_of(agents)
    return Board(
        counts={state.value: count_text(number) for state, number in counts.items()},
        agents=BoardRows([agent_row(each, doing.get(each.id), now) for each in agents], view.present_count()),
        auctions=BoardRows(
            [auction_row(each, now) for each in view.next_auctions(SHOWN_AUCTIONS)], counts[TaskState.BIDDING]
        ),
        work=_task_rows(view, WORK, SHOWN_WORK, counts),
        ended=_task_rows(view, ENDED, SHOWN_ENDED, counts),
    )


def _task_rows(
    view: SwarmReader, states: tuple[TaskState, ...], limit: int, counts: Mapping[TaskState, int]
) -> BoardRows:
    """Return the panel of the tasks in those states.

    The task that reached its state last comes first.
    """
    found = [task for state in states for task in view.tasks(state=state, limit=limit)[0]]
    newest = sorted(found, key=_latest, reverse=True)[:limit]
    return BoardRows([task_row(task) for task in newest], sum(counts[state] for state in states))


def count_text(number: int) -> str:
    """Return a count with separators; a count above MAX_COUNTED is "10,000+"."""
    return f"{MAX_COUNTED:,}+" if number > MAX_COUNTED else f"{number:,}"


def agent_row(agent: Agent, work: str | None, now: datetime) -> Row:
    """Return the agent's row; *work* describes the task that it holds."""
    return {
        "key": agent.id,
        "state": agent.state.value,
        "name": agent.name,
        "doing": _cut(work) if work else "",
        "seen": seen(agent.seen_at, now),
        "seen_at": agent.seen_at,
    }


def seen(at: str, now: datetime) -> str:
    """Return how long ago the agent's last heartbeat was.

    Heartbeats write no event, so *at* may be old. A present agent has sent one within the timeout.
    """
    secs = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    timeout_secs = services().settings.agent_timeout_secs
    if secs >= timeout_secs:
        return f"< {_length(int(timeout_secs))} ago"
    return f"{_length(secs)} ago"


def _length(secs: int) -> str:
    return f"{secs} s" if secs < 120 else f"{secs // 60} min"


def auction_row(task: Task, now: datetime) -> Row:
    """Return the row of a task that is open for bids."""
    left = (datetime.fromisoformat(task.closes_at) - now).total_seconds()
    whole = (datetime.fromisoformat(task.closes_at) - datetime.fromisoformat(task.created_at)).total_seconds()
    return {
        "key": task.id,
        "description": _cut(task.description),
        "bids": bids_text(task.bid_count, task.lowest_bid_sats),
        "closes_at": task.closes_at,
        "left": left_text(left),
        "whole_secs": max(1, round(whole)),
        "left_secs": max(0, round(left)),
    }


def bids_text(count: int, lowest: int | None) -> str:
    """Return the number of bids and the lowest bid."""
    return f"{count:,} bid{'' if count == 1 else 's'}, lowest {lowest:,} sats" if count else "no bids yet"


def left_text(secs: float) -> str:
    """Return how long an auction stays open, rounded up to a second."""
    return _length(-int(-secs // 1)) if secs > 0 else "closing"


def task_row(task: Task) -> Row:
    """Return the row of a task that is assigned, started or ended."""
    outcome = {TaskState.COMPLETED: _result(task.result), TaskState.FAILED: task.reason}.get(
        task.state, f"{task.bid_sats or 0:,} sats"
    )
    return {
        "key": task.id,
        "state": task.state.value,
        "description": _cut(task.description),
        "about": " · ".join(filter(None, map(_isolated, (task.state.value, task.agent_name, _cut(outcome or ""))))),
        "at": _latest(task),
    }


def _isolated(text: str | None) -> str | None:
    """Isolate right-to-left *text*, so that its neighbours keep their order."""
    return f"\u2068{text}\u2069" if text and _RIGHT_TO_LEFT.search(text) else text


def _latest(task: Task) -> str:
    return task.ended_at or task.started_at or task.assigned_at or task.created_at


def _result(result: Any) -> str:
    if result is None or isinstance(result, str):
        return result or ""
    return json.dumps(result, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + "…"


# --- the chart --------------------------------------------------------------------------------------------------------


class Band(NamedTuple):
    """One kind in the chart.

    *counts* begins with the oldest minute. *path* draws the bars, as an SVG path.
    """

    kind: str
    counts: list[int]
    path: str
    is_shown: bool

    @property
    def total(self) -> int:
        """Return the number of events of the kind."""
        return sum(self.counts)

    @property
    def colour(self) -> str:
        """The name of the kind's colour."""
        return colour_of(self.kind)


@dataclass(frozen=True, slots=True)
class Chart:
    """Events per minute over the last hour, stacked by kind.

    *top* is the end of the axis.
    """

    epoch: str
    seq: int
    begin: datetime
    top: int
    peak: int
    total: int
    bands: list[Band]

    @property
    def rows(self) -> Iterator[tuple[datetime, list[int]]]:
        """Yield the table of the chart: a begin, and a count for each band.

        Each row covers MINUTES_A_ROW. The newest comes first.
        """
        for start in range(MINUTES - MINUTES_A_ROW, -1, -MINUTES_A_ROW):
            counts = [sum(band.counts[start : start + MINUTES_A_ROW]) for band in self.bands]
            yield self.begin + timedelta(minutes=start), counts


def draw(activity: Activity, visible: EventScope, hidden: Collection[str] = ()) -> Chart:
    """Return the chart of the *visible* types in *activity*.

    *hidden* kinds are counted but not drawn.
    """
    counts = _counts_by_kind(activity, visible)
    shown = [each for kind, each in counts.items() if kind not in hidden]
    sums = [sum(column) for column in zip(*shown, strict=True)] or [0]
    top = axis_end(max(sums))
    floors = [0] * MINUTES
    bands = []
    for kind in counts:
        is_shown = kind not in hidden
        bands.append(Band(kind, counts[kind], _path(floors, counts[kind], top) if is_shown else "", is_shown))
        if is_shown:
            floors = [floor + count for floor, count in zip(floors, counts[kind], strict=True)]
    return Chart(activity.epoch, activity.seq, activity.begin, top, max(sums), sum(sums), bands)


def _counts_by_kind(activity: Activity, visible: EventScope) -> dict[str, list[int]]:
    """Return the events of each minute, by kind.

    The known kinds come first, then the most frequent ones.
    """
    found: dict[str, list[int]] = {}
    for index, minute in enumerate(activity.minutes):
        for event_type, count in minute.items():
            if visible.covers(event_type):
                found.setdefault(kind_of(event_type), [0] * MINUTES)[index] += count
    others = sorted(found.keys() - set(KINDS), key=lambda kind: (-sum(found[kind]), kind))
    for kind in others[MAX_KINDS:]:
        sums = zip(found.pop(kind), found.get(OTHER, [0] * MINUTES), strict=True)
        found[OTHER] = [one + another for one, another in sums]
    order = [*KINDS[:-1], *others[:MAX_KINDS], OTHER]
    return {kind: found[kind] for kind in order if kind in found}


def axis_end(peak: int) -> int:
    """Return the lowest of 10, 20, 50, 100 … that is not below *peak*."""
    end = 10
    while end < peak:
        end = end * 5 // 2 if str(end)[0] == "2" else end * 2
    return end


def _path(floors: list[int], counts: list[int], top: int) -> str:
    """Return the SVG path of a bar for each count, each on its floor."""
    bars = []
    for index, (floor, count) in enumerate(zip(floors, counts, strict=True)):
        if count:
            y, height = HEIGHT * (1 - (floor + count) / top), HEIGHT * count / top
            bars.append(f"M{index * BAR} {y:.2f}h{BAR - GAP}v{height:.2f}h{GAP - BAR}z")
    return "".join(bars)
