"""Text from outside, made safe to print, and what may be meant by it. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def escaped(text: str) -> str:
    r"""Return *text* on one line, with control characters, line ends and marks of direction as `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the one of *known* names that was probably meant by *name*; None if none is near."""
    names = list(known)
    found = [each for each in names if name.lower() in each.split("_")]
    found += difflib.get_close_matches(name.lower(), names, 1)
    return found[0] if found else None
