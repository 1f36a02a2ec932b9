"""Manual: the documentation as it is shipped, and a search over it.

The topics are in the order of the menu.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "docs"
# The menu: each group with its topics. A topic is the name of a file in `docs`, and of a page below /docs.
MENU: dict[str, tuple[str, ...]] = {
    "Start": ("index", "tutorial"),
    "Guides": (
        "embed",
        "consumers",
        "incoming",
        "otlp",
        "mcp",
        "webhooks",
        "alerts",
        "targets",
        "watch",
        "adopt",
        "backup",
        "administration",
        "deploy",
        "hosts",
        "upgrade",
        "troubleshooting",
    ),
    "Reference": (
        "events",
        "queries",
        "displays",
        "protocol",
        "websocket",
        "http",
        "event-feed",
        "python",
        "swarm",
        "commands",
        "settings",
        "metrics",
        "errors",
    ),
    "Concepts": ("delivery", "edges", "performance", "security"),
}
MAX_HITS = 30
_SNIPPET_CHARS = 160
_MARKER = re.compile(r"^<!--.*-->\n", re.MULTILINE)
_MARKDOWN_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_HEADING = re.compile(r"^#{1,4} +(.+)$")


class Section(NamedTuple):
    """A heading and the text up to the next one.

    *anchor* is empty for the top of a page.
    """

    topic: str
    page: str
    title: str
    anchor: str
    text: str


class Hit(NamedTuple):
    """A section that a search has found, with the matching line."""

    section: Section
    snippet: str


def topics() -> list[str]:
    """Return every topic in the order of the menu."""
    return [topic for group in MENU.values() for topic in group]


@functools.cache
def read(topic: str) -> str:
    """Return the Markdown of *topic*. Raises KeyError.

    The markers of generated parts are left out.
    """
    if topic not in topics():
        raise KeyError(topic)
    return _MARKER.sub("", (FOLDER / f"{topic}.md").read_text("utf-8"))


def title(topic: str) -> str:
    """Return the heading of the page *topic*."""
    return read(topic).partition("\n")[0].removeprefix("# ").replace("`", "")


def summary(topic: str) -> str:
    """Return the first paragraph of the page *topic* on one line."""
    return " ".join(read(topic).split("\n\n")[1].split())


def anchor_of(heading: str) -> str:
    """Return the anchor of a heading, as GitHub creates it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@functools.cache
def sections() -> tuple[Section, ...]:
    """Return every section of every page."""
    return tuple(section for topic in topics() for section in _sections_of(topic))


def _sections_of(topic: str) -> Iterator[Section]:
    heading, anchor, is_code = title(topic), "", False
    lines: list[str] = []
    for line in read(topic).splitlines()[1:]:
        is_code ^= line.startswith("```")
        found = None if is_code else _HEADING.match(line)
        if found:
            yield Section(topic, title(topic), heading, anchor, "\n".join(lines))
            heading, lines = found[1].replace("`", ""), []
            anchor = anchor_of(heading)
        else:
            lines.append(line)
    yield Section(topic, title(topic), heading, anchor, "\n".join(lines))


def search(query: str) -> list[Hit]:
    """Return up to MAX_HITS sections that contain every word of *query*.

    Sections with a word in their heading come first.
    """
    words = query.lower().split()
    if not words:
        return []
    found = [each for each in sections() if all(word in f"{each.title}\n{each.text}".lower() for word in words)]
    found.sort(key=lambda each: -len({*words} & {*re.findall(r"\w+", each.title.lower())}))
    return [Hit(each, _snippet(each, words)) for each in found[:MAX_HITS]]


def _snippet(section: Section, words: list[str]) -> str:
    lines = [_plain(line) for line in section.text.splitlines() if line and not line.startswith(("```", "|--", "| --"))]
    best = next((line for line in lines if any(word in line.lower() for word in words)), lines[0] if lines else "")
    place = min((at for word in words if (at := best.lower().find(word)) >= 0), default=0)
    begin = _word_at(best, place - _SNIPPET_CHARS // 2)
    end = _word_at(best, begin + _SNIPPET_CHARS)
    return f"{'…' * (begin > 0)}{best[begin:end].strip()}{'…' * (end < len(best))}"


def _plain(line: str) -> str:
    """Return a line of Markdown as text: links by their words, no marks."""
    if line.startswith("|"):  # a row of a table
        line = re.sub(r" *\| *", " \N{MIDDLE DOT} ", line.strip(" |"))
    return re.sub(r"^(?:[-*] |\d+\. )|[`*]", "", _MARKDOWN_LINK.sub(r"\1", line))


def _word_at(text: str, place: int) -> int:
    """Return the begin of the word at *place* of *text*, or an end of it."""
    if place <= 0 or place >= len(text):
        return max(0, min(place, len(text)))
    return text.rfind(" ", 0, place) + 1
