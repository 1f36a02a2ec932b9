"""The receipt of a written event, which several routes answer with."""

from __future__ import annotations

from pydantic import BaseModel, Field

_EPOCH = "0f3c9d2a7b1e4c58a6d0e2f4b7c91d35"


class WriteReceipt(BaseModel):
    """The position of a written event."""

    id: str = Field(examples=["task-1-created"])
    seq: int | None = Field(
        description="Its position in the feed; null if that row of the outbox is pruned.", examples=[61]
    )
    epoch: str = Field(description="The history that the seq belongs to.", examples=[_EPOCH])
