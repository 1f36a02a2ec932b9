"""The query language of the log: text to terms, and back. No I/O.

A query is terms with spaces between them: `type:task.* -source:ci data.status:500 "out of memory" since:1h`. All terms
must match, and several terms of one field match any of their values. docs/queries.md describes the language for users.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from outfeed import clock
from outfeed.text import near

TEXT, TYPE, SOURCE, TASK, AGENT, SINCE, UNTIL = "text", "type", "source", "task", "agent", "since", "until"
DATA = "data."
FIELDS = (TYPE, SOURCE, TASK, AGENT, SINCE, UNTIL)
# The names in the API and the feed, and those that other products use.
ALIASES = {
    "event_type": TYPE, "types": TYPE, "task_id": TASK, "agent_id": AGENT, "from": SINCE, "after": SINCE, "to": UNTIL,
    "before": UNTIL,
}  # fmt: skip
MAX_QUERY_CHARS = 4000
MAX_TERMS = 50
_OPERATORS = ("AND", "OR", "NOT")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"([0-9]{1,5})(s|min|m|h|d|w)")
_MAX_TERM_AGE = timedelta(days=366 * 100)
_SPACES = re.compile(r"\s+")
_FIELD = re.compile(
    r'(?P<minus>-?)(?P<name>data\.(?:[^\s":\\]|\\.)*|[a-z][a-z0-9_.]*):'
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)(?P<end>"?)|(?P<bare>[^\s"]\S*)|(?P<empty>(?=\s|$)))',
    re.DOTALL,
)
_PIECE = re.compile(r'-?"[^"]*(?:"\*?|$)|[^\s"]+')
_BARE = re.compile(r'[^\s"]+')
_SPECIAL = re.compile(r'[\s":.\\]')
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class QueryTerm:
    """One condition: *field* has *value*.

    With *is_excluded* it has another value. The *field* is one of FIELDS, TEXT, or DATA and the path of a value in the
    data. The value of TEXT is words in the syntax of the search, where each has its own `-`.
    """

    field: str
    value: str
    is_excluded: bool = False

    def __str__(self) -> str:
        """Return the term in the query language."""
        if self.field == TEXT:
            return " ".join(map(_as_text, _PIECE.findall(self.value)))
        value = self.value if _BARE.fullmatch(self.value) else f'"{_escape(self.value)}"'
        return f"{'-' * self.is_excluded}{self.field}:{value}"

    @property
    def is_time(self) -> bool:
        """Whether the term limits the time."""
        return self.field in (SINCE, UNTIL)


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """The terms of a query, and a sentence for each part that is invalid.

    Invalid parts are not among the terms.
    """

    terms: tuple[QueryTerm, ...] = ()
    problems: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        """Return the query as text, which has the same terms if it is parsed."""
        return " ".join(map(str, self.terms))

    def values(self, name: str, *, is_excluded: bool = False) -> tuple[str, ...]:
        """Return the values of the terms of one field, in order."""
        return tuple(term.value for term in self.terms if (term.field, term.is_excluded) == (name, is_excluded))

    @property
    def text(self) -> str | None:
        """The words to search for, or None."""
        return " ".join(self.values(TEXT)) or None

    @property
    def data(self) -> tuple[QueryTerm, ...]:
        """The terms on values in the data."""
        return tuple(term for term in self.terms if term.field.startswith(DATA))

    def without(self, *dropped: QueryTerm) -> ParsedQuery:
        """Return the query without these terms."""
        return ParsedQuery(tuple(term for term in self.terms if term not in dropped))

    def without_times(self) -> ParsedQuery:
        """Return the query for all times."""
        return ParsedQuery(tuple(term for term in self.terms if not term.is_time))

    def with_terms(self, *added: QueryTerm) -> ParsedQuery:
        """Return the query with more terms.

        A time replaces the one of the same field, and a value replaces its own opposite.
        """
        opposite = {(term.field, term.value) for term in added}
        times = {term.field for term in added if term.is_time}
        kept = (term for term in self.terms if (term.field, term.value) not in opposite and term.field not in times)
        return ParsedQuery((*kept, *added))

    def moment(self, name: str, now: datetime) -> datetime | None:
        """Return the time of SINCE or UNTIL, in UTC, or None without one."""
        return next((moment_of(value, now) for value in self.values(name)), None)


def parse(text: str) -> ParsedQuery:
    """Return the query of any text. Its problems name what was ignored."""
    if len(text) > MAX_QUERY_CHARS:
        return ParsedQuery((), (f"A query has at most {MAX_QUERY_CHARS:,} characters.",))
    terms, problems, times = list[QueryTerm](), list[str](), set[str]()
    for found in _parts(text.replace("\0", " ")):
        if isinstance(found, str):
            problems.append(found)
        elif found.field in times:
            problems.append(f"{found.field} is given twice; the second one was ignored.")
        elif found not in terms or found.field == TEXT:
            terms.append(found)
            times |= {found.field} if found.is_time else set()
    if len(terms) > MAX_TERMS:
        problems.append(f"A query has at most {MAX_TERMS} terms; the others were ignored.")
    return ParsedQuery(tuple(terms[:MAX_TERMS]), tuple(problems))


def of_fields(values: Iterable[tuple[str, str]]) -> ParsedQuery:
    """Return the query of (field, value) pairs. Its problems are of values."""
    found = [_term_of(name, value, is_excluded=False) for name, value in values]
    terms = dict.fromkeys(one for one in found if isinstance(one, QueryTerm))
    return ParsedQuery(tuple(terms), tuple(one for one in found if isinstance(one, str)))


def path_of(term: QueryTerm) -> list[str]:
    """Return the keys that lead to the term's value in the data."""
    keys = re.findall(r"(?:[^.\\]|\\.)+", term.field.removeprefix(DATA), re.DOTALL)
    return [_ESCAPED.sub(r"\1", key) for key in keys]


