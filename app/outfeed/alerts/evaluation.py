"""Evaluation: the events of the outbox against all rules, page by page.

The database is the truth. The evaluation in memory may be up to SAVE_SECS ahead of it. After a crash the same events
are read again, and nothing is repeated, because an alert is written in one transaction with the position after it.
"""

from __future__ import annotations

from collections.abc import Callable

from outfeed import clock
from outfeed.alerts.matching import RuleIndex
from outfeed.alerts.progress import AlertState, RuleProgress, Transition, in_brief, new_progress
from outfeed.alerts.rule import AlertRule, Condition, span
from outfeed.alerts.store import evaluation as store
from outfeed.alerts.store.evaluation import Decision, HeldRules, Matched
from outfeed.alerts.targets import NoticeKind
from outfeed.alerts.timeline import Timeline
from outfeed.clock import Reading
from outfeed.feed.source import PAGE_EVENTS, Source
from outfeed.feed.subscription import decide_for
from outfeed.history import Item, Page
from outfeed.store.database import Database

# How long changes of the rules' progress may stay in memory, and a position after which no rule matched.
SAVE_SECS = 1.0
IDLE_SECS = 5.0


class Evaluator:
    """The evaluation of one claim. One thread uses it.

    *read_clocks* returns the clocks. *publish* is called with the epoch and the last seq of each page before the page
    is evaluated, so that a restore does not reuse its seqs unnoticed. *started_at* is the place in the timeline at
    which the process began to evaluate, or None if this is the begin.

    After any error the evaluator is not used again. A new claim continues with what the database has.
    """

    def __init__(
        self,
        database: Database,
        source: Source,
        held: HeldRules,
        *,
        publish: Callable[[str, int], None],
        read_clocks: Callable[[], Reading] = clock.reading,
        started_at: float | None = None,
    ) -> None:
        self._database = database
        self._source = source
        self._held = held
        self._publish = publish
        self._read_clocks = read_clocks
        self._timeline = self._first_moment()
        self.started_at = self._timeline.now if started_at is None else started_at
        self._index = RuleIndex([each.rule.filter for each in held.rules])
        self._progress = [self._loaded(each) for each in held.rules]
        self._after = [each.after_seq for each in held.rules]
        self._changed: set[int] = set(range(len(held.rules)))
        self._decisions: list[Decision] = []
        self._position = 0
        self._saved_position = -1
        self._saved_at = clock.monotonic()
        self._are_times_known = not self._timeline.is_stepped

    def begin(self) -> None:
        """Move to the checkpoint.

        If events before it may be missing, the rules become uncertain. Raises DatabaseError, Superseded.
        """
        held = self._held
        verdict = decide_for(held.claim, held.window)
        self._publish(held.window.epoch, held.window.last_seq)
        self._position = verdict.after
        reason = None
        if verdict.missing:
            reason = f"events {verdict.missing[0]:,} to {verdict.missing[1]:,} were pruned before they were evaluated"
        elif verdict.kind == "reset":
            reason = "the database has another history now"
        elif held.epoch == held.window.epoch and held.seq is not None:
            if held.seq < verdict.after:
                reason = f"events {held.seq + 1:,} to {verdict.after:,} were skipped by a command"
            self._position = min(max(verdict.after, held.seq), verdict.head)
        if reason is not None:
            self._doubt(reason, is_reset=verdict.kind == "reset")
            self._save()

    def step(self) -> bool:
        """Evaluate the next page; return whether more events wait.

        Raises DatabaseError, Superseded, and Overtaken if events were pruned or the epoch has changed.
        """
        self._move()
        page = self._source.read_after(self._position, PAGE_EVENTS)
        page.window.prove(self._held.window.epoch, self._position)
        self._publish(page.window.epoch, page.through)
        is_current = page.through >= page.window.last_seq
        self._match(page)
        self._position = page.through
        if is_current:
            self._advance()
        if self._decisions or self._is_due():
            self._save()
        return not is_current

    def close(self) -> None:
        """Write what is only in memory."""
        if self._changed or self._position != self._saved_position:
            self._save()

    # --- time ---------------------------------------------------------------------------------------------------------

    def _first_moment(self) -> Timeline:
        reading, before = self._read_clocks(), self._held.timeline
        return Timeline.starting(reading) if before is None else before.moved_to(reading)

    def _move(self) -> None:
        """Move the timeline to now, and note a step of the clock.

        After a step the times of the events up to the head are not known.
        """
        self._timeline = self._timeline.moved_to(self._read_clocks())
        if self._timeline.is_stepped:
            self._are_times_known = False

    def _times(self, items: list[Item]) -> dict[int, float]:
        """Return the place of each item in the timeline, in order."""
        written = store.commit_secs(self._database, items[0].seq, items[-1].seq)
        times = {}
        for item in items:
            self._timeline = self._timeline.with_event(written.get(item.seq))
            times[item.seq] = self._timeline.evaluated
        return times

    # --- rules --------------------------------------------------------------------------------------------------------

    def _loaded(self, active: store.ActiveRule) -> RuleProgress:
        progress = new_progress(active.rule, self._timeline.now)
        if active.progress is not None:
            progress.load(active.state, active.progress)
            progress.resume(max(progress.since, self.started_at))
        return progress

    def _match(self, page: Page) -> None:
        matches = self._index.matches(page.items)
        if not matches:
            return
        times = self._times(page.items)
        for number, items in matches.items():
            self._match_rule(number, items, times)

    def _match_rule(self, number: int, items: list[Item], times: dict[int, float]) -> None:
        progress, after = self._progress[number], self._after[number]
        if items[0].seq <= after:
            items = [item for item in items if item.seq > after]
        if not items:
            return
        self._changed.add(number)
        progress.newest = (items[-1].seq, items[-1].id)
        if not self._are_times_known and progress.needs_times:
            return
        found: list[Transition] = []
        for item in items:
            found += progress.match(times[item.seq])
        self._decide(number, found)

    def _advance(self) -> None:
        """Tell every rule the time. All events up to now are known."""
        now = self._timeline.now
        if not self._are_times_known:
            self._are_times_known = True
            for number, progress in enumerate(self._progress):
                progress.restart(now)
                self._changed.add(number)
        for number, progress in enumerate(self._progress):
            self._decide(number, progress.advance(now))
        self._timeline = self._timeline.with_all_events()

    def _decide(self, number: int, found: list[Transition]) -> None:
        if found:
            self._changed.add(number)
        for each in in_brief(found):
            rule, newest = self._progress[number].rule, self._progress[number].newest
            matched = Matched(*newest) if each.matches and newest else None
            message = f"{rule.name}: {_sentence(rule, each)}"
            self._decisions.append(Decision(rule, each.kind, message, each.matches, matched))

    def _doubt(self, reason: str, *, is_reset: bool) -> None:
        """Make the rules that may have missed events uncertain."""
        for number, progress in enumerate(self._progress):
            if not is_reset and self._after[number] >= self._position:
                continue
            if progress.state is not AlertState.UNCERTAIN:
                message = f"{progress.rule.name}: uncertain, because {reason}"
                self._decisions.append(Decision(progress.rule, NoticeKind.UNCERTAIN, message, 0, None))
            progress.doubt(self._timeline.now)
        if is_reset:
            self._after = [self._position] * len(self._after)
            store.forget_positions(self._database, self._held, self._position)

    # --- writes -------------------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        age = clock.monotonic() - self._saved_at
        if self._changed:
            return age >= SAVE_SECS
        return age >= IDLE_SECS and self._position != self._saved_position

    def _save(self) -> None:
        changed = [self._progress[number] for number in sorted(self._changed)]
        store.save(self._database, self._held, self._position, self._timeline, changed, self._decisions)
        self._changed, self._decisions = set(), []
        self._saved_position, self._saved_at = self._position, clock.monotonic()


def _sentence(rule: AlertRule, each: Transition) -> str:
    """Return what has happened: `more than 10 events in 5 min (12)`."""
    if each.kind is NoticeKind.RAISED:
        number = f"{each.matches:,} event{'s' * (each.matches != 1)}"
        return (
            number if rule.condition is Condition.ANY else rule.when + (f" ({each.matches:,})" if each.matches else "")
        )
    if rule.condition is Condition.ANY:
        return f"cleared, no event for {span(rule.pause_secs)}"
    if rule.condition is Condition.COUNT:
        return f"cleared, no longer {rule.when}"
    return "cleared, events come again"
