"""The swarm on the live page: counters by state, and panels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from flask import Blueprint, render_template
from flask.blueprints import BlueprintSetupState
from markupsafe import Markup

from outfeed import clock
from outfeed.events import EventType
from outfeed.http import identity
from outfeed.http.services import services
from outfeed.principal import WRITE, EventScope
from outfeed.store.database import Connection
from outfeed.swarm.api import covers_swarm
from outfeed.swarm.store.swarm import MAX_COUNTED, Agent, SwarmReader, Task, TaskState, read_transaction

SHOWN_AGENTS = 50
SHOWN_AUCTIONS = 50
SHOWN_WORK = 50
SHOWN_ENDED = 20
MAX_TEXT_CHARS = 200

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

Row = dict[str, Any]  # the fields that `_panels.html` shows
WORK = (TaskState.STARTED, TaskState.ASSIGNED)
ENDED = (TaskState.COMPLETED, TaskState.FAILED)
STATE_TITLES = {
    TaskState.BIDDING: "Open for bids",
    TaskState.ASSIGNED: "Assigned",
    TaskState.STARTED: "In progress",
    TaskState.COMPLETED: "Completed",
    TaskState.FAILED: "Failed",
}
ENTRIES = {
    TaskState.BIDDING: EventType.TASK_BIDDING,
    TaskState.ASSIGNED: EventType.TASK_ASSIGNED,
    TaskState.STARTED: EventType.TASK_STARTED,
    TaskState.COMPLETED: EventType.TASK_COMPLETED,
    TaskState.FAILED: EventType.TASK_FAILED,
}  # the event with which a task enters a state

dashboard = Blueprint("dashboard", __name__)


@dataclass(frozen=True, slots=True)
class BoardRows:
    """The rows of a panel, and the total number of rows."""

    rows: list[Row]
    total: int

    @property
    def count(self) -> str:
        """Return the total."""
        return count_text(self.total)


@dataclass(frozen=True, slots=True)
class Figure:
    """The number of tasks in a state, and how many entered it in the range."""

    state: TaskState
    count: str
    entered: int

    @property
    def title(self) -> str:
        """The state in words."""
        return STATE_TITLES[self.state]


@dataclass(frozen=True, slots=True)
class Board:
    """A snapshot of the swarm: counts by state, and each panel."""

    counts: dict[TaskState, int]
    agents: BoardRows
    auctions: BoardRows
    work: BoardRows
    ended: BoardRows


# --- the live page ----------------------------------------------------------------------------------------------------


class _Content(Protocol):
    """The input of a rendering, which the live page provides.

    *counts* has the events of each type in *range_title*.
    """

    @property
    def connection(self) -> Connection: ...
    @property
    def visible(self) -> EventScope: ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def range_title(self) -> str: ...
    @property
    def host_url(self) -> str: ...


@dashboard.record_once
def prepare(state: BlueprintSetupState) -> None:
    """Register the panels of the live page."""
    state.app.extensions["live_panels"] = panels


def panels(content: _Content) -> tuple[Markup, Markup] | None:
    """Return the counters by state and the panels, as HTML.

    Returns None if no agent and no task has existed, or if the viewer has no permission for all of the swarm's events.
    """
    view = SwarmReader(content.connection)
    if not covers_swarm(content.visible) or not view.has_existed():
        return None
    board = read_board(view)
    figures = [
        Figure(state, count_text(number), content.counts.get(ENTRIES[state], 0))
        for state, number in board.counts.items()
    ]
    counters = render_template("_counters.html", figures=figures, range_title=content.range_title)
    side = render_template("_panels.html", board=board, host_url=content.host_url)
    return Markup(counters), Markup(side)  # noqa: S704 - templates made them


@dashboard.app_template_global()
def task_form() -> Markup:
    """Return the form that posts a task, hidden until the swarm exists.

    It is empty for a viewer that may not post one.
    """
    principal = identity.principal()
    if not covers_swarm(principal.visible) or not principal.may(WRITE):
        return Markup("")
    with read_transaction(services().database) as view:
        has_swarm = view.has_existed()
    return Markup(render_template("_task_form.html", has_swarm=has_swarm))  # noqa: S704 - a template made it


# --- the panels -------------------------------------------------------------------------------------------------------


def read_board(view: SwarmReader) -> Board:
    """Return the board of the swarm that *view* reads."""
    now = clock.now()
    counts = {TaskState(state): number for state, number in view.counts().items()}
    agents = view.present_agents(SHOWN_AGENTS)
    doing = view.work_of(agents)
    return Board(
        counts=counts,
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
