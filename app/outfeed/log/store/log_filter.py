"""The conditions of a filter of the log, as SQL and as a search."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from outfeed.log.store import search, words
from outfeed.log.store.query import phrase
from outfeed.principal import EventScope
from outfeed.redaction import redact
from outfeed.store import data_values, instants, rows

# A value, several values of which one is enough, or None for any.
Names = str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DataCondition:
    """The condition that the data has *value* at *path*.

    Values are compared as the text that pages show: `500`, `true`, `null`. A value that redaction hides equals no text,
    so that no filter finds out a secret.
    """

    path: tuple[str, ...]
    value: str
    is_excluded: bool = False

    def where(self) -> rows.Where:
        """Return the condition in SQL."""
        if self._is_secret:
            return {} if self.is_excluded else {"0": ()}
        clause = f"{'NOT ' * self.is_excluded}{data_values.IS}"
        return {clause: (data_values.as_path(self.path), self.value)}

    @property
    def words(self) -> list[str]:
        """The words that stand beside each other in the search index."""
        key = self.path[-1]  # the index has no number for an item of a list
        return words.tokens(self.value if key.isdigit() else f"{key}: {self.value}")

    @property
    def _is_secret(self) -> bool:
        nested: Any = self.value
        for key in reversed(self.path):
            nested = {key: nested}
        return bool(redact(nested) != nested)


@dataclass(frozen=True, slots=True)
class Excluded:
    """Values that an event must not have.

    *types* may be prefixes like `task.*`.
    """

    types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    task_ids: tuple[str, ...] = ()
    agent_ids: tuple[str, ...] = ()

    def where(self) -> rows.Where:
        """Return the conditions in SQL."""
        where = {f"NOT {clause}": values for clause, values in rows.of_types(self.types).items()}
        for column, values in (("source", self.sources), ("task_id", self.task_ids), ("agent_id", self.agent_ids)):
            if values:  # IS NOT, because a row without a task is not of an excluded one
                where[f"({' AND '.join([f'{column} IS NOT ?'] * len(values))})"] = values
        return where


NOTHING = Excluded()


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Conditions on events of the log, all of which must hold.

    *types* are exact types, or prefixes like `task.*`. Empty *types* means all. *since* (inclusive) and *until*
    (exclusive) are timestamps in Outfeed's own form. *text* is words to search for.
    """

    visible: EventScope
    types: tuple[str, ...] = ()
    source: Names = None
    task_id: Names = None
    agent_id: Names = None
    since: str | None = None
    until: str | None = None
    text: str | None = None
    excluded: Excluded = NOTHING
    data: tuple[DataCondition, ...] = ()

    def where(self) -> rows.Where:
        """Return all conditions except the text."""
        where: rows.Where = {}
        for column, given in self.names().items():
            where[f"{column} = ?" if len(given) == 1 else f"{column} IN ({', '.join('?' * len(given))})"] = given
        where |= instants.within(self.since, self.until) | rows.of_types(self.types) | rows.seen(self.visible)
        where |= self.excluded.where()
        for number, condition in enumerate(self.data):  # a comment makes two conditions on the data two keys
            where |= {f"{clause} /* {number} */": values for clause, values in condition.where().items()}
        return where

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the wanted values by column, for columns with a condition."""
        given = {"source": self.source, "task_id": self.task_id, "agent_id": self.agent_id}
        return {column: _several(value) for column, value in given.items() if value is not None and value != ()}

    @property
    def is_timed(self) -> bool:
        """Whether the filter has a time."""
        return self.since is not None or self.until is not None

    @property
    def has_words(self) -> bool:
        """Whether the search index can tell which events match."""
        return self.text is not None or any(each.words for each in self._data_of_index)

    def expression(self) -> str | None:
        """Return text and data in FTS5's syntax, narrowed by the other fields.

        Returns None if the text contains no word.
        """
        given = [values for values in (*self.names().values(), _stems(self.types)) if search.can_narrow(values)]
        parts = [_any_of(map(words.tokens, values)) for values in given if values]
        parts += [_any_of([condition.words]) for condition in self._data_of_index]
        if self.text is None:
            return " AND ".join(parts)
        found = search.expression(self.text)
        return None if found is None else " AND ".join([f"({found})", *parts])

    @property
    def _data_of_index(self) -> list[DataCondition]:
        return [each for each in self.data if not each.is_excluded and each.words]


def split_types(text: str | None) -> tuple[str, ...]:
    """Return the comma-separated types and prefixes in *text*."""
    return tuple(filter(None, map(str.strip, (text or "").split(","))))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _stems(types: Iterable[str]) -> list[str]:
    return [name.removesuffix(".*") for name in types]


def _any_of(phrases: Iterable[list[str]]) -> str:
    return f"({' OR '.join(map(phrase, phrases))})"
