"""Notices as webhooks, signed by Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import json
from typing import ClassVar

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import HttpKind, Post, Setting, Values, checked_url
from outfeed.alerts.targets.notice import Notice
from outfeed.errors import InvalidTarget
from outfeed.webhooks.message import Message, check_secret


class WebhookKind(HttpKind):
    """A URL that takes a signed JSON object.

    `webhook-id` is the id of the alert's event, so that a receiver can drop a repeated notice.
    """

    name: ClassVar = "webhook"
    label: ClassVar = "Webhook"
    settings: ClassVar = (
        Setting("url", "URL", "Address that takes the notices.", is_secret=True, is_required=True),
        Setting("secret", "Secret", "Secret that signs the notices, as in whsec_….", is_secret=True, is_required=True),
    )

    def checked(self, given: Values) -> dict[str, str]:
        url = checked_url(given["url"], "https://ops.example.com/alerts")
        try:
            return {"url": url, "secret": check_secret(given["secret"])}
        except ValueError as error:
            raise InvalidTarget("secret", str(error)) from None

    def post(self, settings: Values, notice: Notice) -> Post:
        data = {
            "id": notice.event_id,
            "rule": notice.rule,
            "title": wording.line(notice.title),
            "text": wording.text(notice),
            "level": notice.level.value,
            "count": notice.count,
            "url": notice.url,
            "event": notice.matched,
        }
        # orjson rejects lone surrogates, which an event of any program may have.
        body = json.dumps({"type": f"alert.{notice.kind}", "timestamp": notice.occurred_at, "data": data}).encode()
        return Post(settings["url"], body, Message(wording.plain_id(notice.event_id), body).signed(settings["secret"]))
