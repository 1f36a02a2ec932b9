"""The shapes of a page of the feed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class FeedItem(BaseModel):
    """An event of the feed. A field that a raw writer omitted is null."""

    seq: int = Field(examples=[61])
    id: str | None = Field(examples=["task-1-created"])
    event_type: str | None = Field(examples=["task.created"])
    source: str | None = Field(examples=["coordinator"])
    task_id: str | None = Field(examples=["task-1"])
    agent_id: str | None
    timestamp: str | None = Field(examples=["2026-01-31T12:00:00.000Z"])
    data: Any = Field(examples=[{"description": "Write the docs"}])
    omitted_bytes: int | None = Field(
        None, description="Size of the data that was omitted; absent if the data is complete."
    )
    flattened: bool | None = Field(
        None, description="True if `data` is the JSON text of a value nested deeper than 64 levels; absent otherwise."
    )


class Missing(BaseModel):
    """Seqs that were pruned before they could be read."""

    from_: int = Field(alias="from", examples=[1])
    to: int = Field(examples=[40])


class FeedPage(BaseModel):
    """The events after a cursor, and the verdict on it.

    `cursor` is the value to send as `after` in the next request.
    """

    epoch: str = Field(examples=["0f3c9d2a7b1e4c58a6d0e2f4b7c91d35"])
    verdict: Literal["live", "resumed", "gap", "reset"] = Field(examples=["resumed"])
    missing: Missing | None = Field(None, description="Only with the verdict gap.")
    events: list[FeedItem]
    cursor: int = Field(examples=[61])
    head: int = Field(description="The newest seq.", examples=[61])
    principal: str = Field(
        description="Opaque: equal for requests with one credential and the same permissions.",
        examples=["5b1f0c9d2a7e4c58"],
    )
    erasures: int | None = Field(
        None, description="Number of events erased from this history. If it has changed, read your copy again."
    )
    types: int | None = Field(
        None, description="Number of changes of displays. If it has changed, ask for `/api/types` again."
    )
