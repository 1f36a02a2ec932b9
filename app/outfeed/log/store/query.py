"""Search queries: required words, alternatives and excluded words. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from outfeed.errors import InvalidRequest
from outfeed.log.store import words

# A token that each indexed event has and no text contains. A query with only excluded words needs it.
EVERY = "··"
_PART = re.compile(r'(?P<minus>(?<!\S)-)?(?:"(?P<quoted>[^"]*)"?(?P<star>\*?)|(?P<plain>[^\s"]+))')
# Each word reads one posting list, and each prefix the lists of all words that begin with it.
MAX_WORDS, MIN_PREFIX_CHARS = 32, 2
_OPERATORS = ("AND", "OR", "NOT")


class Term(NamedTuple):
    """A word, a phrase or a prefix, as tokens.

    *split* are the tokens with words split at their case, and *unsplit* those without that split. *unsplit* is empty if
    both are the same.
    """

    split: list[str]
    unsplit: list[str]
    is_prefix: bool

    @property
    def forms(self) -> list[list[str]]:
        """The token sequences, of which an event must contain one."""
        return [form for form in (self.split, self.unsplit) if form]

    @property
    def expression(self) -> str:
        """The term in FTS5's syntax."""
        found = [phrase(form) + "*" * self.is_prefix for form in self.forms]
        return found[0] if len(found) == 1 else f"({' OR '.join(found)})"


@dataclass(frozen=True, slots=True)
class Query:
    """A search: one term of each group must occur, and none of *excluded*."""

    groups: list[list[Term]]
    excluded: list[Term]

    @classmethod
    def of(cls, text: str) -> Query | None:
        """Return the query of *text*, or None if it contains no word.

        Raises InvalidRequest for more than MAX_WORDS words and phrases, or for a prefix that is too short.
        """
        groups: list[list[Term]] = []
        excluded: list[Term] = []
        operator = ""
        for part in _PART.finditer(text):
            if part["plain"] in _OPERATORS and not part["minus"]:
                operator = part["plain"]
                continue
            term = _term(part)
            if not term:
                continue
            if part["minus"] or operator == "NOT":
                excluded.append(term)
            elif operator == "OR" and groups:
                groups[-1].append(term)
            else:
                groups.append([term])
            operator = ""
        _check_size(len(excluded) + sum(map(len, groups)))
        return cls(groups, excluded) if groups or excluded else None

    @property
    def terms(self) -> list[Term]:
        """The terms that a matching event may contain."""
        return [term for group in self.groups for term in group]

    @property
    def expression(self) -> str:
        """The query in FTS5's syntax."""
        required = " AND ".join(_any_of(term.expression for term in group) for group in self.groups)
        if not self.excluded:
            return required
        return f"({required or phrase([EVERY])}) NOT {_any_of(term.expression for term in self.excluded)}"


def phrase(tokens: Iterable[str]) -> str:
    """Return the tokens as a phrase in FTS5's syntax."""
    return f'"{" ".join(tokens)}"'


def _term(part: re.Match[str]) -> Term | None:
    plain = part["plain"] or ""
    text = part["quoted"] or plain.rstrip("*")
    split = words.tokens(text)
    if not split:
        return None
    is_prefix = bool(part["star"]) or plain.endswith("*")
    if is_prefix and text.isascii() and len(text.strip()) < MIN_PREFIX_CHARS:
        raise InvalidRequest("invalid_field", f"text: {text}* is too short; give {MIN_PREFIX_CHARS} characters")
    return Term(split, words.unsplit(text, split), is_prefix)


def _check_size(count: int) -> None:
    if count > MAX_WORDS:
        raise InvalidRequest("invalid_field", f"text: has {count} words and phrases; at most {MAX_WORDS} are allowed")


def _any_of(expressions: Iterable[str]) -> str:
    found = list(expressions)
    return found[0] if len(found) == 1 else f"({' OR '.join(found)})"
