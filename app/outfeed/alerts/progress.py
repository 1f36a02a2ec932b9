"""Progress of rules: the state machine of each condition. No I/O.

Times are seconds of the timeline and never go back. `match` takes the matching events in order. `advance` takes the
present, once all events before it are known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from outfeed.alerts.rule import AlertRule, Condition
from outfeed.alerts.targets import NoticeKind

# A window keeps at most this many numbers, for any number of events.
SLICES = 60


class AlertState(StrEnum):
    """The state of a rule. After a gap in the events it is UNCERTAIN."""

    OK = "ok"
    RAISED = "raised"
    UNCERTAIN = "uncertain"


class Transition(NamedTuple):
    """An alert that is raised or cleared at *at*.

    *matches* is the number of matching events that it reports.
    """

    kind: NoticeKind
    at: float
    matches: int = 0


class RecentMatches:
    """The number of matches in the last *window_secs*, in bounded space.

    Matches within a sixtieth of the window count as at the time of the first of them.
    """

    def __init__(self, window_secs: float) -> None:
        self._window_secs = window_secs
        self._slices: deque[list[float]] = deque()  # [time of the first match, number of matches]
        self.total = 0

    def add(self, at: float) -> None:
        """Add a match, which is not older than the one before."""
        if self._slices and at - self._slices[-1][0] < self._window_secs / SLICES:
            self._slices[-1][1] += 1
        else:
            self._slices.append([at, 1])
        self.total += 1

    def expire(self, now: float) -> None:
        """Drop the matches that are a window old."""
        while self._slices and self._slices[0][0] <= now - self._window_secs:
            self.total -= int(self._slices.popleft()[1])

    def clear(self) -> None:
        """Drop all matches."""
        self._slices.clear()
        self.total = 0

    def as_list(self) -> list[list[float]]:
        """Return the slices, which `load` takes."""
        return [[round(at, 3), count] for at, count in self._slices]

    def load(self, slices: list[list[float]]) -> None:
        """Replace the matches by those of `as_list`."""
        self._slices = deque([at, count] for at, count in slices)
        self.total = int(sum(count for _, count in slices))


class RuleProgress(ABC):
    """The state of one rule, and what its condition needs to know.

    *since* is the time from which the rule has seen every event without doubt about their times.
    """

    needs_times = False  # whether the condition depends on the times of matches

    def __init__(self, rule: AlertRule, now: float) -> None:
        self.rule = rule
        self.state = AlertState.OK
        self.since = now
        self.last_match: float | None = None
        self.last_raise: float | None = None
        self.waiting = 0  # matches that no raised alert has reported yet
        self.newest: tuple[int, str | None] | None = None  # seq and id of the newest match
        self.recent = RecentMatches(rule.window_secs)

    @abstractmethod
    def match(self, at: float) -> list[Transition]:
        """Take a matching event; return what it changes."""

    @abstractmethod
    def advance(self, now: float) -> list[Transition]:
        """Take the present; return what the time alone changes."""

    def resume(self, now: float) -> None:  # noqa: B027 - most conditions need nothing
        """Begin again after a time in which nothing was evaluated."""

    def restart(self, now: float) -> None:
        """Begin the windows again, because the times before are not known."""
        self.since = now
        self.recent.clear()

    def doubt(self, now: float) -> None:
        """Note that events may be missing."""
        self.state = AlertState.UNCERTAIN
        self.restart(now)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rule and its state, as JSON."""
        return {
            "since": self.since, "last_match": self.last_match, "last_raise": self.last_raise, "waiting": self.waiting,
            "newest": self.newest, "recent": self.recent.as_list(),
        }  # fmt: skip

    def load(self, state: AlertState, found: Mapping[str, Any]) -> None:
        """Take the values of `as_dict`."""
        self.state = state
        self.since, self.last_match, self.last_raise = found["since"], found["last_match"], found["last_raise"]
        self.waiting = found["waiting"]
        self.newest = tuple(found["newest"]) if found["newest"] else None
        self.recent.load(found["recent"])

    @property
    def _pause_end(self) -> float:
        """The time from which the rule may raise again."""
        return -math.inf if self.last_raise is None else self.last_raise + self.rule.pause_secs

    def _raise(self, at: float, count: int) -> Transition:
        self.state, self.last_raise, self.waiting = AlertState.RAISED, at, 0
        return Transition(NoticeKind.RAISED, at, count)

    def _clear(self, at: float) -> Transition:
        self.state = AlertState.OK
        return Transition(NoticeKind.CLEARED, at)


