"""The shape of every error that the API answers with."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """An error response (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str | None = Field(None, description="A stable name of what went wrong.")
    field: str | None = Field(None, description="The bad field of an event.")
    index: int | None = Field(None, description="Which event of a batch, from 0.")
