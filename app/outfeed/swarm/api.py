"""HTTP API of the swarm, and the form that posts a task."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, redirect, request, url_for
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.errors import Forbidden
from outfeed.events import EventType
from outfeed.feed.subscription import validated
from outfeed.http import bodies, identity
from outfeed.http.api.operation import JSON, json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import READ, WRITE, EventScope
from outfeed.swarm.coordinator import Coordinator
from outfeed.swarm.part import SwarmPart
from outfeed.swarm.shapes import (
    AgentPage,
    AgentShape,
    AgentsQuery,
    Completion,
    Failure,
    NewAgent,
    NewBid,
    NewTask,
    Start,
    SwarmShape,
    TaskPage,
    TaskShape,
    TasksQuery,
    TaskStory,
    ToolUse,
)
from outfeed.swarm.store.swarm import Agent, Bid, SwarmReader, Task, TaskState, read_transaction

SHOWN_AGENTS = 500
SHOWN_OPEN = 100
SHOWN_ENDED = 20

swarm = Blueprint("swarm", __name__)

TYPES = [each for each in EventType if each.partition(".")[0] in ("task", "agent", "bid", "auction", "tool")]
NO_JSON = {400: "The body is not a JSON object.", 415: "The body is not JSON."}
NO_AGENT = {404: "No agent has this id."}
NO_TASK = {404: "No task has this id, or no agent."}
NOT_NOW = {409: "Invalid state transition; `state` is the current state."}


def coordinator() -> Coordinator:
    """Return the coordinator of this process."""
    return services().part(SwarmPart).coordinator


@swarm.before_request
def require_all_swarm_types() -> None:
    """Reject a principal that may not read all events of the swarm.

    Raises Forbidden.
    """
    if hidden := _hidden(identity.principal().visible):
        name = identity.principal().name
        raise Forbidden(f"{name} has no access to events of the type {hidden[0].value!r}, which the swarm needs")


def covers_swarm(visible: EventScope) -> bool:
    """Return whether *visible* covers every event type of the swarm."""
    return not _hidden(visible)


def _hidden(visible: EventScope) -> list[EventType]:
    return [each for each in TYPES if not visible.covers(each)]


# --- agents -----------------------------------------------------------------------------------------------------------


@swarm.post("/api/swarm/agents")
@requires(WRITE)
@operation(body={JSON: NewAgent}, answers={201: AgentShape}, refusals=NO_JSON)
def join() -> Response:
    """Register a new agent."""
    return json_answer(agent_fields(coordinator().join(_body(NewAgent).name)), 201)


@swarm.post("/api/swarm/agents/<agent_id>/heartbeat")
@requires(WRITE)
@operation(answers={200: AgentShape}, refusals=NO_AGENT | NOT_NOW)
def heartbeat(agent_id: str) -> Response:
    """Record a heartbeat of the agent.

    Needed only if the agent makes no other call.
    """
    return json_answer(agent_fields(coordinator().heartbeat(agent_id)))


@swarm.delete("/api/swarm/agents/<agent_id>")
@requires(WRITE)
@operation(answers={200: AgentShape}, refusals=NO_AGENT | NOT_NOW)
def leave(agent_id: str) -> Response:
    """Remove the agent. Its tasks fail, and its bids no longer count."""
    return json_answer(agent_fields(coordinator().leave(agent_id)))


@swarm.post("/api/swarm/agents/<agent_id>/tools")
@requires(WRITE)
@operation(body={JSON: ToolUse}, answers={201: AgentShape}, refusals=NO_JSON | NO_TASK | NOT_NOW)
def use_tool(agent_id: str) -> Response:
    """Log that the agent called a tool, or how the call ended."""
    body = _body(ToolUse)
    agent = coordinator().use_tool(
        agent_id,
        body.tool_name,
        body.status,
        task_id=body.task_id,
        details={str(key): value for key, value in body.details.items()},
    )
    return json_answer(agent_fields(agent), 201)


@swarm.get("/api/swarm/agents")
@requires(READ)
@operation(query=AgentsQuery, answers={200: AgentPage})
def list_agents(query: AgentsQuery) -> Response:
    """Return a page of agents, newest first."""
    with read_transaction(services().database) as view:
        found, following = view.agents(**query.model_dump())
    return json_answer({"agents": list(map(agent_fields, found)), "next": following})


@swarm.get("/api/swarm/agents/<agent_id>")
@requires(READ)
@operation(answers={200: AgentShape}, refusals=NO_AGENT)
def get_agent(agent_id: str) -> Response:
    """Return one agent."""
    with read_transaction(services().database) as view:
        return json_answer(agent_fields(view.agent(agent_id)))


# --- tasks ------------------------------------------------------------------------------------------------------------


@swarm.post("/api/swarm/tasks")
@requires(WRITE)
@operation(body={JSON: NewTask}, answers={201: TaskShape}, refusals=NO_JSON)
def post_task() -> Response:
    """Post a task. It is open for bids at once."""
    return json_answer(task_fields(coordinator().post(_body(NewTask).description)), 201)


@swarm.post("/swarm/tasks")
@requires(WRITE, is_page=True)
def post_task_by_form() -> ResponseReturnValue:
    """Post a task from the page and redirect to the page."""
    coordinator().post(request.form.get("description", ""))
    return redirect(url_for("pages.live"), 303)


@swarm.post("/api/swarm/tasks/<task_id>/bids")
@requires(WRITE)
@operation(body={JSON: NewBid}, answers={201: TaskShape}, refusals=NO_JSON | NO_TASK | NOT_NOW)
def bid(task_id: str) -> Response:
    """Bid for the task. The lowest bid wins when the auction closes."""
    body = _body(NewBid)
    return json_answer(task_fields(coordinator().bid(task_id, body.agent_id, body.bid_sats)), 201)


@swarm.post("/api/swarm/tasks/<task_id>/start")
@requires(WRITE)
@operation(body={JSON: Start}, answers={200: TaskShape}, refusals=NO_JSON | NO_TASK | NOT_NOW)
def start(task_id: str) -> Response:
    """Mark the task as started."""
    return json_answer(task_fields(coordinator().start(task_id, _body(Start).agent_id)))


@swarm.post("/api/swarm/tasks/<task_id>/complete")
@requires(WRITE)
@operation(body={JSON: Completion}, answers={200: TaskShape}, refusals=NO_JSON | NO_TASK | NOT_NOW)
def complete(task_id: str) -> Response:
    """Complete the task with its result."""
    body = _body(Completion)
    return json_answer(task_fields(coordinator().complete(task_id, body.agent_id, body.result)))


@swarm.post("/api/swarm/tasks/<task_id>/fail")
@requires(WRITE)
@operation(body={JSON: Failure}, answers={200: TaskShape}, refusals=NO_JSON | NO_TASK | NOT_NOW)
def fail(task_id: str) -> Response:
    """Mark the task as failed."""
    body = _body(Failure)
    return json_answer(task_fields(coordinator().fail(task_id, body.agent_id, body.reason)))


@swarm.get("/api/swarm/tasks")
@requires(READ)
@operation(query=TasksQuery, answers={200: TaskPage})
def list_tasks(query: TasksQuery) -> Response:
    """Return a page of tasks, newest first.

    The tasks in the state `bidding` are the open auctions.
    """
    with read_transaction(services().database) as view:
        found, following = view.tasks(**query.model_dump())
    return json_answer({"tasks": list(map(task_fields, found)), "next": following})


@swarm.get("/api/swarm/tasks/<task_id>")
@requires(READ)
@operation(answers={200: TaskStory}, refusals=NO_TASK)
def get_task(task_id: str) -> Response:
    """Return one task with its bids, the lowest first."""
    with read_transaction(services().database) as view:
        task, bids = view.task(task_id), view.bids(task_id)
    return json_answer(task_fields(task) | {"bids": list(map(_bid_fields, bids))})


@swarm.get("/api/swarm")
@requires(READ)
@operation(answers={200: SwarmShape})
def get_swarm() -> Response:
    """Return a snapshot of the swarm, and the seq to follow the feed from."""
    with read_transaction(services().database) as view:
        return json_answer(swarm_fields(view))


# --- answers ----------------------------------------------------------------------------------------------------------


def swarm_fields(view: SwarmReader) -> dict[str, Any]:
    """Return the fields of `SwarmShape`.

    They contain the agents that have not left, and the newest tasks of each state.
    """
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
    """Return the fields of `AgentShape`."""
    fields = {
        name: getattr(agent, name) for name in ("id", "name", "state", "joined_at", "seen_at", "left_at", "reason")
    }
    return fields | {"expires_at": coordinator().expiry_of(agent)}


def task_fields(task: Task) -> dict[str, Any]:
    """Return the fields of `TaskShape`."""
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


def _body(model: type[bodies.Model]) -> bodies.Model:
    """Return the JSON body as *model*; an empty body is an empty object."""
    return bodies.read_object(model) if request.get_data() else validated(model, {})
