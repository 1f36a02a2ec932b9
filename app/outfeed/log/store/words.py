"""Words: the tokenizer of the search, for texts and queries. No I/O.

FTS5 gets tokens with spaces between them and splits only at these spaces. So an indexed text has the same words as a
text that is read without the index.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

MAX_CACHED, MAX_CACHED_CHARS = 20_000, 64
# The digits of a UUID are random. Split at each digit, a UUID would be dozens of words of one character.
MAX_NUMBERS = 3
_HEX = re.compile("[0-9a-f]+|[0-9A-F]+")
# The same in small letters, by its three pieces or more: a part of an id, which no cache helps.
_ID = re.compile("[0-9a-f]*(?:[0-9][a-f]+[0-9]|[a-f][0-9]+[a-f])[0-9a-f]*")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ASCII_WORD = re.compile(r"[0-9A-Za-z]+")
_ACCENT = re.compile("[\u0300-\u036f]+")
# Scripts without spaces between words, or with endings joined to words. Each of their characters is a token.
_UNSPACED = (
    (0x0E00, 0x109F), (0x1100, 0x11FF), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x3005, 0x3007),
    (0x3021, 0x30FA), (0x30FC, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xA960, 0xA97F), (0xA980, 0xA9DF),
    (0xAA60, 0xAA7F), (0xAC00, 0xD7FF), (0xF900, 0xFAFF), (0xFF66, 0xFFDC),
)  # fmt: skip
# Characters that turn another into an emoji, or frame it. They are not part of any word.
_SELECTORS = {*range(0x20D0, 0x2100), *range(0xFE00, 0xFE10)}
# Characters beyond the first 65,536. Each range slows the check of every space.
_FAR_WORDS = ((0x10000, 0x16FDF), (0x1B300, 0x1EFFF))
_FAR_SINGLES = ((0x16FE0, 0x1B2FF), (0x1F000, 0xE0000), (0xF0000, 0x10FFFF))


class Word(NamedTuple):
    """A token, and the position of its characters in the text."""

    text: str
    start: int
    end: int


def tokens(text: str) -> list[str]:
    """Return the tokens of *text*.

    They are words, split at case and digits, and single characters of scripts without spaces.
    """
    cached = _cache
    found = (_ASCII_WORD if text.isascii() else _words()).findall(text)
    return [token for word in found for token in cached.get(word) or _tokenize(word)]


def locate_tokens(text: str) -> list[Word]:
    """Return `tokens`, each with its position in *text*."""
    return [
        Word(token, match.start() + start, match.start() + end)
        for match in _words().finditer(text)
        for token, start, end in (_split_short if len(match[0]) <= MAX_CACHED_CHARS else _split)(match[0])
    ]


def unsplit(line: str, split: list[str]) -> list[str]:
    """Return the tokens of *line* with no word split at its case.

    Returns none if they equal *split*, the line's tokens.
    """
    lower = line.lower()
    found = split if lower == line else tokens(lower)
    return [] if found == split else found


def indexed(text: str) -> str:
    """Return the tokens that the index stores for *text*.

    They are the split tokens of each line, then the unsplit tokens of lines with words that are split.
    """
    lines = [(line, tokens(line)) for line in text.split("\n")]
    found = [split for _, split in lines] + [unsplit(line, split) for line, split in lines]
    return " ".join(token for stream in found for token in stream)


# --- a word -----------------------------------------------------------------------------------------------------------

_cache: dict[str, tuple[str, ...]] = {}


def _tokenize(word: str) -> tuple[str, ...]:
    """Return the word's tokens, and cache those of a short word."""
    if _ID.fullmatch(word):
        return (word,)
    if word.isascii() and (word.isdigit() or (word.isalpha() and (word.islower() or word.isupper()))):
        found: tuple[str, ...] = (word.lower(),)
    else:
        found = tuple(token for piece, _, _ in _pieces(word) if (token := _folded(piece)))
    if len(word) <= MAX_CACHED_CHARS:
        if len(_cache) > MAX_CACHED:
            _cache.clear()
        _cache[word] = found
    return found


@functools.lru_cache(MAX_CACHED)
def _split_short(word: str) -> tuple[Word, ...]:
    return _split(word)


def _split(word: str) -> tuple[Word, ...]:
    return tuple(Word(token, start, end) for piece, start, end in _pieces(word) if (token := _folded(piece)))


def _pieces(word: str) -> list[tuple[str, int, int]]:
    """Return the word split at its case and digits, as (piece, start, end).

    An id of hexadecimal digits stays whole.
    """
    found = [(match[0], *match.span()) for match in (_PIECE if word.isascii() else _letters()).finditer(word)]
    is_id = len(found) > 2 and (_HEX.fullmatch(word) or sum(piece[0].isdigit() for piece, *_ in found) > MAX_NUMBERS)
    return [(word, 0, len(word))] if is_id else found


def _folded(piece: str) -> str:
    """Return *piece* without case and accents, limited to word characters."""
    if piece.isascii():
        return piece.lower()
    folded = _ACCENT.sub("", unicodedata.normalize("NFKD", piece.casefold()))
    return "".join(_words().findall(unicodedata.normalize("NFKC", folded)))


# --- classes of characters --------------------------------------------------------------------------------------------


@functools.cache
def _words() -> re.Pattern[str]:
    """Return the pattern of words and of single-character words.

    The latter are characters of scripts without spaces, emoji and other symbols.
    """
    return re.compile(f"[{_classes().word}]+|[{_classes().single}]")


@functools.cache
def _letters() -> re.Pattern[str]:
    """Return the pattern of the pieces of a word that is not ASCII."""
    _, upper, number, rest, single = _classes()
    return re.compile(f"[{upper}]+(?![{rest}])|[{upper}]?[{rest}]+|[{number}]+|[{single}]")


class _Classes(NamedTuple):
    """Bodies of character classes.

    *word* is all characters of words, and consists of *upper*, *number* and *rest*. *single* is the characters that are
    words by themselves.
    """

    word: str
    upper: str
    number: str
    rest: str
    single: str


@functools.cache
def _classes() -> _Classes:
    """Sort all characters into classes.

    A process that searches does this once, in 0.05 s.
    """
    found: dict[str, list[int]] = {"upper": [], "number": [], "rest": [], "single": []}
    for code in range(0x30, 0x10000):
        if kind := _kind_of(code):
            found[kind].append(code)
    upper, number, rest, single = map(_ranges, found.values())
    rest, single = [*rest, *_FAR_WORDS], [*single, *_FAR_SINGLES]
    word = [*upper, *number, *rest]
    return _Classes(*map(_body, (word, upper, number, rest, single)))


def _kind_of(code: int) -> str | None:
    category = unicodedata.category(chr(code))
    if code in _SELECTORS or category[0] not in "LNMSC":
        return None
    if category[0] in "LNM":
        if any(low <= code <= high for low, high in _UNSPACED):
            return "single"
        return {"Lu": "upper", "Lt": "upper", "Nd": "number"}.get(category, "rest")
    return "single" if category == "Co" or (category[0] == "S" and code > 0x7F) else None


def _ranges(codes: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and code == found[-1][1] + 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def _body(ranges: Iterable[tuple[int, int]]) -> str:
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
