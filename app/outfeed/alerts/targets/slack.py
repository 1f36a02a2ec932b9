"""Notices for Slack: an incoming webhook with Block Kit.

Formats and limits: docs.slack.dev/reference/block-kit/blocks and
docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import HttpKind, Post, Setting, Values, checked_url
from outfeed.alerts.targets.notice import Notice

MAX_HEADER_UNITS = 150
MAX_SECTION_UNITS = 3000
MAX_FIELD_UNITS = 2000
MAX_FIELDS = 10
MAX_LINK_UNITS = 2900
MAX_FALLBACK_UNITS = 3000


class SlackKind(HttpKind):
    """A Slack channel.

    Text of events is `plain_text`, which has no markup, mentions or links.
    """

    name: ClassVar = "slack"
    label: ClassVar = "Slack"
    settings: ClassVar = (
        Setting("url", "Webhook URL", "Incoming webhook of a Slack app.", is_secret=True, is_required=True),
    )

    def checked(self, given: Values) -> dict[str, str]:
        return {"url": checked_url(given["url"], "https://hooks.slack.com/services/T…/B…/…")}

    def post(self, settings: Values, notice: Notice) -> Post:
        fallback = f"{wording.title(notice)}\n{wording.text(notice)}"
        message = {
            "text": wording.within(fallback, MAX_FALLBACK_UNITS, escape),
            "mrkdwn": False,
            "unfurl_links": False,
            "unfurl_media": False,
            "blocks": blocks(notice),
        }
        return Post(settings["url"], orjson.dumps(message))


def blocks(notice: Notice) -> list[dict[str, Any]]:
    """Return the blocks of a notice."""
    found: list[dict[str, Any]] = [{"type": "header", "text": _plain(wording.title(notice), MAX_HEADER_UNITS)}]
    if text := wording.text(notice):
        found.append({"type": "section", "text": _plain(text, MAX_SECTION_UNITS)})
    facts = [_plain(f"{name}\n{value}", MAX_FIELD_UNITS) for name, value in wording.fields(notice)]
    found.append({"type": "section", "fields": facts[:MAX_FIELDS]})
    if notice.url and len(escape(notice.url)) <= MAX_LINK_UNITS:
        link = f"<{escape(notice.url)}|Open in Outfeed>"
        found.append({"type": "context", "elements": [{"type": "mrkdwn", "text": link}]})
    return found


def _plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": wording.within(text, limit, escape), "emoji": False}


def escape(text: str) -> str:
    """Return *text* with the control characters of Slack as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
