"""Rules of alerts: a filter, a condition, a pause and targets. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from outfeed.errors import InvalidRequest
from outfeed.log import filters, query_language
from outfeed.log.query_language import seconds_of
from outfeed.log.store.log_filter import LogFilter
from outfeed.principal import EVERYTHING
from outfeed.text import check_short_name

MAX_RULES = 200
MAX_TARGETS = 20
MAX_THRESHOLD = 1_000_000
MIN_WINDOW_SECS, MAX_WINDOW_SECS = 10, 31 * 86_400
MIN_PAUSE_SECS, MAX_PAUSE_SECS = 10, 31 * 86_400
DEFAULT_PAUSE_SECS = 300
# Types of the events about alerts. No rule matches them, so that no alert raises an alert.
PREFIX = "alert."
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


class Condition(StrEnum):
    """When a rule raises an alert.

    ANY: an event matches. COUNT: more events than the threshold match within the window. ABSENCE: no event matches for
    the window.
    """

    ANY = "any"
    COUNT = "count"
    ABSENCE = "absence"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A rule.

    Its *query* is in the query language of the log, without text and times. *threshold* is 0 unless the condition is
    COUNT, and *window_secs* is 0 if it is ANY. Between two raised alerts of a rule lie at least *pause_secs*.
    """

    name: str
    query: str
    condition: Condition = Condition.ANY
    threshold: int = 0
    window_secs: int = 0
    pause_secs: int = DEFAULT_PAUSE_SECS
    targets: tuple[str, ...] = ()

    def checked(self) -> AlertRule:
        """Return the rule with its query in normal form.

        Raises InvalidRequest, which names the field.
        """
        _check_name(self.name)
        query = checked_query(self.query)
        is_count, is_any = self.condition is Condition.COUNT, self.condition is Condition.ANY
        _check_number("threshold", self.threshold, *((1, MAX_THRESHOLD) if is_count else (0, 0)), "")
        _check_number("window", self.window_secs, *((0, 0) if is_any else (MIN_WINDOW_SECS, MAX_WINDOW_SECS)), " s")
        _check_number("pause", self.pause_secs, MIN_PAUSE_SECS, MAX_PAUSE_SECS, " s")
        if len(self.targets) > MAX_TARGETS:
            raise invalid("targets", f"at most {MAX_TARGETS}, got {len(self.targets)}")
        return AlertRule(
            self.name, query, self.condition, self.threshold, self.window_secs, self.pause_secs,
            tuple(dict.fromkeys(self.targets)),
        )  # fmt: skip

    @property
    def filter(self) -> LogFilter:
        """The conditions of the query."""
        return filters.filter_of(filters.read_query(self.query), EVERYTHING)

    def restarts(self, other: AlertRule) -> bool:
        """Return whether a change to *other* starts the rule again."""
        return self._watched() != other._watched()

    def _watched(self) -> tuple[object, ...]:
        return self.query, self.condition, self.threshold, self.window_secs

    @property
    def when(self) -> str:
        """The condition in words: `more than 10 events in 5 min`."""
        if self.condition is Condition.ANY:
            return "any event"
        if self.condition is Condition.COUNT:
            return f"more than {self.threshold:,} event{'s' * (self.threshold > 1)} in {span(self.window_secs)}"
        return f"no event for {span(self.window_secs)}"


def invalid(field: str, problem: str) -> InvalidRequest:
    """Return the error for an invalid field of a rule."""
    return InvalidRequest("invalid_field", f"{field}: {problem}")


def seconds(field: str, text: str) -> int:
    """Return the seconds of a duration such as `90s`, `15m` or `7d`.

    Raises InvalidRequest.
    """
    found = seconds_of(text)
    if found is None:
        raise invalid(field, f"must be a duration such as 90s, 15m, 6h or 7d, got {text!r:.80}")
    return found


def span(secs: int) -> str:
    """Return a duration in the largest unit that divides it: `5 min`."""
    return next((f"{secs // size} {unit}" for size, unit in _UNITS if secs and secs % size == 0), f"{secs} s")


def short_span(secs: int) -> str:
    """Return a duration as `seconds` reads it: `5m`."""
    return span(secs).replace(" ", "").replace("min", "m")


def split_names(text: str) -> tuple[str, ...]:
    """Return the names between commas, each once."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def joined_names(names: Iterable[str]) -> str:
    """Return the text that `split_names` reads."""
    return ",".join(names)


def _check_name(name: str) -> None:
    try:
        check_short_name(name)
    except ValueError as error:
        raise invalid("name", f"{error} (got {name!r:.80})") from None


def checked_query(text: str) -> str:
    """Return the query in normal form. Raises InvalidRequest."""
    query = query_language.parse(text)
    if query.problems:
        raise invalid("query", query.problems[0])
    if query.text is not None:
        raise invalid("query", "a rule can't search for text; use fields such as type:, source: or data.name:")
    if any(term.is_time for term in query.terms):
        raise invalid("query", "a rule has no since: and until:; it watches events from now on")
    return str(query)


def _check_number(field: str, value: int, least: int, most: int, unit: str) -> None:
    if least <= value <= most:
        return
    if not most:
        raise invalid(field, "this condition has none")
    raise invalid(field, f"must be {least:,} to {most:,}{unit}, got {value:,}")
