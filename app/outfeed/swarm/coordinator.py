"""State changes of agents and tasks, each in a transaction with its event.

coordinator = get_coordinator()
task = coordinator.post("Write the docs")
agent = coordinator.join("Forge")
coordinator.bid(task.id, agent.id, 50)

A deadline is a wall time in a row: it must survive restarts and mean the same to every process. So a change of the wall
clock moves deadlines. If the clock is set back, `is_auction_over` closes auctions that would stay open for long.
`sweeper.py` expires an agent only if that agent had a chance to send a heartbeat.
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
from outfeed.swarm.store.swarm import (
    Agent,
    AgentState,
    SwarmTransaction,
    Task,
    TaskState,
    read_transaction,
    write_transaction,
)

# 50 characters are 200 bytes at most, so the scheduler's events of an agent fit any OUTFEED_MAX_EVENT_BYTES.
MAX_NAME_CHARS = 50
MAX_DESCRIPTION_CHARS = 2000
MAX_REASON_CHARS = 2000
MAX_TOOL_NAME_CHARS = 200
MAX_BID_SATS = 21_000_000 * 100_000_000  # all the satoshis that can exist
MAX_RESULT_DEPTH = MAX_DEPTH - 1
SWEEP_LIMIT = 200
# Rows get their time under the write lock. A time further in the future dates from before the clock was set back.
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
    """Agents and tasks of one database.

    Any thread of any process may call any method. When a method returns, its changes are on the disk. Each method
    raises UnknownName for an unknown id, InvalidTransition if the state of the task or agent does not allow the call
    (nothing is written), InvalidEvent for a text or number outside the limits, and DatabaseError. Every accepted call
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
        """Register a new, idle agent.

        Its id is never reused. Several agents may have the same name.
        """
        name = _text("name", name, MAX_NAME_CHARS)
        if _CONTROL.search(name):
            raise InvalidEvent("name", f"must have no control characters, got {name!r:.80}")
        agent_id = _new_id("agent")
        with write_transaction(self._database) as step:
            event = step.log(EventType.AGENT_JOINED, agent_id=agent_id, name=name)
            step.add_agent(agent_id, event.data["name"])
            return step.agent(agent_id)

    def heartbeat(self, agent_id: str) -> Agent:
        """Record a heartbeat of the agent. Writes no event."""
        with write_transaction(self._database) as step:
            return self._record_heartbeat(step, agent_id)

    def leave(self, agent_id: str) -> Agent:
        """Remove the agent. Its tasks fail, and its bids no longer count."""
        with write_transaction(self._database) as step:
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
        """Log that the agent called a tool, or how the call ended.

        The call is part of the task *task_id*, if given; that task must be started. *details* (arguments, reason,
        duration_ms …) go into the event's data.
        """
        tool_name = _text("tool_name", tool_name, MAX_TOOL_NAME_CHARS)
        with write_transaction(self._database) as step:
            agent = self._record_heartbeat(step, agent_id)
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
        """Post a task. It is open for bids at once, for *auction_secs*."""
        description = _text("description", description, MAX_DESCRIPTION_CHARS)
        task_id = _new_id("task")
        with write_transaction(self._database) as step:
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
        """Record the agent's bid of *bid_sats* for the task.

        An agent bids once. Repeating the same bid changes nothing.
        """
        if type(bid_sats) is not int or not 0 <= bid_sats <= MAX_BID_SATS:
            raise InvalidEvent("bid_sats", f"must be a whole number of 0 to {MAX_BID_SATS:,}, got {bid_sats!r:.80}")
        with write_transaction(self._database) as step:
            agent, task = self._record_heartbeat(step, agent_id), step.task(task_id)
            earlier = step.bid_of(task_id, agent_id)
            if earlier is not None and earlier.bid_sats == bid_sats:
                return task
            transitions.require_bidding(task)
            if is_auction_over(task, step.now):
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
        """Mark the task as started, by its agent. *agent_id* is optional."""
        with write_transaction(self._database) as step:
            task, agent = self._task_and_holder(step, task_id, agent_id, TaskState.STARTED)
            self._move(step, task, TaskState.STARTED, started_at=step.timestamp)
            step.log(EventType.TASK_STARTED, task_id=task_id, agent_id=agent.id, name=agent.name)
            return step.task(task_id)

    def complete(self, task_id: str, agent_id: str, result: Any = None) -> Task:
        """Complete the task with its *result*.

        The result is any JSON up to the size of an event's data.
        """
        _check_depth(result)
        with write_transaction(self._database) as step:
            task, agent = self._task_and_holder(step, task_id, agent_id, TaskState.COMPLETED)
            event = step.log(
                EventType.TASK_COMPLETED, task_id=task_id, agent_id=agent_id, name=agent.name, result=result
            )
            self._move(step, task, TaskState.COMPLETED, ended_at=step.timestamp, result=event.data["result"])
            self._set_idle_if_free(step, agent, task_id)
            return step.task(task_id)

    def fail(self, task_id: str, agent_id: str, reason: str) -> Task:
        """Mark the task as failed, before or after its start."""
        reason = _text("reason", reason, MAX_REASON_CHARS)
        with write_transaction(self._database) as step:
            task, agent = self._task_and_holder(step, task_id, agent_id, TaskState.FAILED)
            self._fail(step, task, reason)
            self._set_idle_if_free(step, agent, task_id)
            return step.task(task_id)

    # --- timeouts: several processes may act on one, and the first closes it ---

    def overdue_agents(self) -> list[str]:
        """Return up to SWEEP_LIMIT agents without a heartbeat in the timeout.

        The timeout is *agent_timeout_secs*.
        """
        now = clock.now()
        with read_transaction(self._database) as view:
            return view.overdue_agents(clock.isoformat(now - self._timeout), clock.isoformat(now + FUTURE), SWEEP_LIMIT)

    def expire(self, agent_id: str) -> bool:
        """Remove the agent if it is overdue. Return whether it was."""
        with write_transaction(self._database) as step:
            agent = step.agent(agent_id)
            if agent.state is AgentState.LEFT or not self._is_overdue(agent, step.now):
                return False
            self._leave(step, agent, f"no heartbeat for {self.agent_timeout_secs:g} s")
            return True

    def due_auctions(self) -> list[str]:
        """Return up to SWEEP_LIMIT tasks whose auctions are over but not closed."""
        now = clock.now()
        with read_transaction(self._database) as view:
            return view.due_auctions(clock.isoformat(now), clock.isoformat(now + FUTURE), SWEEP_LIMIT)

    def close_auction(self, task_id: str) -> bool:
        """Close the task's auction if it is over. Return whether it was.

        The task goes to the lowest bidder that has not left. Without such a bidder the task fails.
        """
        with write_transaction(self._database) as step:
            task = step.task(task_id)
            if task.state is not TaskState.BIDDING or not is_auction_over(task, step.now):
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
                self._change_status(step, winner, AgentState.BUSY, task_id)
            return True

    def expiry_of(self, agent: Agent) -> str | None:
        """Return when the agent expires without a heartbeat; None if it has left."""
        if agent.state is AgentState.LEFT:
            return None
        return clock.isoformat(datetime.fromisoformat(agent.seen_at) + self._timeout)

    # --- the steps of the methods above ---

    @property
    def _timeout(self) -> timedelta:
        return timedelta(seconds=self.agent_timeout_secs)

    def _is_overdue(self, agent: Agent, now: datetime) -> bool:
        return not now - self._timeout < datetime.fromisoformat(agent.seen_at) <= now + FUTURE

    def _record_heartbeat(self, step: SwarmTransaction, agent_id: str) -> Agent:
        """Record a heartbeat of the agent and return it. Raises InvalidTransition."""
        agent = step.agent(agent_id)
        transitions.require_present(agent)
        step.set_agent(agent_id, seen_at=step.timestamp)
        return step.agent(agent_id)

    def _task_and_holder(
        self, step: SwarmTransaction, task_id: str, agent_id: str | None, to: TaskState
    ) -> tuple[Task, Agent]:
        """Return the task and its holder. Raises InvalidTransition.

        The task must be able to become *to*, and the agent must be its holder.
        """
        task = step.task(task_id)
        transitions.require_task_move(task, to)
        if task.agent_id is None:
            raise InvalidTransition(task.state, f"{task.id} is {task.state}; it isn't assigned to an agent yet")
        agent = self._record_heartbeat(step, agent_id or task.agent_id)
        transitions.require_holder(task, agent)
        return task, agent

    def _move(self, step: SwarmTransaction, task: Task, to: TaskState, **columns: Any) -> None:
        transitions.require_task_move(task, to)
        step.set_task(task.id, state=to, **columns)

    def _fail(self, step: SwarmTransaction, task: Task, reason: str) -> None:
        event = step.log(EventType.TASK_FAILED, task_id=task.id, agent_id=task.agent_id, reason=reason)
        self._move(step, task, TaskState.FAILED, ended_at=step.timestamp, reason=event.data["reason"])

    def _leave(self, step: SwarmTransaction, agent: Agent, reason: str) -> None:
        """Remove the agent, after failing its tasks: a removed agent holds none."""
        transitions.require_agent_move(agent, AgentState.LEFT)
        for task in step.held_by(agent.id):
            self._fail(step, task, HOLDER_LEFT)
        step.log(EventType.AGENT_LEFT, agent_id=agent.id, name=agent.name, reason=reason)
        step.set_agent(agent.id, state=AgentState.LEFT, left_at=step.timestamp, reason=reason)

    def _set_idle_if_free(self, step: SwarmTransaction, agent: Agent, task_id: str) -> None:
        """Mark the agent as idle after its task, if it holds no other."""
        if not step.held_by(agent.id):
            self._change_status(step, agent, AgentState.IDLE, task_id)

    def _change_status(self, step: SwarmTransaction, agent: Agent, to: AgentState, task_id: str) -> None:
        """Change the agent's state because of the task."""
        transitions.require_agent_move(agent, to)
        step.set_agent(agent.id, state=to)
        data = {"name": agent.name, "status": to.value}
        step.log(EventType.AGENT_STATUS_CHANGED, task_id=task_id, agent_id=agent.id, **data)


def get_coordinator() -> Coordinator:
    """Return the coordinator of the database at OUTFEED_DATABASE."""
    return Coordinator.of(settings())


def is_auction_over(task: Task, now: datetime) -> bool:
    """Return whether the time for bids is over.

    It is over too if the clock has been set back to before the auction began.
    """
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
    """Raise InvalidEvent if *result* is nested too deep for an event's data."""
    if is_deep(result, MAX_RESULT_DEPTH):
        raise InvalidEvent("result", f"is nested more than {MAX_RESULT_DEPTH} levels deep")
