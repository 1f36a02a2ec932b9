"""Text from outside, made safe to print. No I/O."""

from __future__ import annotations


def escaped(text: str) -> str:
    r"""Return *text* on one line, with control characters, line ends and marks of direction as `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
