"""The swarm over HTTP: the coordinator's calls, what they have led to, and the form that posts a task."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, TypeVar

from flask import Blueprint, Response, redirect, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from werkzeug.exceptions import BadRequest

from app import clock
from app.feed.subscription import validated
from app.store.swarm import Agent, Bid, Task, TaskState, View, look
from app.web.services import services
from app.web.swarm_shapes import (
    AgentsQuery,
    Completion,
    Failure,
    NewAgent,
    NewBid,
    NewTask,
    Start,
    TasksQuery,
    ToolUse,
)

SHOWN_AGENTS = 500
SHOWN_OPEN = 100
SHOWN_ENDED = 20

swarm = Blueprint("swarm", __name__)
_Shape = TypeVar("_Shape", bound=BaseModel)


# --- agents -----------------------------------------------------------------------------------------------------------


@swarm.post("/api/swarm/agents")
def join() -> Response:
    """Register a new agent."""
    return _json(agent_fields(services().coordinator.join(_body(NewAgent).name)), 201)


@swarm.post("/api/swarm/agents/<agent_id>/heartbeat")
def beat(agent_id: str) -> Response:
    """Say that the agent is there. Needed only while it makes no other call."""
    return _json(agent_fields(services().coordinator.beat(agent_id)))


@swarm.delete("/api/swarm/agents/<agent_id>")
def leave(agent_id: str) -> Response:
    """Let the agent go. What it holds fails, and its bids no longer count."""
    return _json(agent_fields(services().coordinator.leave(agent_id)))


@swarm.post("/api/swarm/agents/<agent_id>/tools")
def use_tool(agent_id: str) -> Response:
    """Log that the agent called a tool, or how the call ended."""
    body = _body(ToolUse)
    agent = services().coordinator.use_tool(
        agent_id,
        body.tool_name,
        body.status,
        task_id=body.task_id,
        details={str(key): value for key, value in body.details.items()},
    )
    return _json(agent_fields(agent), 201)


@swarm.get("/api/swarm/agents")
def list_agents() -> Response:
    """Return a page of agents, newest first."""
    query = validated(AgentsQuery, request.args.to_dict())
    with look(services().database) as view:
        found, following = view.agents(**query.model_dump())
    return _json({"agents": list(map(agent_fields, found)), "next": following})


@swarm.get("/api/swarm/agents/<agent_id>")
def get_agent(agent_id: str) -> Response:
    """Return one agent."""
    with look(services().database) as view:
        return _json(agent_fields(view.agent(agent_id)))


# --- tasks ------------------------------------------------------------------------------------------------------------


@swarm.post("/api/swarm/tasks")
def post_task() -> Response:
    """Post a task. It is open for bids at once."""
    return _json(task_fields(services().coordinator.post(_body(NewTask).description)), 201)


@swarm.post("/swarm/tasks")
def post_task_by_form() -> ResponseReturnValue:
    """Post a task from the page, and go back there."""
    services().coordinator.post(request.form.get("description", ""))
    return redirect(url_for("pages.live"), 303)


@swarm.post("/api/swarm/tasks/<task_id>/bids")
def bid(task_id: str) -> Response:
    """Offer to do the task. The lowest bid wins when its time is over."""
    body = _body(NewBid)
    return _json(task_fields(services().coordinator.bid(task_id, body.agent_id, body.bid_sats)), 201)


@swarm.post("/api/swarm/tasks/<task_id>/start")
def start(task_id: str) -> Response:
    """Say that work has begun."""
    return _json(task_fields(services().coordinator.start(task_id, _body(Start).agent_id)))


@swarm.post("/api/swarm/tasks/<task_id>/complete")
def complete(task_id: str) -> Response:
    """End the task with its result."""
    body = _body(Completion)
    return _json(task_fields(services().coordinator.complete(task_id, body.agent_id, body.result)))


@swarm.post("/api/swarm/tasks/<task_id>/fail")
def fail(task_id: str) -> Response:
    """Give the task up."""
    body = _body(Failure)
    return _json(task_fields(services().coordinator.fail(task_id, body.agent_id, body.reason)))


@swarm.get("/api/swarm/tasks")
def list_tasks() -> Response:
    """Return a page of tasks, newest first. Those with the state `bidding` are the open auctions."""
    query = validated(TasksQuery, request.args.to_dict())
    with look(services().database) as view:
        found, following = view.tasks(**query.model_dump())
    return _json({"tasks": list(map(task_fields, found)), "next": following})


@swarm.get("/api/swarm/tasks/<task_id>")
def get_task(task_id: str) -> Response:
    """Return one task with its bids, the best first."""
    with look(services().database) as view:
        task, bids = view.task(task_id), view.bids(task_id)
    return _json(task_fields(task) | {"bids": list(map(_bid_fields, bids))})


@swarm.get("/api/swarm")
def get_swarm() -> Response:
    """Return the whole swarm at one moment, and the seq to follow the feed from."""
    with look(services().database) as view:
        return _json(swarm_fields(view))


# --- what they look like ----------------------------------------------------------------------------------------------


def swarm_fields(view: View) -> dict[str, Any]:
    """Return `SwarmShape`: who is there, and the newest tasks of each state."""
    epoch, seq = view.position()
    ended = (TaskState.COMPLETED, TaskState.FAILED)
    tasks = {state: view.tasks(state=state, limit=SHOWN_ENDED if state in ended else SHOWN_OPEN) for state in TaskState}
    return {
        "epoch": epoch,
        "seq": seq,
        "now": clock.timestamp(),
        "agents": list(map(agent_fields, view.present_agents(SHOWN_AGENTS))),
        "tasks": {state.value: list(map(task_fields, found)) for state, (found, _) in tasks.items()},
        "counts": view.counts(),
    }


def agent_fields(agent: Agent) -> dict[str, Any]:
    """Return `AgentShape`."""
    fields = {
        name: getattr(agent, name) for name in ("id", "name", "state", "joined_at", "seen_at", "left_at", "reason")
    }
    return fields | {"expires_at": services().coordinator.expiry_of(agent)}


def task_fields(task: Task) -> dict[str, Any]:
    """Return `TaskShape`."""
    names = (
        *("id", "description", "state", "created_at", "closes_at", "bid_count", "lowest_bid_sats", "agent_id"),
        *("agent_name", "bid_sats", "assigned_at", "started_at", "ended_at", "result", "reason"),
    )
    return {name: getattr(task, name) for name in names} | {"seconds_left": _seconds_left(task)}


def _seconds_left(task: Task) -> float | None:
    if task.state is not TaskState.BIDDING:
        return None
    left = (datetime.fromisoformat(task.closes_at) - clock.now()).total_seconds()
    return max(0.0, round(left, 3))


def _bid_fields(bid: Bid) -> dict[str, Any]:
    return {name: getattr(bid, name) for name in ("agent_id", "agent_name", "bid_sats", "created_at")}


# --- requests ---------------------------------------------------------------------------------------------------------


def _body(shape: type[_Shape]) -> _Shape:
    """Return the JSON body as *shape*; no body at all is an empty object. Raises InvalidRequest, BadRequest."""
    if not request.get_data():
        return validated(shape, {})
    try:
        fields = request.get_json()
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    if not isinstance(fields, dict):
        raise BadRequest("the body must be a JSON object")
    return validated(shape, fields)


def _json(value: Any, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, content_type="application/json")
