"""Random sequences of calls have the results of a small model."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import freezegun
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from outfeed.errors import InvalidTransition
from outfeed.store import database as db
from outfeed.swarm.coordinator import Coordinator
from outfeed.swarm.store.swarm import read_transaction
from tests.swarm.conftest import AUCTION_SECS, Wall
from tests.swarm.log_replay import disagreements

PLACE = st.integers(0, 3)


class Machine(RuleBasedStateMachine):
    """At most four agents and tasks, which the model follows."""

    template: Path

    def __init__(self):
        super().__init__()
        self._open = contextlib.ExitStack()
        self._wall = Wall(self._open.enter_context(freezegun.freeze_time("2026-03-01T12:00:00Z")))
        folder = self._open.enter_context(tempfile.TemporaryDirectory())
        self.path = Path(shutil.copy(self.template, folder))
        self.database = db.Database(self.path)
        self.coordinator = Coordinator(self.database, auction_secs=AUCTION_SECS, agent_timeout_secs=120)
        self.agents: list[str] = []
        self.left: set[str] = set()
        self.tasks: dict[str, str] = {}
        self.holders: dict[str, str] = {}
        self.offers: dict[str, dict[str, int]] = {}

    def teardown(self):
        self.database.close()
        self._open.close()

    def _task(self, place):
        return list(self.tasks)[place % len(self.tasks)]

    def _agent(self, place):
        return self.agents[place % len(self.agents)]

    def _try(self, is_legal, call):
        try:
            call()
        except InvalidTransition:
            assert not is_legal
        else:
            assert is_legal
        return is_legal

    @initialize()
    def begin(self):
        self.join_and_post()

    @rule()
    def join_and_post(self):
        if len(self.agents) < 4:
            self.agents.append(self.coordinator.join("Forge").id)
            task_id = self.coordinator.post("Write the docs").id
            self.tasks[task_id], self.offers[task_id] = "bidding", {}

    @rule(task=PLACE, agent=PLACE, sats=st.integers(0, 3))
    def bid(self, task, agent, sats):
        task, agent = self._task(task), self._agent(agent)
        earlier = self.offers[task].get(agent)
        is_legal = agent not in self.left and (earlier == sats or (self.tasks[task] == "bidding" and earlier is None))
        if self._try(is_legal, lambda: self.coordinator.bid(task, agent, sats)):
            self.offers[task][agent] = sats

    @rule()
    def close_auctions(self):
        self._wall.pass_secs(AUCTION_SECS)
        due = self.coordinator.due_auctions()
        assert set(due) == {task for task, state in self.tasks.items() if state == "bidding"}
        for task in due:
            assert self.coordinator.close_auction(task)
            offers = {agent: sats for agent, sats in self.offers[task].items() if agent not in self.left}
            self.tasks[task] = "assigned" if offers else "failed"
            if offers:
                self.holders[task] = min(offers, key=lambda agent: offers[agent])  # of equal bids the earliest

    def _advance(self, place, agent, origins, to, call):
        task, agent = self._task(place), self._agent(agent)
        is_legal = self.tasks[task] in origins and self.holders[task] == agent
        if self._try(is_legal, lambda: call(task, agent)):
            self.tasks[task] = to

    @rule(task=PLACE, agent=PLACE)
    def start(self, task, agent):
        self._advance(task, agent, ("assigned",), "started", self.coordinator.start)

    @rule(task=PLACE, agent=PLACE)
    def complete(self, task, agent):
        self._advance(task, agent, ("started",), "completed", self.coordinator.complete)

    @rule(task=PLACE, agent=PLACE)
    def fail(self, task, agent):
        self._advance(
            task, agent, ("assigned", "started"), "failed", lambda *ids: self.coordinator.fail(*ids, "no luck")
        )

    @rule(agent=PLACE)
    def leave(self, agent):
        agent = self._agent(agent)
        if self._try(agent not in self.left, lambda: self.coordinator.leave(agent)):
            self.left.add(agent)
            held = [task for task, state in self.tasks.items() if state in ("assigned", "started")]
            self.tasks |= {task: "failed" for task in held if self.holders[task] == agent}

    @invariant()
    def tables_log_and_model_agree(self):
        assert disagreements(self.path) == []
        with read_transaction(self.database) as view:
            assert {task.id: task.state for task in view.tasks()[0]} == self.tasks
            assert {agent.id for agent in view.agents()[0] if agent.state == "left"} == self.left


def test_random_sequences_of_calls_match_the_model(upgraded):
    machine = type("Machine", (Machine,), {"template": upgraded})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
