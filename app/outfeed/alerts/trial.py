"""Trials: what a rule would have done with the events of the past."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from outfeed import clock
from outfeed.alerts.progress import Transition, new_progress
from outfeed.alerts.rule import AlertRule
from outfeed.alerts.store import past
from outfeed.alerts.targets import NoticeKind
from outfeed.store.database import Database

DEFAULT_DAYS, MAX_DAYS = 7, 31
DAY_SECS = 86_400.0
MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a trial over the events since *begin*.

    *times* are those of the newest alerts, newest first. *limit* says why the trial does not reach back *days*, or is
    None.
    """

    days: int
    raises: int
    matches: int
    begin: datetime
    times: tuple[datetime, ...]
    limit: str | None

    def __str__(self) -> str:
        """Return one sentence."""
        done = {0: "not have raised", 1: "have raised once"}.get(self.raises, f"have raised {self.raises:,} times")
        period = f"the last {self.days} days" if self.days != 1 else "the last day"
        if self.limit is not None:
            return f"Would {done} since {clock.isoformat(self.begin)}. The trial stops {self.limit}."
        return f"Would {done} in {period}."


def run(database: Database, rule: AlertRule, days: int = DEFAULT_DAYS) -> Trial:
    """Return what a checked rule would have done in the last *days*.

    The work is bounded, so a trial may reach back less far. Raises DatabaseError.
    """
    now = clock.now().timestamp()
    found = past.find(database, rule.filter, now - days * DAY_SECS)
    raised = [each.at for each in _transitions(rule, found, now) if each.kind is NoticeKind.RAISED]
    shown = tuple(datetime.fromtimestamp(at, UTC) for at in reversed(raised[-MAX_SHOWN:]))
    begin = datetime.fromtimestamp(found.begin, UTC)
    return Trial(days, len(raised), len(found.times), begin, shown, found.limit)


def _transitions(rule: AlertRule, found: past.PastMatches, now: float) -> list[Transition]:
    """Return what the events change, as if each were evaluated at once."""
    progress, transitions = new_progress(rule, found.begin), list[Transition]()
    for at in found.times:
        transitions += progress.advance(at)
        transitions += progress.match(at)
        transitions += progress.advance(at)
    return transitions + progress.advance(max(now, found.begin))
