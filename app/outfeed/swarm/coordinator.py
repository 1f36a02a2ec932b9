"""The coordinator: every move of an agent or a task, and its event, in one transaction.

coordinator = default()
task = coordinator.post("Write the docs")
agent = coordinator.join("Forge")
coordinator.bid(task.id, agent.id, 50)

A deadline is a wall time in a row: it must outlive restarts, and mean the same to every process. So a clock that is set
moves it; what a clock set back would put off for long is closed at once (`is_over`), and `sweeper.py` calls
nobody overdue who had no chance to beat.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from outfeed import clock
from outfeed.config import Settings, settings
from outfeed.errors import InvalidEvent, InvalidTransition
from outfeed.events import EventType
from outfeed.nesting import MAX_DEPTH, is_deep
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.swarm import transitions
from outfeed.swarm.store.swarm import Agent, AgentState, SwarmTransaction, Task, TaskState, begin, look

# 50 characters are 200 bytes at most, so that what the scheduler logs of an agent fits any OUTFEED_MAX_EVENT_BYTES.
MAX_NAME_CHARS = 50
MAX_DESCRIPTION_CHARS = 2000
MAX_REASON_CHARS = 2000
MAX_TOOL_NAME_CHARS = 200
MAX_BID_SATS = 21_000_000 * 100_000_000  # all there will ever be
MAX_RESULT_DEPTH = MAX_DEPTH - 1
SWEEP_LIMIT = 200
# Rows are stamped behind the write lock: one from further in the future was written before the clock was set back.
FUTURE = timedelta(seconds=1)

SIGNED_OFF = "signed off"
NO_BIDS = "no bids"
BIDDERS_LEFT = "all bidders have left"
HOLDER_LEFT = "its agent left"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

ToolStatus = Literal["called", "completed", "failed"]
_TOOL_EVENTS: dict[ToolStatus, EventType] = {
    "called": EventType.TOOL_CALLED,
    "completed": EventType.TOOL_COMPLETED,
    "failed": EventType.TOOL_FAILED,
}


class Coordinator:
    """Agents and tasks of one database. Any thread of any process may call any method; what returned is on the disk.

    Each raises UnknownName for an unknown id, InvalidTransition if the state of the task or agent does not allow the
    call (nothing is written), InvalidEvent for a text or number outside the limits, DatabaseError. Every accepted call
    of an agent counts as a heartbeat.
    """

    def __init__(self, database: Database, *, auction_secs: float, agent_timeout_secs: float) -> None:
        self._database = database
        self.auction_secs = auction_secs
        self.agent_timeout_secs = agent_timeout_secs

    @classmethod
    def of(cls, settings: Settings) -> Coordinator:
        """Return the coordinator that *settings* describe."""
        return cls(
            db.at(settings.database),
            auction_secs=settings.auction_secs,
            agent_timeout_secs=settings.agent_timeout_secs,
        )

    # --- agents ---

    def join(self, name: str) -> Agent:
        """Register a new agent, idle. Its id is its own for good; names may be shared."""
        name = _text("name", name, MAX_NAME_CHARS)
        if _CONTROL.search(name):
            raise InvalidEvent("name", f"must have no control characters, got {name!r:.80}")
        agent_id = _new_id("agent")
        with begin(self._database) as step:
            event = step.log(EventType.AGENT_JOINED, agent_id=agent_id, name=name)
            step.add_agent(agent_id, event.data["name"])
            return step.agent(agent_id)

    def beat(self, agent_id: str) -> Agent:
        """Note that the agent is there. No event."""
        with begin(self._database) as step:
            return self._seen(step, agent_id)

    def leave(self, agent_id: str) -> Agent:
        """Let the agent go. What it holds fails, and its bids no longer count."""
        with begin(self._database) as step:
            self._leave(step, step.agent(agent_id), SIGNED_OFF)
            return step.agent(agent_id)

    def use_tool(
        self,
        agent_id: str,
        tool_name: str,
        status: ToolStatus,
        *,
        task_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Agent:
        """Log that the agent called a tool, or how the call ended; with *task_id*, in the course of that started task.

        *details* (arguments, reason, duration_ms …) go into the event's data.
        """
        tool_name = _text("tool_name", tool_name, MAX_TOOL_NAME_CHARS)
        with begin(self._database) as step:
            agent = self._seen(step, agent_id)
            if task_id is not None:
                task = step.task(task_id)
                if task.state is not TaskState.STARTED:
                    raise InvalidTransition(
                        task.state, f"{task.id} is {task.state}; tools can be used only while it is started"
                    )
                transitions.require_holder(task, agent)
            data = {**(details or {}), "name": agent.name, "tool_name": tool_name}
            step.log(_TOOL_EVENTS[status], task_id=task_id, agent_id=agent_id, **data)
            return agent

    # --- tasks ---

    def post(self, description: str) -> Task:
        """Post a task: it is open for bids at once, and until *auction_secs* from now."""
        description = _text("description", description, MAX_DESCRIPTION_CHARS)
        task_id = _new_id("task")
        with begin(self._database) as step:
            closes_at = step.now + timedelta(seconds=self.auction_secs)
            event = step.log(EventType.TASK_CREATED, task_id=task_id, description=description)
            step.add_task(task_id, event.data["description"], closes_at)
            step.log(
                EventType.TASK_BIDDING,
                task_id=task_id,
                description=description,
                auction_secs=self.auction_secs,
                closes_at=clock.isoformat(closes_at),
            )
            return step.task(task_id)

    def bid(self, task_id: str, agent_id: str, bid_sats: int) -> Task:
        """Offer to do the task for that many sats. An agent bids once; the same bid again changes nothing."""
        if type(bid_sats) is not int or not 0 <= bid_sats <= MAX_BID_SATS:
            raise InvalidEvent("bid_sats", f"must be a whole number of 0 to {MAX_BID_SATS:,}, got {bid_sats!r:.80}")
        with begin(self._database) as step:
            agent, task = self._seen(step, agent_id), step.task(task_id)
            earlier = step.bid_of(task_id, agent_id)
            if earlier is not None and earlier.bid_sats == bid_sats:
                return task
            transitions.require_bidding(task)
            if is_over(task, step.now):
                raise InvalidTransition(
                    task.state, f"{task.id} took bids until {task.closes_at}; its auction is closed"
                )
            if earlier is not None:
                raise InvalidTransition(
                    task.state, f"{agent.id} has already bid {earlier.bid_sats:,} sats for {task.id}"
                )
            step.add_bid(task_id, agent_id, bid_sats)
            step.log(EventType.BID_SUBMITTED, task_id=task_id, agent_id=agent_id, name=agent.name, bid_sats=bid_sats)
            return step.task(task_id)

    def start(self, task_id: str, agent_id: str | None = None) -> Task:
        """Note that work has begun; by its agent, whom the caller may leave unnamed."""
        with begin(self._database) as step:
            task, agent = self._task_and_holder(step, task_id, agent_id, TaskState.STARTED)
            self._move(step, task, TaskState.STARTED, started_at=step.timestamp)
            step.log(EventType.TASK_STARTED, task_id=task_id, agent_id=agent.id, name=agent.name)
            return step.task(task_id)

    def complete(self, task_id: str, agent_id: str, result: Any = None) -> Task:
        """End the task with its *result*, any JSON up to the size of an event's data."""
        _check_depth(result)
        with begin(self._database) as step:
            task, agent = self._task_and_holder(step, task_id, agent_id, TaskState.COMPLETED)
            event = step.log(
                EventType.TASK_COMPLETED, task_id=task_id, agent_id=agent_id, name=agent.name, result=result
            )
            self._move(step, task, TaskState.COMPLETED, ended_at=step.timestamp, result=event.data["result"])
            self._rest(step, agent)
            return step.task(task_id)

    def fail(self, task_id: str, agent_id: str, reason: str) -> Task:
        """Give the task up, before or after its start."""
        reason = _text("reason", reason, MAX_REASON_CHARS)
        with begin(self._database) as step:
            task, agent = self._task_and_holder(step, task_id, agent_id, TaskState.FAILED)
            self._fail(step, task, reason)
            self._rest(step, agent)
            return step.task(task_id)

    # --- what time brings; each once, by whoever comes first ---

    def overdue_agents(self) -> list[str]:
        """Return up to SWEEP_LIMIT agents that have not been heard of for *agent_timeout_secs*."""
        now = clock.now()
        with look(self._database) as view:
            return view.overdue_agents(clock.isoformat(now - self._timeout), clock.isoformat(now + FUTURE), SWEEP_LIMIT)

    def expire(self, agent_id: str) -> bool:
        """Let the agent go if it is overdue; return whether it was."""
        with begin(self._database) as step:
            agent = step.agent(agent_id)
            if agent.state is AgentState.LEFT or not self._is_overdue(agent, step.now):
                return False
            self._leave(step, agent, f"no heartbeat for {self.agent_timeout_secs:g} s")
            return True

    def due_auctions(self) -> list[str]:
        """Return up to SWEEP_LIMIT tasks whose auctions are over and not closed."""
        now = clock.now()
        with look(self._database) as view:
            return view.due_auctions(clock.isoformat(now), clock.isoformat(now + FUTURE), SWEEP_LIMIT)

    def close_auction(self, task_id: str) -> bool:
        """If its auction is over, give the task to the lowest bidder still there, or fail it; return whether it was."""
        with begin(self._database) as step:
            task = step.task(task_id)
            if task.state is not TaskState.BIDDING or not is_over(task, step.now):
                return False
            best = step.best_bid(task_id)
            if best is None:
                step.log(EventType.AUCTION_CLOSED, task_id=task_id, bids=task.bid_count)
                self._fail(step, task, BIDDERS_LEFT if task.bid_count else NO_BIDS)
                return True
            winner = step.agent(best.agent_id)
            terms = {"name": winner.name, "bid_sats": best.bid_sats}
            step.log(EventType.AUCTION_CLOSED, task_id=task_id, agent_id=winner.id, bids=task.bid_count, **terms)
            self._move(
                step,
                task,
                TaskState.ASSIGNED,
                agent_id=winner.id,
                bid_sats=best.bid_sats,
                assigned_at=step.timestamp,
            )
            step.log(EventType.TASK_ASSIGNED, task_id=task_id, agent_id=winner.id, **terms)
            if winner.state is AgentState.IDLE:
                self._change_status(step, winner, AgentState.BUSY)
            return True

    def expiry_of(self, agent: Agent) -> str | None:
        """Return when the agent has left unless it is heard of before; None once it has."""
        if agent.state is AgentState.LEFT:
            return None
        return clock.isoformat(datetime.fromisoformat(agent.seen_at) + self._timeout)

    # --- the steps that these are made of ---

    @property
    def _timeout(self) -> timedelta:
        return timedelta(seconds=self.agent_timeout_secs)

    def _is_overdue(self, agent: Agent, now: datetime) -> bool:
        return not now - self._timeout < datetime.fromisoformat(agent.seen_at) <= now + FUTURE

    def _seen(self, step: SwarmTransaction, agent_id: str) -> Agent:
        """Return the agent, which has just been heard of."""
        agent = step.agent(agent_id)
        transitions.require_present(agent)
        step.set_agent(agent_id, seen_at=step.timestamp)
        return step.agent(agent_id)

    def _task_and_holder(
        self, step: SwarmTransaction, task_id: str, agent_id: str | None, to: TaskState
    ) -> tuple[Task, Agent]:
        """Return the task and its holder, whose turn it is to make it *to*."""
        task = step.task(task_id)
        transitions.require_task_move(task, to)
        if task.agent_id is None:
            raise InvalidTransition(task.state, f"{task.id} is {task.state}; it isn't assigned to an agent yet")
        agent = self._seen(step, agent_id or task.agent_id)
        transitions.require_holder(task, agent)
        return task, agent

    def _move(self, step: SwarmTransaction, task: Task, to: TaskState, **columns: Any) -> None:
        transitions.require_task_move(task, to)
        step.set_task(task.id, state=to, **columns)

    def _fail(self, step: SwarmTransaction, task: Task, reason: str) -> None:
        event = step.log(EventType.TASK_FAILED, task_id=task.id, agent_id=task.agent_id, reason=reason)
        self._move(step, task, TaskState.FAILED, ended_at=step.timestamp, reason=event.data["reason"])

    def _leave(self, step: SwarmTransaction, agent: Agent, reason: str) -> None:
        """Its tasks first: an agent that has left holds nothing."""
        transitions.require_agent_move(agent, AgentState.LEFT)
        for task in step.held_by(agent.id):
            self._fail(step, task, HOLDER_LEFT)
        step.log(EventType.AGENT_LEFT, agent_id=agent.id, name=agent.name, reason=reason)
        step.set_agent(agent.id, state=AgentState.LEFT, left_at=step.timestamp, reason=reason)

    def _rest(self, step: SwarmTransaction, agent: Agent) -> None:
        """The agent is idle where that was the last task it held."""
        if not step.held_by(agent.id):
            self._change_status(step, agent, AgentState.IDLE)

    def _change_status(self, step: SwarmTransaction, agent: Agent, to: AgentState) -> None:
        transitions.require_agent_move(agent, to)
        step.set_agent(agent.id, state=to)
        step.log(EventType.AGENT_STATUS_CHANGED, agent_id=agent.id, name=agent.name, status=to.value)


def get_coordinator() -> Coordinator:
    """Return the coordinator of the database that OUTFEED_DATABASE names."""
    return Coordinator.of(settings())


def is_over(task: Task, now: datetime) -> bool:
    """Return whether the time for bids is over: also where the clock has been set back to before it began."""
    began, ends = datetime.fromisoformat(task.created_at), datetime.fromisoformat(task.closes_at)
    return now >= ends or began > now + FUTURE


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(8)}"


def _text(field: str, value: str, max_chars: int) -> str:
    if not isinstance(value, str):
        raise InvalidEvent(field, f"must be text, got {value!r:.80}")
    value = value.strip()
    if not 1 <= len(value) <= max_chars:
        raise InvalidEvent(field, f"must have 1 to {max_chars:,} characters, got {len(value):,}")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidEvent(field, f"must be storable text without NUL, got {value!r:.80}")
    return value


def _check_depth(result: Any) -> None:
    """Raise InvalidEvent for what does not fit into an event's data, as its `result`."""
    if is_deep(result, MAX_RESULT_DEPTH):
        raise InvalidEvent("result", f"is nested more than {MAX_RESULT_DEPTH} levels deep")
