"""Templates: texts with places for values of a request. No I/O.

`{a.b}` is the value at that path of the payload, `{a|b}` the first of two that is filled. `[ in {a}]` is omitted with
the text around it if the value is missing. `{item.a}` is a value of the item of a list, `{header.X-Event}` a header,
`{topic}` the topic, and `{source}` the source of the token or address. `{body.item}` is the key `item` of the payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from outfeed.errors import InvalidMapping

MAX_TEMPLATE_CHARS = 1000
_PART = re.compile(r"([^{}\[\]]+)|\{([^{}\[\]]+)\}|\[([^{}\[\]]*)\{([^{}\[\]]+)\}([^{}\[\]]*)\]")


class Payload(NamedTuple):
    """The values of one request, or of one of its items.

    The names of *headers* are in lower case.
    """

    topic: str
    source: str
    headers: Mapping[str, str]
    body: Any
    item: Any = None

    def value(self, path: str) -> Any:
        """Return the value at *path*, or None."""
        first, _, rest = path.partition(".")
        match first:
            case "topic":
                return self.topic
            case "source":
                return self.source
            case "header":
                return self.headers.get(rest.lower())
            case "item":
                return value_at(self.item, rest)
            case "body":
                return value_at(self.body, rest)
        return value_at(self.body, path)


def value_at(value: Any, path: str) -> Any:
    """Return the value at *path* in parsed JSON, or None.

    A part of the path is a key of an object or a position in a list. An empty path is the whole value.
    """
    for key in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and len(key) < 5 and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


class ValuePlace(NamedTuple):
    """A place for the first filled value of *paths*.

    An optional place is omitted, with the text *before* and *after* it, if no value is filled.
    """

    paths: tuple[str, ...]
    before: str = ""
    after: str = ""
    is_optional: bool = False

    def text(self, payload: Payload, change: Callable[[str], str]) -> str | None:
        """Return the first filled value as text, changed by *change*.

        Returns None if none is filled and the place is not optional.
        """
        found = next(filter(None, (change(text_of(payload.value(path))) for path in self.paths)), None)
        if found is None:
            return "" if self.is_optional else None
        return f"{self.before}{found}{self.after}"


class Template(NamedTuple):
    """A parsed template."""

    source: str
    parts: tuple[str | ValuePlace, ...]

    @classmethod
    def parsed(cls, source: str) -> Template:
        """Return the template of *source*. Raises InvalidMapping."""
        if len(source) > MAX_TEMPLATE_CHARS:
            raise InvalidMapping(f"must have at most {MAX_TEMPLATE_CHARS:,} characters, got {len(source):,}")
        found = [match.groups() for match in _PART.finditer(source)]
        parts = tuple(_part(*groups) for groups in found)
        if sum(len(match[0]) for match in _PART.finditer(source)) != len(source):
            raise InvalidMapping(f"must have places like {{a.b}} or [ in {{a.b}}], got {source!r:.80}")
        return cls(source, parts)

    def text(self, payload: Payload, change: Callable[[str], str] = str) -> str | None:
        """Return the filled text, or None if a required value is missing.

        *change* is applied to each value.
        """
        texts = [part if isinstance(part, str) else part.text(payload, change) for part in self.parts]
        return None if None in texts else "".join(filter(None, texts))

    def value(self, payload: Payload) -> Any:
        """Return the value of a template that is one place, else its text.

        A value keeps its JSON type. Missing values and empty texts are None.
        """
        match self.parts:
            case (ValuePlace(paths=paths, is_optional=False),):
                found = (payload.value(path) for path in paths)
                return next((value for value in found if value not in (None, "", [], {})), None)
        return self.text(payload) or None


def _part(text: str, names: str, before: str, optional: str, after: str) -> str | ValuePlace:
    if text:
        return text
    paths = tuple(map(str.strip, (names or optional).split("|")))
    return ValuePlace(paths) if names else ValuePlace(paths, before, after, is_optional=True)


def text_of(value: Any) -> str:
    """Return a scalar as text; empty text for any other value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""
