"""The sweeper: what is overdue is closed, whatever the clock does, and nobody is called overdue who could not beat."""

import pytest

from outfeed import clock
from outfeed.swarm.store.swarm import AgentState, TaskState, read_transaction
from outfeed.swarm.sweeper import Sweeper
from tests.swarm.conftest import AUCTION_SECS, TIMEOUT_SECS
from tests.swarm.log_replay import disagreements


@pytest.fixture
def monotonic(monkeypatch):
    """The monotonic clock, which stands still as well; freezegun moves only the other."""
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def passing(wall, monotonic):
    def pass_secs(secs):
        wall.pass_secs(secs)
        monotonic[0] += secs

    return pass_secs


@pytest.fixture
def sweeper(coordinator, monotonic):
    return Sweeper(coordinator)


@pytest.fixture
def state_of(database):
    def state_of(id_):
        with read_transaction(database) as view:
            return view.agent(id_).state if id_.startswith("agent") else view.task(id_).state

    yield state_of
    assert disagreements(database.path) == []


def test_a_silent_agent_leaves_and_a_beating_one_stays(coordinator, sweeper, passing, state_of, database):
    silent, beating = coordinator.join("Forge"), coordinator.join("Echo")
    passing(TIMEOUT_SECS - 1)
    coordinator.heartbeat(beating.id)
    sweeper.sweep()
    assert state_of(silent.id) is AgentState.IDLE
    passing(1)
    sweeper.sweep()
    assert (state_of(silent.id), state_of(beating.id)) == (AgentState.LEFT, AgentState.IDLE)
    with read_transaction(database) as view:
        assert view.agent(silent.id).reason == "no heartbeat for 120 s"


def test_one_that_beats_at_the_last_moment_stays(coordinator, passing, state_of):
    agent = coordinator.join("Forge")
    passing(TIMEOUT_SECS)
    assert coordinator.overdue_agents() == [agent.id]
    coordinator.heartbeat(agent.id)
    assert not coordinator.expire(agent.id)
    assert state_of(agent.id) is AgentState.IDLE


def test_the_bid_of_an_overdue_agent_does_not_win(coordinator, sweeper, passing, state_of):
    agent = coordinator.join("Forge")
    passing(TIMEOUT_SECS - 1)
    task = coordinator.post("Write the docs")
    passing(0.5)
    coordinator.bid(task.id, agent.id, 5)
    passing(TIMEOUT_SECS)
    sweeper.sweep()
    assert (state_of(agent.id), state_of(task.id)) == (AgentState.LEFT, TaskState.FAILED)


def test_what_became_due_while_nothing_ran_is_closed_at_once_but_agents_get_time_to_beat(
    coordinator, monotonic, passing, state_of
):
    task, agent = coordinator.post("Write the docs"), coordinator.join("Forge")
    coordinator.bid(task.id, agent.id, 5)
    passing(10 * TIMEOUT_SECS)  # the server is down
    sweeper = Sweeper(coordinator)
    sweeper.sweep()
    assert (state_of(task.id), state_of(agent.id)) == (TaskState.ASSIGNED, AgentState.BUSY)
    passing(TIMEOUT_SECS - 1)
    sweeper.sweep()
    assert state_of(agent.id) is AgentState.BUSY
    passing(1)
    sweeper.sweep()
    assert (state_of(task.id), state_of(agent.id)) == (TaskState.FAILED, AgentState.LEFT)


def test_a_clock_that_jumps_ahead_makes_nobody_overdue_at_once(coordinator, sweeper, passing, wall, state_of):
    agent = coordinator.join("Forge")
    passing(TIMEOUT_SECS - 1)
    coordinator.heartbeat(agent.id)
    sweeper.sweep()
    wall.pass_secs(7 * 86_400)
    passing(2)
    sweeper.sweep()
    assert state_of(agent.id) is AgentState.IDLE
    passing(TIMEOUT_SECS)
    sweeper.sweep()
    assert state_of(agent.id) is AgentState.LEFT


def test_a_clock_that_is_set_back_keeps_neither_auction_nor_agent(coordinator, sweeper, passing, wall, state_of):
    agent = coordinator.join("Forge")
    passing(TIMEOUT_SECS)
    task = coordinator.post("Write the docs")
    coordinator.bid(task.id, agent.id, 5)
    wall.pass_secs(-86_400)
    sweeper.sweep()
    assert state_of(task.id) is TaskState.ASSIGNED
    assert state_of(agent.id) is AgentState.BUSY
    passing(TIMEOUT_SECS)
    sweeper.sweep()
    assert (state_of(task.id), state_of(agent.id)) == (TaskState.FAILED, AgentState.LEFT)


def test_a_step_back_does_not_close_what_begins_afterwards(coordinator, sweeper, passing, wall, state_of):
    wall.pass_secs(-86_400)
    task = coordinator.post("Write the docs")
    passing(AUCTION_SECS - 1)
    sweeper.sweep()
    assert state_of(task.id) is TaskState.BIDDING
    passing(1)
    sweeper.sweep()
    assert state_of(task.id) is TaskState.FAILED


def test_what_can_not_be_closed_does_not_keep_the_others_from_it(coordinator, sweeper, passing, state_of, monkeypatch):
    first, second = coordinator.post("one"), coordinator.post("two")
    passing(AUCTION_SECS)
    close = coordinator.close_auction
    monkeypatch.setattr(coordinator, "close_auction", lambda id_: close("nothing" if id_ == first.id else id_))
    sweeper.sweep()
    assert (state_of(first.id), state_of(second.id)) == (TaskState.BIDDING, TaskState.FAILED)


def test_a_missing_database_is_no_end_of_it(coordinator, sweeper, database, caplog):
    database.path.rename(f"{database.path}.away")
    sweeper.sweep()
    assert "nothing swept, trying again" in caplog.text
