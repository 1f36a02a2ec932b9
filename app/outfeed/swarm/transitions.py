"""Allowed state transitions of agents and tasks.

An invalid transition is rejected with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from outfeed.errors import InvalidTransition
from outfeed.swarm.store.swarm import Agent, AgentState, Task, TaskState

# From each state, the allowed next states. The initial states are idle (join) and bidding (post).
AGENT_MOVES: Mapping[AgentState, frozenset[AgentState]] = {
    AgentState.IDLE: frozenset({AgentState.BUSY, AgentState.LEFT}),
    AgentState.BUSY: frozenset({AgentState.IDLE, AgentState.LEFT}),
    AgentState.LEFT: frozenset(),
}
TASK_MOVES: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.BIDDING: frozenset({TaskState.ASSIGNED, TaskState.FAILED}),
    TaskState.ASSIGNED: frozenset({TaskState.STARTED, TaskState.FAILED}),
    TaskState.STARTED: frozenset({TaskState.COMPLETED, TaskState.FAILED}),
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
}


def require_agent_move(agent: Agent, to: AgentState) -> None:
    """Raise InvalidTransition unless the agent can become *to*."""
    require_present(agent)
    if to not in AGENT_MOVES[agent.state]:
        raise InvalidTransition(agent.state, f"{agent.id} is {agent.state} and can't become {to}")


def require_task_move(task: Task, to: TaskState) -> None:
    """Raise InvalidTransition unless the task can become *to*."""
    if to not in TASK_MOVES[task.state]:
        origins = " or ".join(state for state, following in TASK_MOVES.items() if to in following)
        raise InvalidTransition(task.state, f"{task.id} is {task.state}; only what is {origins} can become {to}")


def require_bidding(task: Task) -> None:
    """Raise InvalidTransition unless the task's auction is open."""
    if task.state is not TaskState.BIDDING:
        raise InvalidTransition(task.state, f"{task.id} is {task.state}; its auction is closed")


def require_holder(task: Task, agent: Agent) -> None:
    """Raise InvalidTransition unless the task is assigned to *agent*."""
    if task.agent_id != agent.id:
        raise InvalidTransition(task.state, f"{task.id} was assigned to {task.agent_id}, not to {agent.id}")


def require_present(agent: Agent) -> None:
    """Raise InvalidTransition if the agent has left."""
    if agent.state is AgentState.LEFT:
        raise InvalidTransition(agent.state, f"{agent.id} has left ({agent.reason}); join again to get a new id")
