"""Notices for ntfy: a topic, published as JSON (docs.ntfy.sh/publish)."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import orjson

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import HttpKind, Post, Setting, Values, checked_url
from outfeed.alerts.targets.notice import Notice, NoticeKind
from outfeed.display import Level
from outfeed.errors import InvalidTarget
from outfeed.webhooks.target import check_url

MAX_TITLE_UNITS = 250
MAX_MESSAGE_BYTES = 3000  # a server takes 4096, and makes a longer message a file
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,200}")
_PRIORITIES = {Level.INFO: 3, Level.WARNING: 4, Level.ERROR: 5}
_TAGS = {Level.INFO: "information_source", Level.WARNING: "warning", Level.ERROR: "rotating_light"}


class NtfyKind(HttpKind):
    """A topic of an ntfy server.

    The topic's name is a password. A server of version 2.16 or later replaces a repeated notice by its sequence id.
    """

    name: ClassVar = "ntfy"
    label: ClassVar = "ntfy"
    settings: ClassVar = (
        Setting("url", "Topic URL", "Address of the topic.", is_secret=True, is_required=True),
        Setting("token", "Access token", "Access token, if the server needs one.", is_secret=True, is_sent=True),
    )

    def checked(self, given: Values) -> dict[str, str]:
        url = checked_url(given["url"], "https://ntfy.sh/TOPIC")
        parsed = check_url(url)
        if not _TOPIC.fullmatch(parsed.path.removeprefix("/")) or parsed.query:
            raise InvalidTarget("url", "must end in a topic of 1 to 64 letters, digits, dashes and underscores")
        if (token := given.get("token", "")) and not _TOKEN.fullmatch(token):
            raise InvalidTarget("token", "must have 1 to 200 printable characters without spaces")
        return {"url": url} | ({"token": token} if token else {})

    def post(self, settings: Values, notice: Notice) -> Post:
        url = check_url(settings["url"])
        message: dict[str, Any] = {
            "topic": url.path.removeprefix("/"),
            "title": wording.within(wording.line(notice.title), MAX_TITLE_UNITS),
            "message": wording.within(wording.plain(notice), MAX_MESSAGE_BYTES, size=wording.utf8_size),
            "priority": _PRIORITIES[notice.level],
            "tags": ["white_check_mark" if notice.kind is NoticeKind.CLEARED else _TAGS[notice.level]],
            "sequence_id": wording.plain_id(notice.event_id),
        }
        if notice.url:
            message["click"] = notice.url
        token = settings.get("token")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return Post(str(url.copy_with(path="/")), orjson.dumps(message), headers)
