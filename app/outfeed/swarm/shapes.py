"""Request and response shapes of the swarm's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from outfeed.feed.subscription import MAX_SEQ
from outfeed.swarm.coordinator import (
    MAX_BID_SATS,
    MAX_DESCRIPTION_CHARS,
    MAX_NAME_CHARS,
    MAX_REASON_CHARS,
    MAX_TOOL_NAME_CHARS,
)
from outfeed.swarm.store.swarm import AgentState, TaskState

# The coordinator checks the limits of texts and numbers. The shapes only document them.
_TEXT = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
_LINE = r"^[^\u0000-\u001f\u007f]*[^\s\u0000-\u001f\u007f][^\u0000-\u001f\u007f]*$"


def _documented(example: Any, **rules: Any) -> Any:
    return Field(examples=[example], json_schema_extra=rules)


def _text(example: str, max_chars: int, pattern: str = _TEXT) -> Any:
    return _documented(example, minLength=1, maxLength=max_chars, pattern=pattern)


def _whole(value: Any) -> Any:
    """Return a float like 50.0 as an integer: JSON makes no difference."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Id = Annotated[str, Field(examples=["agent-3f9a1c2b7d004e51"])]
_TaskId = Annotated[str, Field(examples=["task-7c41d0a95be2f836"])]
_Name = Annotated[str, Field(examples=["Forge"])]
_Sats = Annotated[int, Field(examples=[50])]
_Instant = Annotated[str, Field(examples=["2026-01-31T12:00:00.000Z"])]
_Epoch = Annotated[str, Field(examples=["0f3c9d2a7b1e4c58a6d0e2f4b7c91d35"])]
_Limit = Annotated[int, Field(ge=1, le=1000)]
_Cursor = Annotated[int, Field(ge=1, le=MAX_SEQ, description="`next` of the page before.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewAgent(_Request):
    """An agent that joins."""

    name: Annotated[str, _text("Forge", MAX_NAME_CHARS, _LINE)]


class NewTask(_Request):
    """A task to post."""

    description: Annotated[str, _text("Write the docs", MAX_DESCRIPTION_CHARS)]


class NewBid(_Request):
    """An agent's offer to do a task."""

    agent_id: _Id
    bid_sats: Annotated[int, BeforeValidator(_whole), _documented(50, minimum=0, maximum=MAX_BID_SATS)]


class Start(_Request):
    """The start of a task. `agent_id` defaults to the task's agent."""

    agent_id: _Id | None = None


class Completion(_Request):
    """The completion of a task."""

    agent_id: _Id
    result: Annotated[Any, Field(description="Any JSON.", examples=["12 pages written"])] = None


class Failure(_Request):
    """The failure of a task."""

    agent_id: _Id
    reason: Annotated[str, _text("the source is encrypted", MAX_REASON_CHARS)]


class ToolUse(_Request):
    """A tool call of an agent, or how the call ended.

    With `task_id` the call is part of that task's story.
    """

    tool_name: Annotated[str, _text("web_search", MAX_TOOL_NAME_CHARS)]
    status: Literal["called", "completed", "failed"]
    task_id: _Id | None = None
    details: Annotated[
        dict[Literal["arguments", "result", "reason", "duration_ms"], Any],
        Field(description="Added to the data of the event.", examples=[{"arguments": {"query": "sqlite wal"}}]),
    ] = {}


class AgentsQuery(BaseModel):
    """Filter and page of the agents' list."""

    model_config = ConfigDict(extra="forbid")

    state: AgentState | None = None
    limit: _Limit = 100
    cursor: _Cursor | None = None


class TasksQuery(BaseModel):
    """Filter and page of the tasks' list."""

    model_config = ConfigDict(extra="forbid")

    state: TaskState | None = None
    limit: _Limit = 100
    cursor: _Cursor | None = None


# --- answers ----------------------------------------------------------------------------------------------------------


class AgentShape(BaseModel):
    """An agent. Times are UTC, ISO 8601."""

    id: _Id
    name: _Name
    state: AgentState
    joined_at: _Instant
    seen_at: _Instant
    expires_at: _Instant | None = Field(
        description="When the agent is removed without a heartbeat; null if it has left."
    )
    left_at: str | None
    reason: str | None = Field(description="Why the agent left.")


class BidShape(BaseModel):
    """A bid."""

    agent_id: _Id
    agent_name: _Name
    bid_sats: _Sats
    created_at: _Instant


class TaskShape(BaseModel):
    """A task. The auction's winner sets `agent_id`, `agent_name`, `bid_sats`."""

    id: _TaskId
    description: str = Field(examples=["Write the docs"])
    state: TaskState
    created_at: _Instant
    closes_at: _Instant
    seconds_left: float | None = Field(description="When the auction closes; null if it is closed.", examples=[4.2])
    bid_count: int = Field(examples=[2])
    lowest_bid_sats: _Sats | None
    agent_id: str | None
    agent_name: str | None
    bid_sats: int | None
    assigned_at: str | None
    started_at: str | None
    ended_at: str | None
    result: Any = Field(examples=[None])
    reason: str | None = Field(description="Why the task failed.")


class TaskStory(TaskShape):
    """A task with its bids, the lowest first."""

    bids: list[BidShape]


class AgentPage(BaseModel):
    """Agents, newest first."""

    agents: list[AgentShape]
    next: int | None = Field(description="The `cursor` of the next page; null on the last page.")


class TaskPage(BaseModel):
    """Tasks, newest first."""

    tasks: list[TaskShape]
    next: int | None = Field(description="The `cursor` of the next page; null on the last page.")


class SwarmShape(BaseModel):
    """A snapshot of the swarm.

    It contains every event up to `seq` of `epoch`. Follow the feed from there.
    """

    epoch: _Epoch
    seq: int = Field(examples=[61])
    now: _Instant
    agents: list[AgentShape] = Field(description="Connected agents, oldest first.")
    tasks: dict[TaskState, list[TaskShape]] = Field(description="The newest of each state.", examples=[{}])
    counts: dict[TaskState, int] = Field(
        description="10,001 is more than 10,000.", examples=[{"bidding": 1, "completed": 57}]
    )
