"""The dashboard's panels and chart, for the page as the server renders it. `static/swarm/` has the same rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.events import KINDS, display_of
from outfeed.http import identity
from outfeed.http.services import services
from outfeed.log.part import LogPart
from outfeed.log.store.activity import MINUTES, Activity
from outfeed.principal import Visible
from outfeed.swarm.api import SHOWN_OPEN, covers_swarm
from outfeed.swarm.store import MAX_COUNTED, Agent, Task, TaskState, View, look

SHOWN_AGENTS = 50
SHOWN_AUCTIONS = 50
SHOWN_WORK = 50
SHOWN_ENDED = 20
MAX_TEXT_CHARS = 200
MINUTES_A_ROW = 5
BAR, GAP, HEIGHT = 10, 2, 100  # of the drawing; it is stretched to the page

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

Row = dict[str, Any]  # what stands in the places that `_swarm_rows.html` has
WORK = (TaskState.STARTED, TaskState.ASSIGNED)
ENDED = (TaskState.COMPLETED, TaskState.FAILED)


@dataclass(frozen=True, slots=True)
class Board:
    """The swarm at one moment: counts by state, and the rows of each panel."""

    counts: dict[str, str]
    agents: list[Row]
    auctions: list[Row]
    work: list[Row]
    ended: list[Row]


def read_board() -> Board | None:
    """Return the swarm as it is; None for who may see only some of its events."""
    if not covers_swarm(identity.principal()):
        return None
    now = clock.now()
    with look(services().database) as view:
        work = _tasks(view, WORK, SHOWN_WORK)
        doing = {task.agent_id: task for task in reversed(work)}
        agents = view.present_agents(SHOWN_AGENTS)
        found = {state.value: _count(number) for state, number in zip(TaskState, view.counts().values(), strict=True)}
        return Board(
            counts=found,
            agents=[agent_row(each, doing.get(each.id), now) for each in agents],
            auctions=[auction_row(each, now) for each in _auctions(view)],
            work=[task_row(each) for each in work],
            ended=[task_row(each) for each in _tasks(view, ENDED, SHOWN_ENDED)],
        )


def _tasks(view: View, states: tuple[TaskState, ...], limit: int) -> list[Task]:
    """Return the tasks in those states, the newest to reach one first."""
    found = [task for state in states for task in view.tasks(state=state, limit=limit)[0]]
    return sorted(found, key=_latest, reverse=True)[:limit]


def _auctions(view: View) -> list[Task]:
    """Return the open auctions, the first to close first."""
    found, _ = view.tasks(state=TaskState.BIDDING, limit=SHOWN_OPEN)
    return sorted(found, key=lambda task: task.closes_at)[:SHOWN_AUCTIONS]


def _count(number: int) -> str:
    return f"{MAX_COUNTED:,}+" if number > MAX_COUNTED else f"{number:,}"


def agent_row(agent: Agent, task: Task | None, now: datetime) -> Row:
    """Return the agent's row; *task* is what it is at."""
    return {
        "key": agent.id,
        "state": agent.state.value,
        "name": agent.name,
        "doing": _cut(task.description) if task else "waits for work",
        "seen": seen(agent.seen_at, now),
        "seen_at": agent.seen_at,
    }


def seen(at: str, now: datetime) -> str:
    """Return when an agent was last heard of. Beats leave no event; but who is still there was heard of in time."""
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
        "left": left_text(left),
        "whole_secs": max(1, round(whole)),
        "left_secs": max(0, round(left)),
    }


def bids_text(count: int, lowest: int | None) -> str:
    """Return how many bids there are, and the best."""
    return f"{count:,} bid{'' if count == 1 else 's'}, lowest {lowest:,} sats" if count else "no bid yet"


def left_text(secs: float) -> str:
    """Return how long an auction is open, to the second that has begun."""
    return _length(-int(-secs // 1)) if secs > 0 else "closing"


def task_row(task: Task) -> Row:
    """Return the row of a task that somebody is at, or that has ended."""
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
    """Return *text* so that it moves nothing beside it, where it runs from the right."""
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
    """One kind in the chart: its counts, the oldest minute first, how many in all, and its bars as an SVG path."""

    kind: str
    counts: list[int]
    total: int
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Events per minute over the last hour, stacked by kind; *top* is where its axis ends."""

    epoch: str
    seq: int
    begin: datetime
    top: int
    peak: int
    total: int
    bands: list[Band]

    @property
    def counts(self) -> dict[str, list[int]]:
        """The counts by kind, for the script that goes on from here."""
        return {band.kind: band.counts for band in self.bands}

    @property
    def rows(self) -> Iterator[tuple[datetime, list[int]]]:
        """The same as a table: each MINUTES_A_ROW, the newest first, a count for each band."""
        for start in range(MINUTES - MINUTES_A_ROW, -1, -MINUTES_A_ROW):
            counts = [sum(band.counts[start : start + MINUTES_A_ROW]) for band in self.bands]
            yield self.begin + timedelta(minutes=start), counts


def read_chart(visible: Visible) -> Chart:
    """Return the chart of what may be seen."""
    return draw(services().part(LogPart).activity.read(), visible)


def draw(activity: Activity, visible: Visible) -> Chart:
    """Return the chart of *activity*."""
    counts = {kind: [0] * MINUTES for kind in KINDS}
    for index, minute in enumerate(activity.minutes):
        for event_type, count in minute.items():
            if visible.covers(event_type):
                counts[display_of(event_type).kind][index] += count
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    top = axis_end(max(sums))
    floors = [0] * MINUTES
    bands = []
    for kind in KINDS:
        bands.append(Band(kind, counts[kind], sum(counts[kind]), _path(floors, counts[kind], top)))
        floors = [floor + count for floor, count in zip(floors, counts[kind], strict=True)]
    return Chart(activity.epoch, activity.seq, activity.begin, top, max(sums), sum(sums), bands)


def axis_end(peak: int) -> int:
    """Return the first of 10, 20, 50, 100 … that *peak* does not exceed."""
    end = 10
    while end < peak:
        end = end * 5 // 2 if str(end)[0] == "2" else end * 2
    return end


def _path(floors: list[int], counts: list[int], top: int) -> str:
    """Return a bar for each count, on its floor."""
    bars = []
    for index, (floor, count) in enumerate(zip(floors, counts, strict=True)):
        if count:
            y, height = HEIGHT * (1 - (floor + count) / top), HEIGHT * count / top
            bars.append(f"M{index * BAR} {y:.2f}h{BAR - GAP}v{height:.2f}h{GAP - BAR}z")
    return "".join(bars)
