"""The events that a webhook gets, and those that block it."""

from __future__ import annotations

from outfeed.events import MAX_NAME_CHARS
from outfeed.feed.source import Source
from outfeed.feed.subscription import Filter
from outfeed.history import Item
from outfeed.principal import EventScope
from outfeed.webhooks.store import Webhook

PAGE_EVENTS = 1000


def filter_of(webhook: Webhook) -> Filter:
    """Return the webhook's filter. Audit events are never posted."""
    return Filter(EventScope(), types=webhook.types)


def describe_events(items: list[Item]) -> str:
    """Describe the events of a post for people.

    Names the seq, type and id of the first event, and the number of the others.
    """
    first = items[0]
    more = len(items) - 1
    others = f" and {more:,} more {'event' if more == 1 else 'events'} up to seq {items[-1].seq}" if more else ""
    return f"seq {first.seq} {first.event_type[:MAX_NAME_CHARS]} {str(first.id)[:MAX_NAME_CHARS]}{others}"


def blocking_items(source: Source, webhook: Webhook) -> list[Item]:
    """Return the events of the failing post: one, or a whole batch.

    Returns none if the last post did not fail.
    """
    if webhook.failing_since is None:
        return []
    wanted, seq = filter_of(webhook), webhook.seq
    while True:
        page = source.read_after(seq, PAGE_EVENTS)
        if page.window.epoch != webhook.epoch:
            return []  # the checkpoint belongs to another history
        if items := wanted.matching(page.items):
            return _first_post(items, webhook)
        if page.through <= seq:
            return []
        seq = page.through


def _first_post(items: list[Item], webhook: Webhook) -> list[Item]:
    batch = [item for item in items[: webhook.batch] if item.seq <= webhook.batch_end]
    return batch or items[:1]
