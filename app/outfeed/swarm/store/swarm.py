"""The rows of agents, tasks and bids.

`outfeed/swarm/transitions.py` decides which state changes are allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from outfeed import clock
from outfeed.display import cut
from outfeed.errors import UnknownName
from outfeed.events import Event, EventType
from outfeed.redaction import REDACTED
from outfeed.store.database import Connection, Database
from outfeed.store.event_log import log_event
from outfeed.store.outbox import read_window

SOURCE = "coordinator"
MAX_SUBJECT_CHARS = 200
MAX_SEARCHED = 20_000  # newest tasks, or agents, that a search without an index reads
MAX_NAMED = 5_000  # newest agents whose names a query of the log may have
MAX_COUNTED = 10_000  # a larger number counts as this plus one: exact counts don't scale


class AgentState(StrEnum):
    """State of an agent. A busy agent holds an assigned or started task.

    LEFT is final: an agent that has left joins as a new agent.
    """

    IDLE = "idle"
    BUSY = "busy"
    LEFT = "left"


class TaskState(StrEnum):
    """State of a task. A task is open for bids from the moment it is posted."""

    BIDDING = "bidding"
    ASSIGNED = "assigned"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"


# The fields of an event's data that a row repeats: the table, and the column, which has the name of the key.
_REPEATED: dict[str, tuple[str, str]] = {
    EventType.AGENT_JOINED: ("agent", "name"),
    EventType.AGENT_LEFT: ("agent", "reason"),
    EventType.TASK_CREATED: ("task", "description"),
    EventType.TASK_BIDDING: ("task", "description"),
    EventType.TASK_COMPLETED: ("task", "result"),
    EventType.TASK_FAILED: ("task", "reason"),
}


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. Times have the log's format. *reason* says why it left."""

    number: int
    id: str
    name: str
    state: AgentState
    joined_at: str
    seen_at: str
    left_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    *agent_id* and *bid_sats* are the winner's. *result* is any JSON. *reason* says why the task failed.
    """

    number: int
    id: str
    description: str
    state: TaskState
    created_at: str
    closes_at: str
    agent_id: str | None
    agent_name: str | None
    bid_sats: int | None
    assigned_at: str | None
    started_at: str | None
    ended_at: str | None
    result: Any
    reason: str | None
    bid_count: int
    lowest_bid_sats: int | None


@dataclass(frozen=True, slots=True)
class Bid:
    """One bid. *agent_name* is the bidder's name."""

    agent_id: str
    agent_name: str
    bid_sats: int
    created_at: str


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """Numbers of an agent's tasks, among the newest MAX_SEARCHED ones.

    *earned_sats* is the sum of the prices of its completed tasks.
    """

    won: int
    completed: int
    failed: int
    earned_sats: int

    @property
    def success_rate(self) -> float | None:
        """The share of completed tasks among the ended ones, or None."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None


@dataclass(frozen=True, slots=True)
class NumberRange:
    """A place in a list that has the newest row first.

    The rows have a `number` below *before*, or above *after*.
    """

    before: int | None = None
    after: int | None = None


_AGENT = "SELECT number, id, name, state, joined_at, seen_at, left_at, reason FROM outfeed_agent"
_TASK = """
    SELECT
        task.number, task.id, description, task.state, created_at, closes_at, agent_id, agent.name, bid_sats,
        assigned_at, started_at, ended_at, result, task.reason,
        (SELECT count(*) FROM outfeed_bid AS bid WHERE bid.task_id = task.id),
        (SELECT min(bid_sats) FROM outfeed_bid AS bid WHERE bid.task_id = task.id)
    FROM outfeed_task AS task LEFT JOIN outfeed_agent AS agent ON agent.id = agent_id
"""
_BID = """
    SELECT agent_id, name, bid_sats, created_at
    FROM outfeed_bid AS bid JOIN outfeed_agent AS agent ON agent.id = agent_id
