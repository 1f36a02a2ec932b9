"""The shapes of a page of the feed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class FeedItem(BaseModel):
    """An event of the feed. What a raw writer left out is null."""

    seq: int
    id: str | None
    event_type: str | None
    source: str | None
    task_id: str | None
    agent_id: str | None
    timestamp: str | None
    data: Any
    omitted_bytes: int | None = Field(
        None, description="Size of the data that was omitted; absent if the data is complete."
    )
    flattened: bool | None = Field(
        None, description="True if `data` is the JSON text of what is nested deeper than 64 levels; only then present."
    )


class Missing(BaseModel):
    """Seqs that were pruned before they could be read."""

    from_: int = Field(alias="from")
    to: int


class FeedPage(BaseModel):
    """The events after a cursor, and the verdict on it. `cursor` is what to ask with next."""

    epoch: str
    verdict: Literal["live", "resumed", "gap", "reset"]
    missing: Missing | None = Field(None, description="Only with the verdict gap.")
    events: list[FeedItem]
    cursor: int
    head: int = Field(description="The newest seq.")
    erasures: int | None = Field(
        None, description="Number of events erased from this history. If it has changed, read your copy again."
    )
