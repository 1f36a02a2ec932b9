"""The progress of rules beside a model that keeps every match."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.alerts.progress import SLICES, AlertState, RuleProgress, Transition, in_brief, new_progress
from outfeed.alerts.rule import AlertRule, Condition
from outfeed.alerts.targets import NoticeKind

WINDOW, PAUSE = 60, 30
# Pauses between two matches, in seconds. A multiple of a slice, so that the model needs no slices.
GAPS = st.lists(st.integers(0, 90), min_size=1, max_size=40)


def loaded_again(progress: RuleProgress) -> RuleProgress:
    """Return the progress as another process reads it."""
    found = new_progress(progress.rule, 0.0)
    found.load(progress.state, json.loads(json.dumps(progress.as_dict())))
    return found


def states(rule: AlertRule, gaps: list[int], reload_at: int) -> list[AlertState]:
    """Return the state after each second. Each gap ends with a match."""
    progress, now, found = new_progress(rule, 0.0), 0, []
    for place, gap in enumerate(gaps):
        for _ in range(gap):
            now += 1
            progress.advance(now)
            found.append(progress.state)
        if place == reload_at:
            progress = loaded_again(progress)
        progress.match(now)
    return found


@dataclass
class Model:
    """The definition of each condition, on a list of all matches."""

    rule: AlertRule
    matches: list[int] = field(default_factory=list)
    state: AlertState = AlertState.OK
    last_raise: int | None = None
    reported: int = 0  # matches that a raised alert has reported

    def step(self, now: int) -> None:
        pausing = self.last_raise is not None and now < self.last_raise + PAUSE
        recent = len([at for at in self.matches if at > now - WINDOW])
        if self.rule.condition is Condition.COUNT:
            self.turn(now, recent > self.rule.threshold, pausing, now >= WINDOW)
        elif self.rule.condition is Condition.ABSENCE:
            quiet = now - (self.matches[-1] if self.matches else 0)
            self.turn(now, quiet >= WINDOW, pausing, True)
        elif not pausing and len(self.matches) > self.reported:
            self.state, self.last_raise, self.reported = AlertState.RAISED, now, len(self.matches)
        elif not pausing:
            self.state = AlertState.OK

    def turn(self, now: int, is_bad: bool, pausing: bool, may_clear: bool) -> None:
        if is_bad and not pausing and self.state is AlertState.OK:
            self.state, self.last_raise = AlertState.RAISED, now
        elif not is_bad and may_clear:
            self.state = AlertState.OK


def modelled(rule: AlertRule, gaps: list[int]) -> list[AlertState]:
    model, now, found = Model(rule), 0, []
    for gap in gaps:
        for _ in range(gap):
            now += 1
            model.step(now)
            found.append(model.state)
        model.matches.append(now)
        model.step(now)
    return found


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(Condition), GAPS, st.integers(0, 40), st.integers(1, 5))
def test_each_condition_does_what_its_definition_says(
    condition: Condition, gaps: list[int], reload_at: int, threshold: int
) -> None:
    rule = AlertRule("one", "", condition, threshold, WINDOW, PAUSE)
    assert WINDOW / SLICES == 1
    assert states(rule, gaps, reload_at) == modelled(rule, gaps)


def test_many_transitions_become_two_that_report_all_events() -> None:
    raised = [Transition(NoticeKind.RAISED, at, 5) for at in range(4)]
    assert [each.matches for each in in_brief(raised)] == [5, 15]
    assert in_brief(raised[:1]) == raised[:1]
    cleared = Transition(NoticeKind.CLEARED, 9)
    assert [(each.kind, each.matches) for each in in_brief([*raised, cleared])] == [
        (NoticeKind.RAISED, 20), (NoticeKind.CLEARED, 0)
    ]  # fmt: skip
