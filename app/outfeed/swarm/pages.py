"""Pages of the swarm: all tasks, all agents, and the heads of stories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from flask import Blueprint, render_template, request
from flask.blueprints import BlueprintSetupState
from markupsafe import Markup

from outfeed import clock
from outfeed.errors import UnknownName
from outfeed.http import identity
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import READ
from outfeed.swarm.api import require_all_swarm_types
from outfeed.swarm.dashboard import STATE_TITLES
from outfeed.swarm.store.swarm import (
    MAX_COUNTED,
    MAX_SEARCHED,
    Agent,
    AgentState,
    NumberRange,
    Task,
    TaskState,
    read_transaction,
)

ROWS = 50
STORY_TASKS = 20
MAX_TEXT_CHARS = 200
BAR_WIDTH = 1000  # units of the drawing of a task's steps, which is stretched to the page's width

swarm_pages = Blueprint("swarm_pages", __name__)
State = TypeVar("State", bound=StrEnum)


@swarm_pages.record_once
def register_heads(state: BlueprintSetupState) -> None:
    """Register the heads of the stories of tasks and agents."""
    state.app.extensions["story_heads"] = {"task": _task_head, "agent": _agent_head}


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListPage:
    """The rows of one page, and the numbers from which its neighbours go on.

    *newer* or *older* is None if there are no such rows.
    """

    rows: Sequence[Any]
    newer: int | None
    older: int | None


@swarm_pages.get("/swarm/tasks")
@requires(READ, is_page=True)
def tasks() -> str:
    """Show all tasks, newest first, filtered and in pages."""
    require_all_swarm_types()
    filters = _filters("state", "agent", "q")
    state, span = _state(TaskState), _span()
    with read_transaction(services().database) as view:
        found = view.find_tasks(
            ROWS + 1, span, state=state, agent_id=filters.get("agent"), text=filters.get("q")
        )  # fmt: skip
        counts = view.counts()
        agent = _known(view.agent, filters.get("agent"))
    return render_template(
        "tasks.html",
        page=_page(found, span), filters=filters, state=state, counts=_count_texts(counts), agent=agent,
        searched=MAX_SEARCHED if sum(counts.values()) > MAX_SEARCHED else None,
    )  # fmt: skip


@swarm_pages.get("/swarm/agents")
@requires(READ, is_page=True)
def agents() -> str:
    """Show all agents, newest first, filtered and in pages."""
    require_all_swarm_types()
    filters = _filters("state", "q")
    state, span = _state(AgentState), _span()
    with read_transaction(services().database) as view:
        found = view.find_agents(ROWS + 1, span, state=state, text=filters.get("q"))
        counts = view.agent_counts()
        doing = view.work_of(found)
        figures = {agent.id: view.figures_of(agent.id) for agent in found[:ROWS]}
    return render_template(
        "agents.html",
        page=_page(found, span), filters=filters, state=state, counts=_count_texts(counts), doing=doing,
        figures=figures, timeout_secs=services().settings.agent_timeout_secs,
    )  # fmt: skip


def _filters(*names: str) -> dict[str, str]:
    """Return the filters in the address, without empty ones."""
    given = {name: request.args.get(name, "").strip()[:MAX_TEXT_CHARS] for name in names}
    return {name: value for name, value in given.items() if value}


def _state(states: type[State]) -> State | None:
    """Return the state in the address. An unknown one is ignored."""
    given = request.args.get("state", "")
    return next((state for state in states if state == given), None)


def _span() -> NumberRange:
    return NumberRange(request.args.get("before", type=_number), request.args.get("after", type=_number))


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(f"not a number of a row: {number}")
    return number


def _page(found: Sequence[Task | Agent], span: NumberRange) -> ListPage:
    """Return the page of *found*, which has one row more if there are more."""
    has_more = len(found) > ROWS
    is_newer = span.after is not None
    rows = found[-ROWS:] if is_newer else found[:ROWS]
    if not rows:
        return ListPage(rows, None, None)
    has_newer = has_more if is_newer else span.before is not None
    has_older = True if is_newer else has_more
    return ListPage(rows, rows[0].number if has_newer else None, rows[-1].number if has_older else None)


def _count_texts(counts: dict[str, int]) -> dict[str, str]:
    return {state: f"{MAX_COUNTED:,}+" if number > MAX_COUNTED else f"{number:,}" for state, number in counts.items()}


def _known(find: Any, id_: str | None) -> Any:
    try:
        return find(id_) if id_ else None
    except UnknownName:
        return None


# --- stories ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a task on its way to the end, drawn as a bar.

    *x* and *width* are in units of BAR_WIDTH. *is_open* means that the step goes on.
    """

    name: str
    state: str
    x: float
    width: float
    secs: float
    is_open: bool


