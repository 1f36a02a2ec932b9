"""Snippets: the part of an event's text that matches a search. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from outfeed.log.store import words
from outfeed.log.store.query import Query, Term
from outfeed.log.store.words import Word

MAX_CHARS = 200
LEAD_CHARS = 60  # before the first match
WINDOW_CHARS = 2000
_Span = tuple[int, int]


class Snippet(NamedTuple):
    """Text around matches.

    *marks* are their start and end positions, in characters, sorted and without overlaps.
    """

    text: str
    marks: list[_Span]

    def as_dict(self) -> dict[str, Any]:
        """Return the snippet in the form of the API."""
        return {"text": self.text, "marks": self.marks}

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is a match."""
        found, place = list[tuple[str, bool]](), 0
        for start, end in self.marks:
            found += [(self.text[place:start], False), (self.text[start:end], True)]
            place = end
        return [part for part in [*found, (self.text[place:], False)] if part[0]]


def snippet(query: Query, text: str) -> Snippet | None:
    """Return the line of *text* with the most matching terms.

    The line is cut around the first match. Returns None if nothing matches.
    """
    best, most_terms = None, 0
    for line in _windows(text):
        hits = [found for term in query.terms if (found := _hits(term, line))]
        if len(hits) > most_terms:
            best, most_terms = _cut_around(line, _merged([span for found in hits for span in found])), len(hits)
        if most_terms == len(query.terms):
            break
    return best


def _windows(text: str) -> Iterator[str]:
    """Yield the lines, then the whole text as one line.

    Long lines come in pieces. The whole text is for phrases that cross a line's end.
    """
    for line in text.split("\n"):
        yield from (line[start : start + WINDOW_CHARS] for start in range(0, len(line), WINDOW_CHARS))
    yield text.replace("\n", " ")


def _hits(term: Term, line: str) -> list[_Span]:
    streams = [words.locate_tokens(line)]
    lower = line.lower()
    if lower != line and len(lower) == len(line):
        streams.append(words.locate_tokens(lower))
    return [span for stream in streams for form in term.forms for span in _places(form, stream, term.is_prefix)]


def _places(form: list[str], stream: list[Word], is_prefix: bool) -> Iterator[_Span]:
    size, texts = len(form), [token.text for token in stream]
    for place in range(len(texts) - size + 1):
        last = texts[place + size - 1]
        if texts[place : place + size - 1] == form[:-1] and (
            last == form[-1] or (is_prefix and last.startswith(form[-1]))
        ):
            yield stream[place].start, stream[place + size - 1].end


def _merged(spans: list[_Span]) -> list[_Span]:
    found: list[_Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _cut_around(line: str, marks: list[_Span]) -> Snippet:
    first = max(0, marks[0][0] - LEAD_CHARS)
    if first:  # move to the start of a word, if one is near
        first = max(first, line.rfind(" ", first, marks[0][0] - LEAD_CHARS // 2) + 1)
    last = min(len(line), first + MAX_CHARS)
    before, after = "…" * (first > 0), "…" * (last < len(line))
    shift = len(before) - first
    kept = [(start + shift, min(end, last) + shift) for start, end in marks if start < last]
    return Snippet(before + line[first:last] + after, kept)
