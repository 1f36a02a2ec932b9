"""Topics: the last part of an incoming URL, and its event type. No I/O."""

from __future__ import annotations

import re

from outfeed.errors import InvalidRequest
from outfeed.events import MAX_TYPE_CHARS

MESSAGE = ".message"
_TOPIC = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_NOT_IN_A_TYPE = re.compile(r"[^a-z0-9_.]+")


def check_topic(topic: str) -> str:
    """Return *topic* if it is valid. Raises InvalidRequest."""
    if not _TOPIC.fullmatch(topic) or len(topic) > MAX_TYPE_CHARS - len(MESSAGE):
        raise InvalidRequest(
            "invalid_field",
            f"topic: must be lower-case words joined by dots, like backups or backup.done, with at most"
            f" {MAX_TYPE_CHARS - len(MESSAGE)} characters (got {topic!r:.80})",
        )
    return topic


def type_of(topic: str) -> str:
    """Return *topic*, or `TOPIC.message` if it has no dot."""
    return topic if "." in topic else f"{topic}{MESSAGE}"


def word_of_type(text: str) -> str:
    """Return a sender's *text* with the characters that a type may have.

    `Pull Request` becomes `pull_request`. Dots stay.
    """
    words = (part.strip("_") for part in _NOT_IN_A_TYPE.sub("_", text.lower()).split("."))
    return ".".join(filter(None, words))
