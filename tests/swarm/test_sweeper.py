"""The sweeper: closes what is due, across any change of the clock."""

import pytest

from outfeed import clock
from outfeed.swarm.store.swarm import AgentState, TaskState, read_transaction
from outfeed.swarm.sweeper import Sweeper
from tests.swarm.conftest import AUCTION_SECS, TIMEOUT_SECS
from tests.swarm.log_replay import disagreements


@pytest.fixture
def monotonic(monkeypatch):
    """The frozen monotonic clock; freezegun freezes only the wall clock."""
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


def test_an_agent_without_heartbeats_expires_and_another_stays(coordinator, sweeper, passing, state_of, database):
    silent, active = coordinator.join("Forge"), coordinator.join("Echo")
    passing(TIMEOUT_SECS - 1)
    coordinator.heartbeat(active.id)
    sweeper.sweep()
    assert state_of(silent.id) is AgentState.IDLE
    passing(1)
    sweeper.sweep()
    assert (state_of(silent.id), state_of(active.id)) == (AgentState.LEFT, AgentState.IDLE)
    with read_transaction(database) as view:
        assert view.agent(silent.id).reason == "no heartbeat for 120 s"


def test_an_agent_with_a_late_heartbeat_stays(coordinator, passing, state_of):
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


def test_auctions_due_during_a_downtime_close_at_once_but_agents_get_a_timeout(
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


def test_no_agent_expires_at_once_when_the_clock_jumps_ahead(coordinator, sweeper, passing, wall, state_of):
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


def test_auctions_and_agents_still_end_after_the_clock_is_set_back(coordinator, sweeper, passing, wall, state_of):
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


def test_an_auction_started_after_a_step_back_stays_open(coordinator, sweeper, passing, wall, state_of):
    wall.pass_secs(-86_400)
    task = coordinator.post("Write the docs")
    passing(AUCTION_SECS - 1)
    sweeper.sweep()
    assert state_of(task.id) is TaskState.BIDDING
    passing(1)
    sweeper.sweep()
    assert state_of(task.id) is TaskState.FAILED


def test_an_auction_that_cannot_be_closed_does_not_delay_others(coordinator, sweeper, passing, state_of, monkeypatch):
    first, second = coordinator.post("one"), coordinator.post("two")
    passing(AUCTION_SECS)
    close = coordinator.close_auction
    monkeypatch.setattr(coordinator, "close_auction", lambda id_: close("nothing" if id_ == first.id else id_))
    sweeper.sweep()
    assert (state_of(first.id), state_of(second.id)) == (TaskState.BIDDING, TaskState.FAILED)


def test_the_sweeper_survives_a_missing_database(coordinator, sweeper, database, caplog):
    database.path.rename(f"{database.path}.away")
    sweeper.sweep()
    assert "nothing swept, trying again" in caplog.text
