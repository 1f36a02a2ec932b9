"""Text of users and programs: names, escaping, lists, and hints for typos.

No I/O.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# With a prefix such as `webhook:`, it is a valid name of a consumer.
_SHORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,54}")


def check_short_name(name: str) -> str:
    """Return *name* if it is a short name, as one in URLs and commands.

    Raises ValueError.
    """
    if not _SHORT_NAME.fullmatch(name):
        raise ValueError("a name has up to 55 letters, digits, dots, dashes and underscores")
    return name


def escaped(text: str) -> str:
    r"""Return *text* on one line with unprintable characters escaped.

    Control characters, line ends and direction marks become `\x1b` or `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def sentence(text: str) -> str:
    """Return *text* with a capital at the beginning and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def separated(text: str) -> list[str]:
    """Return the parts of *text* between commas.

    Spaces around the parts and empty parts are removed.
    """
    return [part for each in text.split(",") if (part := each.strip())]


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the one of *known* names that *name* probably means, or None."""
    names = list(known)
    found = [each for each in names if name.lower() in each.split("_")]
    found += difflib.get_close_matches(name.lower(), names, 1)
    return found[0] if found else None