def data_field(path: Iterable[str]) -> str:
    """Return the field of the value at *path* in the data."""
    return DATA + ".".join(_SPECIAL.sub(r"\\\g<0>", key) for key in path)


def moment_of(value: str, now: datetime) -> datetime | None:
    """Return the time that *value* names, in UTC, or None.

    It is ISO 8601, or a time before *now*: `90s`, `15m`, `6h`, `7d`, `2w`.
    """
    secs = seconds_of(value)
    return clock.parsed(value) if secs is None else now - min(timedelta(seconds=secs), _MAX_TERM_AGE)


def seconds_of(value: str) -> int | None:
    """Return the seconds of a duration like `90s`, `15m` or `7d`, or None."""
    match = _RELATIVE.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match else None


def is_relative(value: str) -> bool:
    """Return whether *value* is a time before now, like `15m`."""
    return seconds_of(value) is not None


# --- parsing ----------------------------------------------------------------------------------------------------------


def _parts(text: str) -> Iterator[QueryTerm | str]:
    """Yield the terms, and a sentence in place of each invalid one."""
    place, words = 0, list[str]()
    while place < len(text):
        if match := _SPACES.match(text, place):
            place = match.end()
        elif match := _field_at(text, place):
            yield from _text_of(words)
            words = []
            yield _term(match)
            place = match.end()
        else:
            match = _PIECE.match(text, place)
            assert match is not None
            if words and not _is_joined(words[-1], match[0]):
                yield from _text_of(words)
                words = []
            words.append(match[0])
            place = match.end()
    yield from _text_of(words)


def _field_at(text: str, place: int) -> re.Match[str] | None:
    """Return the match of a field at *place*, or None if text stands there."""
    match = _FIELD.match(text, place)
    if match is None or _is_known(match["name"]):
        return match
    is_address = match["bare"] is not None and match["bare"][0] in ":/"  # https://…, std::vector
    return None if is_address or match["empty"] is not None else match


def _is_known(name: str) -> bool:
    return name in FIELDS or name in ALIASES or name == TEXT or name.startswith(DATA)


def _is_joined(before: str, piece: str) -> bool:
    return piece in _OPERATORS or before in _OPERATORS


def _text_of(words: list[str]) -> Iterator[QueryTerm]:
    if words:
        yield QueryTerm(TEXT, " ".join(words))


def _term(match: re.Match[str]) -> QueryTerm | str:
    name, quoted = match["name"], match["quoted"]
    if quoted is not None and not match["end"]:
        return f'The quote after {name}: has no end. Write {name}:"a value".'
    value = match["bare"] or "" if quoted is None else _ESCAPED.sub(r"\1", quoted)
    if match["empty"] is not None:
        return f"{name}: has no value."
    return _term_of(name, value, is_excluded=bool(match["minus"]))


def _term_of(name: str, value: str, *, is_excluded: bool) -> QueryTerm | str:
    """Return the term, or a sentence on the problem of it."""
    name = ALIASES.get(name, name)
    if name == TEXT:
        return (
            QueryTerm(TEXT, " ".join(map(_as_text, _PIECE.findall(value)))) if value.strip() else "text: has no value."
        )
    if name.startswith(DATA):
        term = QueryTerm(name, value, is_excluded)
        return term if path_of(term) else "data: needs a name, like data.status:500."
    if name not in FIELDS:
        return _unknown(name, value)
    if name in (SINCE, UNTIL):
        return _time_term(name, value, is_excluded=is_excluded)
    return QueryTerm(name, value, is_excluded)


def _time_term(name: str, value: str, *, is_excluded: bool) -> QueryTerm | str:
    if is_excluded:
        return f"{name} can't be excluded."
    if not is_relative(value) and clock.parsed(value) is None:
        return f'"{value:.80}" isn\'t a date; that filter was ignored. Use 2026-01-31T12:00, or 15m, 6h or 7d.'
    return QueryTerm(name, value)


def _unknown(name: str, value: str) -> str:
    meant = near(name, (*FIELDS, *ALIASES))
    hint = f" Did you mean {meant}?" if meant else ""
    return f'Unknown filter {name:.80}.{hint} To search for it as text, write "{name:.80}:{value:.80}" in quotes.'


# --- formatting -------------------------------------------------------------------------------------------------------


def _as_text(piece: str) -> str:
    """Return a piece of text, in quotes if it would be read as a field."""
    if piece.removeprefix("-").startswith('"') or _field_at(piece, 0) is None:
        return piece
    minus, words = ("-", piece[1:]) if piece.startswith("-") else ("", piece)
    stem = words.rstrip("*")
    return f'{minus}"{stem}"{"*" if stem != words else ""}'


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
