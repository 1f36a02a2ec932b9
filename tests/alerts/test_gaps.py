"""Gaps: pruning, restores and commands beneath the evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import pytest

from outfeed.alerts.store import evaluation, rules
from outfeed.errors import Overtaken, Superseded
from outfeed.store import checkpoint
from outfeed.store.database import Database
from outfeed.upkeep import backup
from tests.alerts.simulated import SimulatedAlerts
from tests.database_file import head_of


@pytest.fixture
def alerts(database: Database) -> SimulatedAlerts:
    found = SimulatedAlerts(database)
    found.add_count("burst", 5, 60, "type:a.b")
    found.add("any", "type:a.b", pause_secs=60)
    found.evaluate()
    return found


def prune_up_to(alerts: SimulatedAlerts, seq: int) -> None:
    with contextlib.closing(sqlite3.connect(alerts.database.path)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq <= ?", (seq,))


def step(alerts: SimulatedAlerts) -> None:
    assert alerts.evaluator is not None
    alerts.evaluator.step()


def messages(alerts: SimulatedAlerts) -> list[str]:
    with contextlib.closing(sqlite3.connect(alerts.database.path)) as raw:
        sql = (
            "SELECT json_extract(data, '$.message') FROM event_log WHERE event_type = 'alert.uncertain' ORDER BY rowid"
        )
        return [text for (text,) in raw.execute(sql)]


def test_events_pruned_before_their_evaluation_make_the_rules_uncertain(alerts: SimulatedAlerts) -> None:
    alerts.stop()
    alerts.write(3)
    prune_up_to(alerts, head_of(alerts.database.path) - 1)
    alerts.evaluate()
    assert sorted(alerts.kinds()) == ["raised", "uncertain", "uncertain"]
    assert "were pruned before they were evaluated" in messages(alerts)[0]
    alerts.run_for(59)
    assert "cleared" not in alerts.kinds()
    alerts.run_for(2)
    assert sorted(alerts.kinds()) == ["cleared", "cleared", "raised", "uncertain", "uncertain"]


def test_a_second_gap_adds_no_event_while_a_rule_is_uncertain(alerts: SimulatedAlerts) -> None:
    for _ in range(3):
        alerts.stop()
        alerts.write(2, event_type="other.type")
        prune_up_to(alerts, head_of(alerts.database.path) - 1)
        alerts.evaluate()
    assert alerts.kinds() == ["uncertain", "uncertain"]


def test_pruning_beneath_a_running_evaluation_is_noticed(alerts: SimulatedAlerts) -> None:
    alerts.write(3)
    prune_up_to(alerts, head_of(alerts.database.path) - 1)
    with pytest.raises(Overtaken):
        step(alerts)
    alerts.crash()
    alerts.evaluate()
    assert alerts.kinds().count("uncertain") == 2


def test_a_rule_that_is_newer_than_the_gap_stays_certain(alerts: SimulatedAlerts) -> None:
    alerts.stop()
    alerts.write(3)
    alerts.add("new", "type:a.b")
    alerts.write(1, event_type="other.type")
    prune_up_to(alerts, head_of(alerts.database.path) - 2)
    alerts.evaluate()
    assert {each.rule for each in alerts.events()} == {"burst", "any"}


def test_a_restore_makes_every_rule_uncertain_and_keeps_it(alerts: SimulatedAlerts) -> None:
    target = alerts.database.path.with_name("backup.db")
    backup.backup(alerts.database, target)
    alerts.write(50)  # the restored history has fewer events, and uses their seqs again
    alerts.add("later", "type:c.d", pause_secs=60)
    alerts.evaluate()
    alerts.stop()
    backup.restore(alerts.database, target, by="tests")
    alerts.evaluate()
    uncertain = [each.rule for each in alerts.events() if each.kind == "uncertain"]
    assert sorted(uncertain) == ["any", "burst", "later"]
    assert "another history" in messages(alerts)[0]
    alerts.write(1, event_type="c.d")
    alerts.evaluate()
    assert alerts.events()[-1].rule == "later"


def test_a_checkpoint_that_a_command_moves_makes_the_rules_uncertain(alerts: SimulatedAlerts) -> None:
    alerts.stop()
    alerts.write(2)
    checkpoint.reset(alerts.database, rules.CONSUMER)
    alerts.evaluate()
    assert alerts.kinds() == ["uncertain", "uncertain"]
    assert "were skipped by a command" in messages(alerts)[0]


def test_a_checkpoint_that_a_command_moves_back_repeats_nothing(alerts: SimulatedAlerts) -> None:
    alerts.write(3)
    alerts.evaluate()
    alerts.stop()
    checkpoint.reset(alerts.database, rules.CONSUMER, 0)
    alerts.evaluate()
    assert alerts.events() == [("raised", "any", 1)]  # six events would raise the other rule


def test_a_removed_checkpoint_makes_the_rules_uncertain(alerts: SimulatedAlerts) -> None:
    alerts.write(1)
    checkpoint.remove(alerts.database, rules.CONSUMER)
    with pytest.raises(Superseded):
        step(alerts)
    alerts.crash()
    alerts.evaluate()
    assert alerts.kinds() == ["uncertain", "uncertain"]


class TestChangesOfRules:
    def test_a_new_rule_sees_only_later_events(self, alerts: SimulatedAlerts) -> None:
        alerts.write(1, event_type="c.d")
        alerts.add("new", "type:c.d")
        alerts.crash()
        alerts.evaluate()
        assert alerts.events() == []
        alerts.write(1, event_type="c.d")
        alerts.evaluate()
        assert [each.rule for each in alerts.events()] == ["new"]

    def test_a_change_while_it_runs_is_never_overwritten(self, alerts: SimulatedAlerts) -> None:
        alerts.write(3)
        alerts.evaluate()
        changed = dataclasses.replace(rules.find(alerts.database, "burst").rule, query="type:c.d")
        rules.edit(alerts.database, changed, "tests")
        alerts.write(1)
        alerts.pass_secs(60)
        with pytest.raises(Superseded):
            step(alerts)
        alerts.write(6, event_type="c.d")
        alerts.evaluate()
        assert [each for each in alerts.events() if each.rule == "burst"] == [("raised", "burst", 6)]

    def test_an_event_within_a_pause_that_was_made_longer_is_reported_at_its_end(self, alerts: SimulatedAlerts) -> None:
        alerts.write(1)
        alerts.evaluate()
        alerts.run_for(61)
        changed = dataclasses.replace(rules.find(alerts.database, "any").rule, pause_secs=300)
        rules.edit(alerts.database, changed, "tests")
        alerts.write(1)
        alerts.run_for(200)
        assert alerts.kinds() == ["raised", "cleared"]
        alerts.run_for(50)
        assert alerts.kinds() == ["raised", "cleared", "raised"]

    def test_a_paused_rule_sees_nothing_and_begins_again(self, alerts: SimulatedAlerts) -> None:
        rules.pause(alerts.database, "any", "tests")
        rules.pause(alerts.database, "burst", "tests")
        alerts.crash()
        alerts.write(10)
        alerts.evaluate()
        assert alerts.evaluator is None
        rules.resume(alerts.database, "burst", "tests")
        alerts.write(5)
        alerts.evaluate()
        assert alerts.events() == []
        alerts.write(1)
        alerts.evaluate()
        assert alerts.events() == [("raised", "burst", 6)]

    def test_without_active_rules_there_is_no_checkpoint(self, alerts: SimulatedAlerts) -> None:
        names = [each.name for each in checkpoint.list_checkpoints(alerts.database)]
        assert names == ["alerts:rules"]
        assert not checkpoint.list_checkpoints(alerts.database)[0].is_protected
        rules.pause(alerts.database, "any", "tests")
        rules.remove(alerts.database, "burst", "tests")
        assert checkpoint.list_checkpoints(alerts.database) == []


def test_a_reset_keeps_the_position_of_a_rule_that_was_added_since_the_claim(alerts: SimulatedAlerts) -> None:
    held = evaluation.claim(alerts.database)
    assert held is not None
    alerts.add("late", "type:a.b")
    with pytest.raises(Superseded):
        evaluation.forget_positions(alerts.database, held, 0)
    again = evaluation.claim(alerts.database)
    assert again is not None
    assert [each.after_seq > 0 for each in again.rules if each.rule.name == "late"] == [True]
