"""Notices for Microsoft Teams: a Workflows webhook with an Adaptive Card.

Formats and limits: learn.microsoft.com/connectors/teams (trigger "When a Teams webhook request is received") and
adaptivecards.io/explorer. A message has at most 28 KB.
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import HttpKind, Post, Setting, Values, checked_url
from outfeed.alerts.targets.notice import Notice
from outfeed.display import Level
from outfeed.errors import InvalidTarget
from outfeed.webhooks.target import check_url

VERSION = "1.4"
MAX_TITLE_UNITS = 256
MAX_TEXT_BYTES = 12_000
MAX_LINES = 60
RETIRED_HOST = "webhook.office.com"  # of the connectors that Microsoft has retired
_COLOURS = {Level.INFO: "Good", Level.WARNING: "Warning", Level.ERROR: "Attention"}
_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"


class TeamsKind(HttpKind):
    """A Teams channel or chat with a workflow.

    Text of events is in a TextRun, which has no Markdown.
    """

    name: ClassVar = "teams"
    label: ClassVar = "Microsoft Teams"
    settings: ClassVar = (
        Setting(
            "url", "Workflow URL", "Address of a workflow that posts webhooks to a channel.",
            is_secret=True, is_required=True,
        ),
    )  # fmt: skip

    def checked(self, given: Values) -> dict[str, str]:
        url = checked_url(given["url"], "https://prod-00.westeurope.logic.azure.com/workflows/…")
        host = check_url(url).host
        if host == RETIRED_HOST or host.endswith(f".{RETIRED_HOST}"):
            raise InvalidTarget(
                "url", "belongs to a connector, which Microsoft has retired; make a workflow and use its address"
            )
        return {"url": url}

    def post(self, settings: Values, notice: Notice) -> Post:
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": card(notice),
        }
        return Post(settings["url"], orjson.dumps({"type": "message", "attachments": [attachment]}))


def card(notice: Notice) -> dict[str, Any]:
    """Return the Adaptive Card of a notice."""
    heading = {
        "text": wording.within(wording.title(notice), MAX_TITLE_UNITS),
        "size": "Medium",
        "weight": "Bolder",
        "color": _COLOURS[notice.level],
    }
    found: dict[str, Any] = {
        "type": "AdaptiveCard",
        "$schema": _SCHEMA,
        "version": VERSION,
        "fallbackText": heading["text"],
        "body": [_block(heading), *_lines(notice), *_facts(notice)],
    }
    if notice.url:
        found["actions"] = [{"type": "Action.OpenUrl", "title": "Open in Outfeed", "url": notice.url}]
    return found


def _lines(notice: Notice) -> list[dict[str, Any]]:
    text = wording.within(wording.text(notice), MAX_TEXT_BYTES, size=wording.utf8_size)
    lines = list(filter(None, text.split("\n")))
    return [_block({"text": each}) for each in [*lines[:MAX_LINES], *["…"][: len(lines) > MAX_LINES]]]


def _facts(notice: Notice) -> list[dict[str, Any]]:
    return [
        _block({"text": f"{name}: ", "weight": "Bolder"}, {"text": value}, spacing="Small")
        for name, value in wording.fields(notice)
    ]


def _block(*runs: dict[str, Any], **look: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", **run} for run in runs], **look}
