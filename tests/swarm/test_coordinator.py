"""The coordinator: winners, refusals, leaving agents, and one transaction."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from outfeed.errors import EventConflict, InvalidEvent, InvalidTransition, UnknownName
from outfeed.log.store.reading import list_events
from outfeed.swarm.coordinator import MAX_BID_SATS, Coordinator
from outfeed.swarm.store.swarm import AgentState, TaskState, read_transaction
from tests.swarm.conftest import AUCTION_SECS
from tests.swarm.log_replay import disagreements


@pytest.fixture(autouse=True)
def state_and_log_agree(database):
    yield
    assert disagreements(database.path) == []


def logged_types(**filters):
    """Return the types of the logged events, the oldest first."""
    return [str(event.event_type) for event in reversed(list_events(**filters))]


def the_task(database, task_id):
    with read_transaction(database) as view:
        return view.task(task_id)


class Stage:
    """Brings tasks and agents into any state."""

    def __init__(self, coordinator, wall):
        self.coordinator = coordinator
        self._wall = wall
        self.agent = coordinator.join("Forge")

    def task(self, state):
        task = self.coordinator.post("Write the docs")
        if state != "bidding":
            self.coordinator.bid(task.id, self.agent.id, 50)
            self.close(task)
        if state in ("started", "completed"):
            self.coordinator.start(task.id)
        if state == "completed":
            self.coordinator.complete(task.id, self.agent.id, "done")
        if state == "failed":
            self.coordinator.fail(task.id, self.agent.id, "no luck")
        return task

    def close(self, task):
        self._wall.pass_secs(AUCTION_SECS)
        assert self.coordinator.close_auction(task.id)


@pytest.fixture
def stage(coordinator, wall):
    return Stage(coordinator, wall)


class TestAStory:
    def test_every_transition_is_logged_in_order(self, stage, coordinator):
        task = stage.task("completed")

        assert logged_types(task_id=task.id) == [
            "task.created", "task.bidding", "bid.submitted", "auction.closed", "task.assigned", "agent.status_changed",
            "task.started", "task.completed", "agent.status_changed",
        ]  # fmt: skip
        coordinator.leave(stage.agent.id)
        statuses = ["agent.status_changed", "task.started", "task.completed", "agent.status_changed"]
        assert logged_types(agent_id=stage.agent.id) == [
            "agent.joined", "bid.submitted", "auction.closed", "task.assigned", *statuses, "agent.left"
        ]  # fmt: skip

    def test_events_have_the_fields_of_their_sentences(self, stage, coordinator):
        task = stage.task("assigned")
        coordinator.fail(task.id, stage.agent.id, "no luck")

        found = {event.event_type: event for event in list_events()}
        assert found["task.created"].data == {"description": "Write the docs"}
        subject = {"description": "Write the docs"}
        assert found["bid.submitted"].data == {"name": "Forge", "bid_sats": 50} | subject
        assert found["task.assigned"].data == {"name": "Forge", "bid_sats": 50} | subject
        assert found["task.assigned"].agent_id == stage.agent.id
        assert found["task.failed"].data == {"reason": "no luck"} | subject
        assert found["agent.status_changed"].data == {"name": "Forge", "status": "busy"} | subject
        assert found["agent.status_changed"].task_id == task.id
        assert {event.source for event in found.values()} == {"coordinator"}

    def test_an_agent_is_busy_while_it_holds_a_task(self, stage, coordinator, database):
        first, second = coordinator.post("one"), coordinator.post("two")
        for task in (first, second):
            coordinator.bid(task.id, stage.agent.id, 50)
        stage.close(first)
        stage.close(second)

        def state():
            with read_transaction(database) as view:
                return view.agent(stage.agent.id).state

        assert state() is AgentState.BUSY
        coordinator.fail(first.id, stage.agent.id, "no luck")
        assert state() is AgentState.BUSY
        coordinator.fail(second.id, stage.agent.id, "no luck")
        assert state() is AgentState.IDLE

    def test_tool_events_name_the_agent_and_its_started_task(self, stage, coordinator):
        task = stage.task("started")

        for status in ("called", "completed", "failed"):
            coordinator.use_tool(
                stage.agent.id, "web_search", status, task_id=task.id, details={"reason": "x", "name": "y"}
            )

        assert logged_types(task_id=task.id)[-3:] == ["tool.called", "tool.completed", "tool.failed"]
        data = {"name": "Forge", "tool_name": "web_search", "reason": "x", "description": "Write the docs"}
        assert list_events()[0].data == data

    def test_a_long_description_is_cut_in_later_events_of_its_task(self, stage, coordinator):
        task = coordinator.post("x" * 2000)
        coordinator.bid(task.id, stage.agent.id, 50)
        newest, _, created, _ = list_events()
        assert created.data["description"] == "x" * 2000
        assert newest.data["description"] == "x" * 199 + "…"


class TestAnAuction:
    def winner(self, coordinator, stage, database, *bids):
        task = coordinator.post("Write the docs")
        for agent, sats in bids:
            coordinator.bid(task.id, agent.id, sats)
        stage.close(task)
        return the_task(database, task.id)

    def test_the_lowest_bid_wins_and_of_equals_the_earliest(self, coordinator, stage, database):
        agents = [coordinator.join(name) for name in ("Echo", "Seer", "Quill", "Helm")]
        found = self.winner(coordinator, stage, database, *zip(agents, (70, 50, 50, 60), strict=True))

        assert (found.state, found.agent_id, found.bid_sats) == (TaskState.ASSIGNED, agents[1].id, 50)
        assert (found.bid_count, found.lowest_bid_sats, found.agent_name) == (4, 50, "Seer")

    def test_a_bid_of_zero_is_valid(self, coordinator, stage, database):
        other = coordinator.join("Echo")
        assert self.winner(coordinator, stage, database, (other, 1), (stage.agent, 0)).agent_id == stage.agent.id

    def test_a_task_without_bids_fails(self, coordinator, stage, database):
        found = self.winner(coordinator, stage, database)

        assert (found.state, found.reason) == (TaskState.FAILED, "no bids")
        assert logged_types(task_id=found.id) == ["task.created", "task.bidding", "auction.closed", "task.failed"]

    def test_the_bid_of_an_agent_that_has_left_does_not_win(self, coordinator, stage, database):
        task, leaver = coordinator.post("Write the docs"), coordinator.join("Echo")
        coordinator.bid(task.id, leaver.id, 10)
        coordinator.bid(task.id, stage.agent.id, 90)
        coordinator.leave(leaver.id)
        stage.close(task)

        assert the_task(database, task.id).agent_id == stage.agent.id

    def test_a_task_fails_if_all_bidders_have_left(self, coordinator, stage, database):
        task = coordinator.post("Write the docs")
        coordinator.bid(task.id, stage.agent.id, 90)
        coordinator.leave(stage.agent.id)
        stage.close(task)

        assert the_task(database, task.id).reason == "all bidders have left"

    def test_an_auction_closes_on_time_and_accepts_no_late_bid(self, coordinator, stage, wall):
        task = coordinator.post("Write the docs")
        wall.pass_secs(AUCTION_SECS - 0.001)
        assert coordinator.due_auctions() == []
        assert not coordinator.close_auction(task.id)
        wall.pass_secs(0.001)
        assert coordinator.due_auctions() == [task.id]
        with pytest.raises(InvalidTransition, match="took bids until"):
            coordinator.bid(task.id, stage.agent.id, 5)
        assert coordinator.close_auction(task.id)
        assert coordinator.due_auctions() == []

    def test_only_one_of_many_concurrent_closers_closes_an_auction(self, coordinator, stage, wall):
        tasks = [coordinator.post("Write the docs") for _ in range(10)]
        for task in tasks:
            coordinator.bid(task.id, stage.agent.id, 5)
        wall.pass_secs(AUCTION_SECS)
        together = threading.Barrier(4)

        def close_all(_):
            together.wait()
            return [coordinator.close_auction(task.id) for task in tasks]

        with ThreadPoolExecutor(4) as pool:
            rounds = list(pool.map(close_all, range(4)))
        assert [sum(closings) for closings in zip(*rounds, strict=True)] == [1] * 10

    def test_an_agent_bids_once_and_may_repeat_the_bid(self, coordinator, stage):
        task = coordinator.post("Write the docs")
        first = coordinator.bid(task.id, stage.agent.id, 50)

        assert coordinator.bid(task.id, stage.agent.id, 50) == first
        with pytest.raises(InvalidTransition, match="has already bid 50 sats"):
            coordinator.bid(task.id, stage.agent.id, 40)
        assert logged_types(event_type="bid.submitted") == ["bid.submitted"]


CALLS = {
    "bid": lambda coordinator, task, agent: coordinator.bid(task, agent, 40),
    "start": lambda coordinator, task, agent: coordinator.start(task, agent),
    "complete": lambda coordinator, task, agent: coordinator.complete(task, agent, "done"),
    "fail": lambda coordinator, task, agent: coordinator.fail(task, agent, "no luck"),
    "tool": lambda coordinator, task, agent: coordinator.use_tool(agent, "hammer", "called", task_id=task),
}
LEGAL = {
    ("bidding", "bid"), ("assigned", "start"), ("assigned", "fail"), ("started", "complete"), ("started", "fail"),
    ("started", "tool"),
}  # fmt: skip


class TestMoves:
    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("state", list(TaskState))
    def test_only_transitions_in_the_table_are_allowed(self, stage, coordinator, database, state, call):
        task = stage.task(state)
        before = logged_types()
        if (state, call) in LEGAL:
            CALLS[call](coordinator, task.id, stage.agent.id)
            assert len(logged_types()) > len(before)
        else:
            with pytest.raises(InvalidTransition, match=f"{task.id} is {state}") as refused:
                CALLS[call](coordinator, task.id, stage.agent.id)
            assert refused.value.state == state
            assert logged_types() == before

    @pytest.mark.parametrize(("state", "call"), sorted(LEGAL - {("bidding", "bid")}))
    def test_only_its_agent_can_change_a_task(self, stage, coordinator, state, call):
        task, other = stage.task(state), coordinator.join("Echo")
        with pytest.raises(InvalidTransition, match=f"was assigned to {stage.agent.id}, not to {other.id}"):
            CALLS[call](coordinator, task.id, other.id)

    @pytest.mark.parametrize("call", CALLS)
    def test_unknown_ids_are_named(self, stage, coordinator, call):
        with pytest.raises(UnknownName, match="task not found: 'nothing'"):
            CALLS[call](coordinator, "nothing", stage.agent.id)
        state = {"bid": "bidding", "start": "assigned", "fail": "assigned"}.get(call, "started")
        with pytest.raises(UnknownName, match="agent not found"):
            CALLS[call](coordinator, stage.task(state).id, "\ud800")

    def test_an_agent_that_has_left_can_do_nothing(self, stage, coordinator):
        task, agent_id = coordinator.post("Write the docs"), stage.agent.id
        coordinator.leave(agent_id)
        for call in (
            lambda: coordinator.heartbeat(agent_id),
            lambda: coordinator.leave(agent_id),
            lambda: coordinator.bid(task.id, agent_id, 4),
            lambda: coordinator.use_tool(agent_id, "hammer", "called"),
        ):
            with pytest.raises(InvalidTransition, match=r"has left \(signed off\); join again"):
                call()

    @pytest.mark.parametrize("state", ["assigned", "started"])
    def test_the_tasks_of_a_leaving_agent_fail(self, stage, coordinator, database, state):
        task = stage.task(state)
        coordinator.leave(stage.agent.id)

        found = the_task(database, task.id)
        assert (found.state, found.reason, found.agent_id) == (TaskState.FAILED, "its agent left", stage.agent.id)
        assert logged_types()[-2:] == ["task.failed", "agent.left"]

    @pytest.mark.parametrize(
        ("field", "call"),
        [
            ("name", lambda coordinator, _: coordinator.join(" ")),
            ("name", lambda coordinator, _: coordinator.join("x" * 51)),
            ("name", lambda coordinator, _: coordinator.join("a\nb")),
            ("name", lambda coordinator, _: coordinator.join(7)),
            ("description", lambda coordinator, _: coordinator.post("")),
            ("description", lambda coordinator, _: coordinator.post("x" * 2001)),
            ("description", lambda coordinator, _: coordinator.post("a\0b")),
            ("description", lambda coordinator, _: coordinator.post("a\ud800b")),
            ("bid_sats", lambda coordinator, agent: coordinator.bid("task", agent, -1)),
            ("bid_sats", lambda coordinator, agent: coordinator.bid("task", agent, MAX_BID_SATS + 1)),
            ("bid_sats", lambda coordinator, agent: coordinator.bid("task", agent, True)),
            ("bid_sats", lambda coordinator, agent: coordinator.bid("task", agent, 1.5)),
            ("reason", lambda coordinator, agent: coordinator.fail("task", agent, " ")),
            ("tool_name", lambda coordinator, agent: coordinator.use_tool(agent, "", "called")),
        ],
    )
    def test_a_value_outside_the_limits_is_rejected_by_name(self, stage, coordinator, field, call):
        with pytest.raises(InvalidEvent) as refused:
            call(coordinator, stage.agent.id)
        assert refused.value.field == field

    @pytest.mark.parametrize("result", [{"deep": 1}, 7, None, "text", [1, [2]]])
    def test_a_result_is_any_json(self, stage, coordinator, result):
        task = stage.task("started")
        assert coordinator.complete(task.id, stage.agent.id, result).result == result

    @pytest.mark.parametrize("result", ["x" * 70_000, float("nan"), object()])
    def test_a_result_that_does_not_fit_an_event_changes_nothing(self, stage, coordinator, database, result):
        task = stage.task("started")
        with pytest.raises(InvalidEvent):
            coordinator.complete(task.id, stage.agent.id, result)
        assert the_task(database, task.id).state is TaskState.STARTED

    def test_a_deeply_nested_result_is_rejected(self, stage, coordinator):
        nested: list = []
        for _ in range(101):
            nested = [nested]
        with pytest.raises(InvalidEvent, match="nested more than 63"):
            coordinator.complete(stage.task("started").id, stage.agent.id, nested)


class TestOneTransaction:
    @pytest.mark.parametrize("table", ["task", "event_log"])
    def test_neither_row_nor_event_is_written_if_one_fails(self, stage, coordinator, database, table):
        task = stage.task("assigned")
        before = logged_types()
        moment = "UPDATE ON outfeed_task" if table == "task" else "INSERT ON event_log"
        with closing(sqlite3.connect(database.path)) as connection:
            connection.execute(f"CREATE TRIGGER sabotage BEFORE {moment} BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises((sqlite3.IntegrityError, EventConflict)):
            coordinator.start(task.id)
        with closing(sqlite3.connect(database.path)) as connection:
            connection.execute("DROP TRIGGER sabotage")

        assert logged_types() == before
        assert the_task(database, task.id).state is TaskState.ASSIGNED

    def test_another_process_may_call_the_coordinator(self, stage, database, wall):
        again = Coordinator(database, auction_secs=1, agent_timeout_secs=1)
        assert again.heartbeat(stage.agent.id).name == "Forge"


class TestQueries:
    def test_every_query_has_its_index(self, stage, database):
        """Queries scan only an index in its order, and sort only few rows.

        These rows are present agents and held tasks.
        """
        task_id, agent_id = stage.task("assigned").id, stage.agent.id
        statements: list[str] = []
        with read_transaction(database) as view:
            view.connection.set_trace_callback(statements.append)
            view.agent(agent_id), view.task(task_id), view.bids(task_id), view.best_bid(task_id)
            view.bid_of(task_id, agent_id), view.held_by(agent_id), view.counts(), view.present_agents(9)
            view.overdue_agents("1", "2", 9), view.due_auctions("1", "2", 9)
            for state in (None, "busy", "failed"):
                for cursor in (None, 9):
                    (view.agents if state == "busy" else view.tasks)(state=state, cursor=cursor)
            view.connection.set_trace_callback(None)
            plans = {
                statement: [row[3] for row in view.connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()]
                for statement in statements
            }

        assert len(plans) >= 18
        for statement, steps in plans.items():
            is_short = "INDEXED BY outfeed_agent_present" in statement or "task.state IN" in statement
            assert is_short or not [step for step in steps if "TEMP B-TREE" in step], statement
            scans = [step for step in steps if step.startswith("SCAN") and "USING" not in step and "(" not in step]
            assert not scans or (scans == ["SCAN task"] and "ORDER BY task.number DESC" in statement), (
                scans,
                statement,
            )
