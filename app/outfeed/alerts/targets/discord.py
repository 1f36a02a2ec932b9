"""Notices for Discord: a channel's webhook with an embed.

Formats and limits: discord.com/developers/docs/resources/webhook#execute-webhook and
discord.com/developers/docs/resources/message#embed-object-embed-limits.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import orjson

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import HttpKind, Post, Setting, Values, checked_url
from outfeed.alerts.targets.notice import Notice, Outcome
from outfeed.webhooks.target import Answer

MAX_TITLE_UNITS = 256
MAX_DESCRIPTION_UNITS = 3000  # Discord takes 4096, and 6000 in all texts of a message together
MAX_NAME_UNITS = 256
MAX_VALUE_UNITS = 250  # Discord takes 1024
MAX_FIELDS = 25
_MARKUP = re.compile(r"[\\*_~`|>#\[\]()<@:.+-]")


class DiscordKind(HttpKind):
    """A Discord channel. A notice mentions neither users nor roles."""

    name: ClassVar = "discord"
    label: ClassVar = "Discord"
    settings: ClassVar = (
        Setting("url", "Webhook URL", "Webhook of a Discord channel.", is_secret=True, is_required=True),
    )

    def checked(self, given: Values) -> dict[str, str]:
        return {"url": checked_url(given["url"], "https://discord.com/api/webhooks/123/abc")}

    def post(self, settings: Values, notice: Notice) -> Post:
        return Post(settings["url"], orjson.dumps({"embeds": [embed(notice)], "allowed_mentions": {"parse": []}}))

    def outcome(self, answer: Answer) -> Outcome:
        """Return the outcome. The body of a 429 has the pause in seconds."""
        found = super().outcome(answer)
        if answer.status != 429 or found.retry_after_secs is not None:
            return found
        return Outcome(False, found.error, found.is_final, _pause_in(answer.body))


def _pause_in(body: bytes) -> float | None:
    try:
        return max(0.0, float(orjson.loads(body)["retry_after"]))
    except (ValueError, KeyError, TypeError):
        return None


def embed(notice: Notice) -> dict[str, Any]:
    """Return the embed of a notice."""
    found: dict[str, Any] = {
        "title": wording.within(wording.title(notice), MAX_TITLE_UNITS, escape),
        "description": wording.within(wording.text(notice), MAX_DESCRIPTION_UNITS, escape),
        "color": wording.COLOURS[notice.level],
        "timestamp": notice.occurred_at,
        "fields": [_field(name, value) for name, value in wording.fields(notice)][:MAX_FIELDS],
    }
    return found | ({"url": notice.url} if notice.url else {})


def _field(name: str, value: str) -> dict[str, Any]:
    shown = wording.within(value, MAX_VALUE_UNITS, escape)
    return {"name": wording.within(name, MAX_NAME_UNITS, escape), "value": shown, "inline": True}


def escape(text: str) -> str:
    r"""Return *text* with a backslash before each sign of Discord's Markdown.

    So `@everyone`, `<@1>`, `[a](b)` and `:x:` stay text.
    """
    return _MARKUP.sub(r"\\\g<0>", text)
