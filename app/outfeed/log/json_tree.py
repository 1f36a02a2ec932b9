"""JSON as a tree, as a page shows it. No I/O."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

MAX_NODES = 500
MAX_TEXT_CHARS = 2000
MAX_FILTER_CHARS = 200  # a longer value is searched as text, not as a filter
_NAMES = {None: "null", True: "true", False: "false"}
_SPECIAL = re.compile(r'[\s":.\\]')


@dataclass(frozen=True, slots=True)
class Node:
    """One value.

    *key* is its name in the object, or its index in the list. *text* is a scalar's text, without quotes. *query* is the
    log's filter for the value, or None for a value that no filter can name.
    """

    key: str | None
    kind: str  # object, array, string, number, boolean, null
    text: str = ""
    query: str | None = None
    children: list[Node] = field(default_factory=list)

    @property
    def is_container(self) -> bool:
        """Whether the value is an object or a list."""
        return self.kind in ("object", "array")

    @property
    def is_text(self) -> bool:
        """Whether the value is shown in quotes."""
        return self.kind == "string"


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of one value. *is_cut* means that some are left out."""

    root: Node
    is_cut: bool


def tree_of(value: Any) -> Tree:
    """Return the tree of *value*, with up to MAX_NODES nodes.

    *value* is parsed JSON of bounded depth (`outfeed.nesting`).
    """
    maker = _Maker()
    root = maker.node(None, value, ())
    return Tree(root, maker.is_cut)


class _Maker:
    """Makes nodes, depth first, until the limit."""

    def __init__(self) -> None:
        self.is_cut = False
        self._left = MAX_NODES

    def node(self, key: str | None, value: Any, path: tuple[str, ...]) -> Node:
        self._left -= 1
        if isinstance(value, dict):
            return Node(key, "object", children=self._children(value.items(), path))
        if isinstance(value, list | tuple):
            return Node(key, "array", children=self._children(enumerate(value), path))
        text = text_of(value)
        query = query_of(path, text) if path and len(text) <= MAX_FILTER_CHARS else None
        return Node(key, _kind_of(value), self._shortened(text), query)

    def _children(self, pairs: Any, path: tuple[str, ...]) -> list[Node]:
        found = []
        for key, value in pairs:
            if self._left <= 0:
                self.is_cut = True
                break
            found.append(self.node(str(key), value, (*path, str(key))))
        return found

    def _shortened(self, text: str) -> str:
        if len(text) <= MAX_TEXT_CHARS:
            return text
        self.is_cut = True
        return f"{text[:MAX_TEXT_CHARS]}…"


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def text_of(value: Any) -> str:
    """Return the text of a scalar, as JSON without quotes."""
    if value is None or isinstance(value, bool):
        return _NAMES[value]
    return value if isinstance(value, str) else json.dumps(value)


def query_of(path: tuple[str, ...], text: str) -> str:
    """Return the log's query for events with that value at *path*."""
    name = ".".join(_SPECIAL.sub(lambda found: f"\\{found[0]}", key) for key in path)
    is_plain = text and not re.search(r'[\s"]', text)
    return f"data.{name}:{text}" if is_plain else f'data.{name}:"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
