"""The part of a serving process: evaluation and sending under the lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask

from outfeed.alerts import part as alerts_part
from outfeed.alerts.part import AlertsPart
from outfeed.alerts.rule import AlertRule
from outfeed.alerts.store import evaluation, notices, rules
from outfeed.http.services import Services
from outfeed.store import lease
from tests.alerts.fake_targets import FakeTargets
from tests.alerts.simulated import alert_events
from tests.database_file import write_events
from tests.waits import wait_until


@pytest.fixture
def process(flask_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Services:
    """A process whose own parts do not run."""
    monkeypatch.setattr(alerts_part, "TICK_SECS", 0.05)
    found: Services = flask_app.extensions["outfeed"]
    return found


@contextmanager
def running(process: Services, targets: FakeTargets) -> Iterator[AlertsPart]:
    found = AlertsPart(process, targets)
    found.start()
    try:
        yield found
    finally:
        found.stop()
        found.close()


def add_rule(process: Services, name: str, query: str) -> None:
    rules.add(process.database, AlertRule(name, query, targets=("ops",)).checked(), "tests")


def kinds(process: Services) -> list[tuple[str, str]]:
    return [(each.kind, each.rule) for each in alert_events(process.database.path)]


def test_an_event_becomes_an_alert_and_a_notice(process: Services) -> None:
    targets = FakeTargets("ops")
    with running(process, targets):
        add_rule(process, "errors", "type:job.failed")  # while it runs
        write_events(process.database.path, event_type="job.failed")
        wait_until(lambda: targets.sent, "the notice was sent")
        assert kinds(process) == [("raised", "errors")]
        add_rule(process, "more", "type:job.done")
        write_events(process.database.path, event_type="job.done")
        wait_until(lambda: len(targets.sent) == 2, "the new rule was seen")
        wait_until(lambda: not notices.waiting_targets(process.database), "both were recorded")
    assert kinds(process) == [("raised", "errors"), ("raised", "more")]
    assert targets.is_cancelled
    assert evaluation.lag(process.database) in (0, 1)  # all but the event of the last alert


def test_one_of_two_processes_works_and_the_other_takes_over(process: Services) -> None:
    add_rule(process, "errors", "type:job.failed")
    first, second = FakeTargets("ops"), FakeTargets("ops")
    with running(process, second):
        wait_until(lambda: evaluation.lag(process.database) == 0, "the first works")
        with running(process, first):
            write_events(process.database.path, event_type="job.failed")
            wait_until(lambda: second.sent, "the notice was sent")
    assert first.sent == []
    with running(process, first):
        add_rule(process, "more", "type:job.done")
        write_events(process.database.path, event_type="job.done")
        wait_until(lambda: first.sent, "the other took over")
    assert kinds(process) == [("raised", "errors"), ("raised", "more")]


def test_without_a_rule_the_part_takes_no_lease(process: Services) -> None:
    with running(process, FakeTargets()):
        assert not lease.lock_file(process.database.path, "alerts").exists()
