"""The shape of every error response of the API."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """An error response (RFC 9457)."""

    type: str = Field(description="The error's place in the documentation.", examples=["/docs/errors#invalid_field"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["limit: Input should be less than or equal to 1000"])
    code: str | None = Field(None, description="A stable name of the error.", examples=["invalid_field"])
    field: str | None = Field(None, description="The invalid field of an event.")
    index: int | None = Field(None, description="The position of the invalid event in its batch, from 0.")
