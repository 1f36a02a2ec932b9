"""Tickets: read access for a page of another site.

The page's own server requests the ticket with its token.
"""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic import BaseModel, Field

from outfeed.access.rights import OriginRights
from outfeed.access.store import account
from outfeed.http import identity
from outfeed.http.api.operation import json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.principal import READ

tickets = Blueprint("tickets", __name__)


class Ticket(BaseModel):
    """A ticket that opens one WebSocket: `/ws?ticket=…`."""

    ticket: str = Field(examples=["NTELY_UC1U09h1bzVqnslC7v9Nv96i2dFzLnvtyZWDg"])
    expires_in: int = Field(description="Seconds until the ticket expires.", examples=[60])


@tickets.post("/api/tickets")
@requires(READ)
@operation(answers={201: Ticket})
def post_ticket() -> Response:
    """Make a ticket that opens one WebSocket, read-only, as the caller."""
    ticket = services().part(OriginRights).grants.create_ticket(identity.principal())
    return json_answer({"ticket": ticket, "expires_in": int(account.TICKET_LIFETIME.total_seconds())}, 201)
