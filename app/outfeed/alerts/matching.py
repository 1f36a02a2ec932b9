"""Matching: which rules an event of the outbox matches. No I/O.

The filters of all rules are compiled once. Most events are decided by one look-up of their type and source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from outfeed.alerts.rule import PREFIX
from outfeed.history import Item
from outfeed.log.store.log_filter import LogFilter
from outfeed.principal import is_of_type
from outfeed.store import data_values

MAX_KINDS = 10_000


class _Kind(NamedTuple):
    """The rules for one type and source.

    *always* match, and *others* have further conditions. *needs_data* says that one of them looks at the data.
    """

    always: tuple[int, ...]
    others: tuple[tuple[int, LogFilter], ...]
    needs_data: bool


class RuleIndex:
    """The filters of the rules, by their place in the list.

    One thread uses it.
    """

    def __init__(self, filters: Sequence[LogFilter]) -> None:
        self._filters = filters
        self._kinds: dict[tuple[str, str | None], _Kind] = {}

    def matches(self, items: Sequence[Item]) -> dict[int, list[Item]]:
        """Return the matching items of each rule that has some."""
        found: dict[int, list[Item]] = {}
        kinds = self._kinds
        for item in items:
            key = item.event_type, item.source if item.source.__class__ is str else None
            kind = kinds.get(key) or self._note(key)
            for number in kind.always:
                found.setdefault(number, []).append(item)
            if kind.others:
                data = _data_of(item) if kind.needs_data else None
                for number, filter_ in kind.others:
                    if _agrees(filter_, item, data):
                        found.setdefault(number, []).append(item)
        return found

    def _note(self, key: tuple[str, str | None]) -> _Kind:
        """Find the rules for a type and source, and remember them."""
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        numbers = [number for number, each in enumerate(self._filters) if _is_of_kind(each, *key)]
        others = [number for number in numbers if _has_more(self._filters[number])]
        kind = _Kind(
            tuple(number for number in numbers if number not in others),
            tuple((number, self._filters[number]) for number in others),
            any(self._filters[number].data for number in others),
        )
        self._kinds[key] = kind
        return kind


def _is_of_kind(filter_: LogFilter, event_type: str, source: str | None) -> bool:
    if event_type.startswith(PREFIX):
        return False
    if filter_.types and not any(is_of_type(event_type, each) for each in filter_.types):
        return False
    if any(is_of_type(event_type, each) for each in filter_.excluded.types) or source in filter_.excluded.sources:
        return False
    return not filter_.source or source in filter_.source


def _has_more(filter_: LogFilter) -> bool:
    excluded = filter_.excluded
    return bool(filter_.task_id or filter_.agent_id or filter_.data or excluded.task_ids or excluded.agent_ids)


def _agrees(filter_: LogFilter, item: Item, data: Any) -> bool:
    excluded = filter_.excluded
    return (
        (not filter_.task_id or item.task_id in filter_.task_id)
        and (not filter_.agent_id or item.agent_id in filter_.agent_id)
        and item.task_id not in excluded.task_ids
        and item.agent_id not in excluded.agent_ids
        and all(data_values.is_at(data, each.path, each.value) is not each.is_excluded for each in filter_.data)
    )


def _data_of(item: Item) -> Any:
    try:
        return orjson.loads(item.json).get("data")
    except orjson.JSONDecodeError:  # an integer beyond 64 bits was written by `json`
        return None