def _task_head(task_id: str) -> Markup | None:
    if not _may_see_heads():
        return None
    try:
        with read_transaction(services().database) as view:
            task, bids = view.task(task_id), view.bids(task_id)
    except UnknownName:
        return None
    values = {"task": task, "bids": bids, "steps": steps_of(task, clock.now()), "result": _result(task)}
    return Markup(render_template("_task_head.html", **values, secs=_duration(task)))  # noqa: S704 - a template made it


def _agent_head(agent_id: str) -> Markup | None:
    if not _may_see_heads():
        return None
    try:
        with read_transaction(services().database) as view:
            agent, held = view.agent(agent_id), view.held_by(agent_id)
            figures = view.figures_of(agent_id)
            found = view.find_tasks(STORY_TASKS, NumberRange(), state=None, agent_id=agent_id, text=None)
    except UnknownName:
        return None
    values = {"agent": agent, "held": held, "figures": figures, "tasks": found}
    return Markup(render_template("_agent_head.html", **values))  # noqa: S704 - a template made it


def _may_see_heads() -> bool:
    """Return whether the viewer may read all types.

    A viewer of some types may not: another writer may use the same id.
    """
    return not identity.principal().visible.types


def steps_of(task: Task, now: datetime) -> list[Step]:
    """Return the steps of *task* until its end, or until *now*."""
    moments = [
        (TaskState.BIDDING, task.created_at),
        (TaskState.ASSIGNED, task.assigned_at),
        (TaskState.STARTED, task.started_at),
    ]
    begun = [(state, datetime.fromisoformat(at)) for state, at in moments if at]
    end = datetime.fromisoformat(task.ended_at) if task.ended_at else max(now, begun[-1][1])
    ends = [*(at for _, at in begun[1:]), end]
    whole = max((end - begun[0][1]).total_seconds(), 0.001)
    found = []
    for (state, at), until in zip(begun, ends, strict=True):
        secs = max(0.0, (until - at) / timedelta(seconds=1))
        x = BAR_WIDTH * (at - begun[0][1]).total_seconds() / whole
        is_open = until is end and not task.ended_at
        found.append(Step(STATE_TITLES[state], state.value, x, max(2.0, BAR_WIDTH * secs / whole), secs, is_open))
    return found


def _duration(task: Task) -> float | None:
    """Return the seconds from the post of *task* to its end."""
    if not task.ended_at:
        return None
    return (datetime.fromisoformat(task.ended_at) - datetime.fromisoformat(task.created_at)).total_seconds()


def _result(task: Task) -> str | None:
    if task.result is None or isinstance(task.result, str):
        return task.result
    return json.dumps(task.result, ensure_ascii=False, indent=2)


@swarm_pages.app_template_filter("state_title")
def state_title(state: str) -> str:
    """Return a state of a task or an agent in words, as the live page has it."""
    return STATE_TITLES[TaskState(state)] if state in set(TaskState) else state.capitalize()


@swarm_pages.app_template_filter("elapsed")
def elapsed(secs: float) -> str:
    """Return a duration in words."""
    if secs < 60:
        return f"{secs:.1f} s"
    if secs < 3600:
        return f"{int(secs // 60)} min {int(secs % 60)} s"
    return f"{int(secs // 3600)} h {int(secs % 3600 // 60)} min"
