"""Operations on webhooks, which the commands and the pages share.

Each writes an audit event with the principal *by* that requested it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import NotBlocked, Overtaken, TargetUnresolvable
from outfeed.feature import shipped_displays
from outfeed.feed.subscription import FeedRequest, validated
from outfeed.history import Item
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache
from outfeed.store.outbox import Outbox
from outfeed.text import separated
from outfeed.webhooks import store
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.blocked import PAGE_EVENTS, blocking_items, filter_of
from outfeed.webhooks.delivery_log import store as delivery_log
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import PORTS, Answer, Target, check_url

MAX_BATCH = 1000


class Posted(NamedTuple):
    """The answer to one post, and its duration in milliseconds."""

    answer: Answer
    millis: int


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhooks of one database, under the settings of this process."""

    database: Database
    settings: Settings

    @property
    def _outbox(self) -> Outbox:
        return Outbox(self.database, self.settings.max_event_bytes)

    def warning_of(self, url: str) -> str | None:
        """Return a warning if the target has no address yet.

        Raises ValueError for another text than a URL, and TargetForbidden if the server would not post to it.
        """
        parsed = check_url(url)
        try:
            self._allowlist.resolve(parsed.host, parsed.port or PORTS[parsed.scheme])
        except TargetUnresolvable as problem:
            return str(problem)
        return None

    @property
    def _allowlist(self) -> Allowlist:
        return Allowlist.parse(self.settings.webhook_allow)

    def blocking(self, webhook: store.Webhook) -> list[Item]:
        """Return the events of the failing post: one, or a whole batch.

        Returns none if the last post did not fail.
        """
        return blocking_items(self._outbox, webhook)

    def skip(self, name: str, by: str) -> tuple[store.Webhook, list[Item]]:
        """Skip the events that block the webhook.

        Returns the webhook as it was, and the events. Raises UnknownName, NotBlocked.
        """
        found = store.find(self.database, name)
        items = self.blocking(found)
        if not items:
            raise NotBlocked(f"no event blocks the webhook {name}; `outfeed webhook list` shows its state")
        store.skip(self.database, found, items, by)
        return found, items

    def test(self, name: str, by: str) -> Posted:
        """Post one message of the type `webhook.test`. Raises UnknownName."""
        found = store.find(self.database, name)
        posted = self._post(found, Message.of_test(name))
        store.note_post(self.database, "access.webhook_tested", name, by, status=posted.answer.status)
        return posted

    def send_again(self, name: str, post_id: int, by: str) -> Posted:
        """Post the events of a logged post again, under the same id.

        The checkpoint and the order of other posts do not change. The log gets the new post. Raises UnknownName, and
        Overtaken if the outbox no longer has the events.
        """
        found = store.find(self.database, name)
        post = delivery_log.find(self.database, name, post_id)
        epoch, items = self._items_of(found, post)
        displays = DisplayCache(self.database, shipped_displays()).current().by_type
        message = (
            Message.of_batch(epoch, items, displays) if found.batch else Message.of_event(epoch, items[0], displays)
        )
        posted = self._post(found, message)
        log = delivery_log.DeliveryLog(self.database)
        log.add(name, epoch, items, message, posted.answer, posted.millis / 1000)
        log.write()
        facts = {"first_seq": post.first_seq, "last_seq": post.last_seq, "id": items[0].id}
        store.note_post(self.database, "access.webhook_sent_again", name, by, status=posted.answer.status, **facts)
        return posted

    def _items_of(self, found: store.Webhook, post: delivery_log.LoggedPost) -> tuple[str, list[Item]]:
        """Return the epoch and the events of the post. Raises Overtaken."""
        wanted, seq, items = filter_of(found), post.first_seq - 1, list[Item]()
        while seq < post.last_seq:
            page = self._outbox.read_after(seq, PAGE_EVENTS)
            items += [item for item in wanted.matching(page.items) if item.seq <= post.last_seq]
            if page.through <= seq or post.message_id != f"{page.window.epoch}:{post.last_seq}":
                break
            seq = page.through
        if seq < post.last_seq or len(items) != post.events:
            raise Overtaken(
                f"the events of post {post.id} can't be sent again: they were pruned, or the types of webhook"
                f" {found.name} have changed since"
            )
        return page.window.epoch, items

    def _post(self, found: store.Webhook, message: Message) -> Posted:
        target = Target(found.url, self._allowlist)
        began = clock.monotonic()
        try:
            answer = target.post(message.body, message.signed(*found.secrets))
        finally:
            target.close()
        return Posted(answer, round((clock.monotonic() - began) * 1000))


def parsed_types(value: str) -> tuple[str, ...]:
    """Return the types of a comma-separated text.

    Raises InvalidRequest.
    """
    return validated(FeedRequest, {"types": separated(value)}).types
