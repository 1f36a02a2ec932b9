"""The feed by cursor, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from flask import Blueprint, Response
from pydantic import Field, field_validator

from app.errors import Overtaken
from app.feed import subscription
from app.feed.subscription import FeedRequest, Verdict
from app.history import Item
from app.web.api.operation import operation
from app.web.api.shapes import FeedPage
from app.web.services import services

MAX_SCANNED_ROWS = 20_000
_PAGE_ROWS = 1000

feeds = Blueprint("feed", __name__)


class FeedQuery(FeedRequest):
    """The cursor and the filters of a request for the feed."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100

    @field_validator("types", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) and value else value or ()


@feeds.get("/feed")
@operation(query=FeedQuery, answers={200: FeedPage})
def feed(query: FeedQuery) -> Response:
    """Return the events after a cursor, with the verdict on it. Without `after`: none, and the head as cursor."""
    subscription.require_epoch(query)
    while True:
        verdict = subscription.decide(query.after, query.epoch, services().outbox.window())
        try:
            events, cursor = _collect(query, verdict)
        except Overtaken:
            continue  # pruned between the verdict and the read: the next verdict says so
        return _feed_answer(verdict, events, cursor)


def _collect(query: FeedQuery, verdict: Verdict) -> tuple[list[Item], int]:
    """Return up to *limit* matching items after the verdict's cursor, and the cursor they lead to."""
    found: list[Item] = []
    cursor = verdict.after
    end = min(verdict.head, cursor + MAX_SCANNED_ROWS)
    while cursor < end and len(found) < query.limit:
        with services().hub.reading:
            page = services().outbox.read_after(cursor, min(_PAGE_ROWS, end - cursor))
            page.window.prove(verdict.epoch, cursor)
            found += query.filter.matching(page.items)
        cursor = page.through
    if len(found) > query.limit:
        del found[query.limit :]
        cursor = found[-1].seq
    return found, cursor


def _feed_answer(verdict: Verdict, events: list[Item], cursor: int) -> Response:
    fields = verdict.as_dict()
    del fields["after"]
    head = orjson.dumps(fields | {"cursor": cursor})
    # The items are JSON already; each begins with a brace that makes room for its seq.
    rows = b",".join(b'{"seq":%d,%b' % (item.seq, item.json[1:]) for item in events)
    return Response(b'%b,"events":[%b]}' % (head[:-1], rows), content_type="application/json")