"""


class SwarmReader:
    """Reads the swarm in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def agent(self, agent_id: str) -> Agent:
        """Return the agent with that id. Raises UnknownName."""
        if row := self._first(f"{_AGENT} WHERE id = ?", agent_id):
            return _agent(row)
        raise UnknownName(f"agent not found: {agent_id!r:.220}")

    def task(self, task_id: str) -> Task:
        """Return the task with that id. Raises UnknownName."""
        if row := self._first(f"{_TASK} WHERE task.id = ?", task_id):
            return _task(row)
        raise UnknownName(f"task not found: {task_id!r:.220}")

    def bids(self, task_id: str) -> list[Bid]:
        """Return the task's bids, the lowest first."""
        query = f"{_BID} WHERE task_id = ? ORDER BY bid_sats, bid.number"
        return [Bid(*row) for row in self.connection.execute(query, (task_id,)).fetchall()]

    def best_bid(self, task_id: str) -> Bid | None:
        """Return the lowest bid of agents that have not left.

        Of equal bids the earliest comes first.
        """
        query = f"{_BID} WHERE task_id = ? AND state <> 'left' ORDER BY bid_sats, bid.number"
        row = self._first(query, task_id)
        return Bid(*row) if row else None

    def bid_of(self, task_id: str, agent_id: str) -> Bid | None:
        """Return that agent's bid for the task."""
        query = f"{_BID} WHERE task_id = ? AND agent_id = ?"
        row = self._first(query, task_id, agent_id)
        return Bid(*row) if row else None

    def held_by(self, agent_id: str) -> list[Task]:
        """Return the agent's assigned and started tasks, the oldest first."""
        query = f"{_TASK} WHERE agent_id = ? AND task.state IN ('assigned', 'started') ORDER BY task.number"
        return [_task(row) for row in self.connection.execute(query, (agent_id,)).fetchall()]

    def overdue_agents(self, seen_before: str, seen_after: str, limit: int) -> list[str]:
        """Return the ids of present agents whose last heartbeat is due.

        It is due up to *seen_before*. A time after *seen_after* dates from before the clock was set back.
        """
        query = (
            "SELECT id FROM outfeed_agent WHERE state <> 'left' AND seen_at <= ? UNION ALL"
            " SELECT id FROM outfeed_agent WHERE state <> 'left' AND seen_at > ? LIMIT ?"
        )
        return [row[0] for row in self.connection.execute(query, (seen_before, seen_after, limit)).fetchall()]

    def due_auctions(self, closing_until: str, created_after: str, limit: int) -> list[str]:
        """Return the ids of tasks whose auctions are over.

        An auction is over if it closes up to *closing_until*. A task created after *created_after* dates from before
        the clock was set back.
        """
        query = (
            "SELECT id FROM outfeed_task INDEXED BY outfeed_task_auction WHERE state = 'bidding'"
            " AND (closes_at <= ? OR created_at > ?)"
            " ORDER BY closes_at LIMIT ?"
        )
        return [row[0] for row in self.connection.execute(query, (closing_until, created_after, limit)).fetchall()]

    def _first(self, query: str, *values: str) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self.connection.execute(f"{query} LIMIT 1", values).fetchone()
            return found
        except UnicodeEncodeError:  # a lone surrogate: no id can contain one
            return None

    # --- lists ---

    def agents(
        self, *, state: AgentState | None = None, limit: int = 100, cursor: int | None = None
    ) -> tuple[list[Agent], int | None]:
        """Return a page of agents, newest first, and the next page's *cursor*.

        The cursor is None on the last page.
        """
        where, values = _page(cursor, state)
        query = f"{_AGENT} {where} ORDER BY number DESC LIMIT ?"
        found = [_agent(row) for row in self.connection.execute(query, (*values, limit + 1)).fetchall()]
        return found[:limit], found[limit - 1].number if len(found) > limit else None

    def present_agents(self, limit: int) -> list[Agent]:
        """Return the agents that have not left, the oldest first."""
        query = f"{_AGENT} INDEXED BY outfeed_agent_present WHERE state <> 'left' ORDER BY number LIMIT ?"
        return [_agent(row) for row in self.connection.execute(query, (limit,)).fetchall()]

    def present_count(self) -> int:
        """Return the number of agents that have not left.

        MAX_COUNTED + 1 means "more than MAX_COUNTED".
        """
        query = "SELECT count(*) FROM (SELECT 1 FROM outfeed_agent WHERE state <> 'left' LIMIT ?)"
        return int(self.connection.execute(query, (MAX_COUNTED + 1,)).fetchone()[0])

    def next_auctions(self, limit: int) -> list[Task]:
        """Return the open auctions in the order of their closing times."""
        query = f"{_TASK} WHERE task.state = 'bidding' ORDER BY closes_at, task.number LIMIT ?"
        return [_task(row) for row in self.connection.execute(query, (limit,)).fetchall()]

    def work_of(self, agents: list[Agent]) -> dict[str, str]:
        """Return the description of the newest task of each agent in *agents*.

        Only assigned and started tasks count.
        """
        query = (
            "SELECT agent_id, description FROM outfeed_task WHERE state IN ('assigned', 'started')"
            " AND agent_id IN (SELECT value FROM json_each(?)) ORDER BY number"
        )
        return dict(self.connection.execute(query, (json.dumps([agent.id for agent in agents]),)).fetchall())

    def tasks(
        self, *, state: TaskState | None = None, limit: int = 100, cursor: int | None = None
    ) -> tuple[list[Task], int | None]:
        """Return a page of tasks, newest first, and the next page's *cursor*.

        The cursor is None on the last page.
        """
        where, values = _page(cursor, state, "task.")
        query = f"{_TASK} {where} ORDER BY task.number DESC LIMIT ?"
        found = [_task(row) for row in self.connection.execute(query, (*values, limit + 1)).fetchall()]
        return found[:limit], found[limit - 1].number if len(found) > limit else None

    def has_existed(self) -> bool:
        """Return whether there is any agent or task, of any state."""
        sql = "SELECT EXISTS (SELECT 1 FROM outfeed_agent) OR EXISTS (SELECT 1 FROM outfeed_task)"
        return bool(self.connection.execute(sql).fetchone()[0])

    def find_tasks(
        self, limit: int, span: NumberRange, *, state: TaskState | None, agent_id: str | None, text: str | None
    ) -> list[Task]:
        """Return the tasks of *span* that meet all conditions, newest first.

        *text* is a part of the description. With *text* or *agent_id* only the newest MAX_SEARCHED tasks are read.
        """
        given: dict[str, Any] = {"task.state = ?": state, "agent_id = ?": agent_id}
        if text is not None or agent_id is not None:
            given["task.number > (SELECT max(number) FROM outfeed_task) - ?"] = MAX_SEARCHED
        given["description LIKE ? ESCAPE '!'"] = None if text is None else _like(text)
        return [_task(row) for row in self._list(_TASK, "task.number", limit, span, given)]

    def find_agents(self, limit: int, span: NumberRange, *, state: AgentState | None, text: str | None) -> list[Agent]:
        """Return the agents of *span* that meet all conditions, newest first.

        *text* is a part of the name. With *text* only the newest MAX_SEARCHED agents are read.
        """
        given: dict[str, Any] = {"state = ?": state}
        if text is not None:
            given["number > (SELECT max(number) FROM outfeed_agent) - ?"] = MAX_SEARCHED
            given["name LIKE ? ESCAPE '!'"] = _like(text)
        return [_agent(row) for row in self._list(_AGENT, "number", limit, span, given)]

    def _list(
        self, select: str, number: str, limit: int, span: NumberRange, given: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        given = given | {f"{number} < ?": span.before, f"{number} > ?": span.after}
        given = {clause: value for clause, value in given.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        order = "DESC" if span.after is None else "ASC"
        query = f"{select} {where} ORDER BY {number} {order} LIMIT ?"
        found: list[tuple[Any, ...]] = self.connection.execute(query, (*given.values(), limit)).fetchall()
        return found if span.after is None else found[::-1]

    def figures_of(self, agent_id: str) -> AgentFigures:
        """Return the figures of an agent."""
        query = (
            "SELECT count(*), sum(state = 'completed'), sum(state = 'failed'),"
            " sum(CASE state WHEN 'completed' THEN bid_sats END) FROM outfeed_task"
            " WHERE agent_id = ? AND number > (SELECT max(number) FROM outfeed_task) - ?"
        )
        row = self.connection.execute(query, (agent_id, MAX_SEARCHED)).fetchone()
        return AgentFigures(*(value or 0 for value in row))

    def agent_counts(self) -> dict[str, int]:
        """Return the number of agents in each state.

        MAX_COUNTED + 1 means "more than MAX_COUNTED".
        """
        query = "SELECT count(*) FROM (SELECT 1 FROM outfeed_agent WHERE state = ? LIMIT ?)"
        return {
            state.value: self.connection.execute(query, (state, MAX_COUNTED + 1)).fetchone()[0] for state in AgentState
        }

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state.

        MAX_COUNTED + 1 means "more than MAX_COUNTED".
        """
        query = "SELECT count(*) FROM (SELECT 1 FROM outfeed_task WHERE state = ? LIMIT ?)"
        return {
            state.value: self.connection.execute(query, (state, MAX_COUNTED + 1)).fetchone()[0] for state in TaskState
        }

    def position(self) -> tuple[str, int]:
        """Return the feed's epoch and head.

        The rows of this transaction contain every event up to the head and none after it.
        """
        window = read_window(self.connection)
        return window.epoch, window.last_seq


class SwarmTransaction(SwarmReader):
    """One write transaction. Changes and events are committed together.

    *now* is the time of all of them.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.now = clock.now()  # under the write lock, so that times rise with the order of commits

    @property
    def timestamp(self) -> str:
        """Return the transaction's time, the time of its rows and events."""
        return clock.isoformat(self.now)

    def log(
        self, event_type: EventType, *, task_id: str | None = None, agent_id: str | None = None, **data: Any
    ) -> Event:
        """Append an event in this transaction.

        An event of a task names the task by the begin of its description. Rows must repeat the texts of the returned
        event: it may be redacted.
        """
        if task_id is not None and "description" not in data:
            data["description"] = cut(self.task(task_id).description, MAX_SUBJECT_CHARS)
        return log_event(event_type, SOURCE, task_id, agent_id, data, timestamp=self.now, connection=self.connection)

    def add_agent(self, agent_id: str, name: str) -> None:
        """Insert a new agent, idle."""
        self.connection.execute(
            "INSERT INTO outfeed_agent (id, name, state, joined_at, seen_at) VALUES (?, ?, 'idle', ?, ?)",
            (agent_id, name, self.timestamp, self.timestamp),
        )

    def set_agent(self, agent_id: str, **columns: Any) -> None:
        """Update these columns of the agent."""
        self._set("agent", agent_id, columns)

    def add_task(self, task_id: str, description: str, closes_at: datetime) -> None:
        """Insert a new task, open for bids."""
        self.connection.execute(
            "INSERT INTO outfeed_task (id, description, state, created_at, closes_at) VALUES (?, ?, 'bidding', ?, ?)",
            (task_id, description, self.timestamp, clock.isoformat(closes_at)),
        )

    def set_task(self, task_id: str, **columns: Any) -> None:
        """Update these columns of the task. A *result* is written as JSON."""
        if "result" in columns:
            columns["result"] = json.dumps(columns["result"], ensure_ascii=False)
        self._set("task", task_id, columns)

    def add_bid(self, task_id: str, agent_id: str, bid_sats: int) -> None:
        """Insert a bid."""
        self.connection.execute(
            "INSERT INTO outfeed_bid (task_id, agent_id, bid_sats, created_at) VALUES (?, ?, ?, ?)",
            (task_id, agent_id, bid_sats, self.timestamp),
        )

    def _set(self, table: str, id_: str, columns: dict[str, Any]) -> None:
        changes = ", ".join(f"{name} = ?" for name in columns)
        self.connection.execute(f"UPDATE outfeed_{table} SET {changes} WHERE id = ?", (*columns.values(), id_))  # noqa: S608


@contextmanager
def read_transaction(database: Database) -> Iterator[SwarmReader]:
    """Yield a SwarmReader for one read transaction."""
    with database.snapshot() as connection:
        yield SwarmReader(connection)


@contextmanager
def write_transaction(database: Database) -> Iterator[SwarmTransaction]:
    """Yield a SwarmTransaction.

    It is committed at the end of the block, and rolled back if the block raises.
    """
    with database.transaction() as connection:
        yield SwarmTransaction(connection)


def agent_names(connection: Connection) -> dict[str, str]:
    """Return the names of the newest MAX_NAMED agents, by id."""
    query = "SELECT id, name FROM outfeed_agent ORDER BY number DESC LIMIT ?"
    return dict(connection.execute(query, (MAX_NAMED,)).fetchall())


def erase(connection: Connection, event_ids: Iterable[str]) -> int:
    """Redact the texts of these events in rows that repeat them.

    Each becomes `[redacted]`. Returns the number of changed rows.
    """
    return sum(_erase(connection, event_id) for event_id in event_ids)


def _erase(connection: Connection, event_id: str) -> int:
    event = _event_fields(connection, event_id)
    if not isinstance(event, dict) or event.get("source") != SOURCE or str(event.get("event_type")) not in _REPEATED:
        return 0
    table, column = _REPEATED[event["event_type"]]
    id_ = str(event.get(f"{table}_id"))
    row = connection.execute(f"SELECT {column} FROM outfeed_{table} WHERE id = ?", (id_,)).fetchone()  # noqa: S608 - ours
    data = event.get("data")
    if row is None or row[0] is None or not isinstance(data, dict) or column not in data:
        return 0
    kept = _parsed(row[0]) if column == "result" else row[0]
    if kept != data[column]:  # the event of a raw writer, which changed no row
        return 0
    hidden = json.dumps(REDACTED) if column == "result" else REDACTED
    sql = f"UPDATE outfeed_{table} SET {column} = ? WHERE id = ?"  # noqa: S608 - ours
    return connection.execute(sql, (hidden, id_)).rowcount


def _event_fields(connection: Connection, event_id: str) -> Any:
    """Return the fields of an event, from the log or the outbox.

    The outbox still has an event that was pruned from the log.
    """
    row = connection.execute(
        "SELECT source, event_type, task_id, agent_id, data FROM event_log WHERE id = ?", (event_id,)
    ).fetchone()
    if row is not None:
        *names, data = row
        return dict(zip(("source", "event_type", "task_id", "agent_id"), names, strict=True), data=_parsed(data))
    row = connection.execute("SELECT payload FROM outbox WHERE event_id = ?", (event_id,)).fetchone()
    return row and _parsed(row[0])


def _parsed(text: Any) -> Any:
    """Return the parsed JSON; None if a raw writer left another text."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _like(text: str) -> str:
    """Return the LIKE pattern for values that contain *text*."""
    return f"%{re.sub('[!%_]', lambda found: f'!{found[0]}', text)}%"


def _page(cursor: int | None, state: str | None, table: str = "") -> tuple[str, list[Any]]:
    clauses = {f"{table}state = ?": state, f"{table}number < ?": cursor}
    given = {clause: value for clause, value in clauses.items() if value is not None}
    return f"WHERE {' AND '.join(given)}" if given else "", list(given.values())


def _agent(row: tuple[Any, ...]) -> Agent:
    number, id_, name, state, *rest = row
    return Agent(number, id_, name, AgentState(state), *rest)


def _task(row: tuple[Any, ...]) -> Task:
    fields = dict(zip(Task.__slots__, row, strict=True))
    result = fields["result"]
    return Task(
        **fields | {"state": TaskState(fields["state"]), "result": None if result is None else json.loads(result)}
    )