class AnyProgress(RuleProgress):
    """Raises at a match.

    Matches within the pause are reported together at its end. A pause without a match clears.
    """

    def match(self, at: float) -> list[Transition]:
        found = self.advance(at)
        self.last_match = at
        self.waiting += 1
        if self.state is AlertState.RAISED or at < self._pause_end:
            return found
        return [*found, self._raise(at, self.waiting)]

    def advance(self, now: float) -> list[Transition]:
        found = []
        # In the state OK, matches wait if the pause was made longer since the last alert.
        while (self.waiting or self.state is not AlertState.OK) and (end := self._end_of_quiet()) <= now:
            found.append(self._raise(end, self.waiting) if self.waiting else self._clear(end))
        return found

    def _end_of_quiet(self) -> float:
        doubted = self.since + self.rule.pause_secs if self.state is AlertState.UNCERTAIN else self.since
        return max(self._pause_end, doubted)


class CountProgress(RuleProgress):
    """Raises while more matches than the threshold lie in the window."""

    needs_times = True

    def match(self, at: float) -> list[Transition]:
        found = self.advance(at)
        self.last_match = at
        self.recent.add(at)
        return found + self._raise_above_threshold(at)

    def advance(self, now: float) -> list[Transition]:
        found = []
        if self.recent.total > self.rule.threshold and self.last_raise is not None and self._pause_end <= now:
            self.recent.expire(self._pause_end)
            found = self._raise_above_threshold(self._pause_end)
        self.recent.expire(now)
        is_over = self.recent.total <= self.rule.threshold and now - self.since >= self.rule.window_secs
        if self.state is not AlertState.OK and is_over:
            found.append(self._clear(now))
        return found

    def _raise_above_threshold(self, at: float) -> list[Transition]:
        if self.state is AlertState.RAISED or self.recent.total <= self.rule.threshold or at < self._pause_end:
            return []
        return [self._raise(at, self.recent.total)]


class AbsenceProgress(RuleProgress):
    """Raises if no event has matched for the window.

    The window begins again when the evaluation begins again.
    """

    def match(self, at: float) -> list[Transition]:
        self.last_match = at
        return []

    def advance(self, now: float) -> list[Transition]:
        window = self.rule.window_secs
        if self.state is not AlertState.OK and self.last_match is not None and now - self.last_match < window:
            return [self._clear(now)]
        quiet_since = max(self.since, self.last_match or self.since)
        if self.state is AlertState.RAISED or now < max(quiet_since + window, self._pause_end):
            return []
        return [self._raise(max(quiet_since + window, self._pause_end), 0)]

    def resume(self, now: float) -> None:
        self.since = now


_KINDS: dict[Condition, type[RuleProgress]] = {
    Condition.ANY: AnyProgress, Condition.COUNT: CountProgress, Condition.ABSENCE: AbsenceProgress
}  # fmt: skip


def new_progress(rule: AlertRule, now: float) -> RuleProgress:
    """Return the progress of a rule that begins at *now*."""
    return _KINDS[rule.condition](rule, now)


def in_brief(found: list[Transition]) -> list[Transition]:
    """Return at most the last two transitions.

    The last raised alert reports the events of earlier ones that are left out.
    """
    kept = found[-2:]
    dropped = sum(each.matches for each in found[:-2])
    for place in reversed(range(len(kept))):
        if kept[place].kind is NoticeKind.RAISED:
            kept[place] = kept[place]._replace(matches=kept[place].matches + dropped)
            break
    return kept
