"""Replays the log and compares the result with the tables.

It uses plain sqlite3 and its own rules.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

HELD = ("assigned", "started")


def disagreements(path: Path) -> list[str]:
    """Return the differences between log and tables, and impossible events.

    The list is empty if there are none.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # one snapshot, while other processes write
        story = _Story()
        for row in connection.execute("SELECT * FROM event_log ORDER BY rowid"):
            story.take(dict(row))
        tables = {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM outfeed_{name} ORDER BY number")]
            for name in ("agent", "task", "bid")
        }
    return [*story.problems, *story.compare(tables)]


class _Story:
    def __init__(self) -> None:
        self.agents: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.bids: list[tuple[str, str, int, str]] = []
        self.problems: list[str] = []

    def take(self, row: dict[str, Any]) -> None:
        kind = row["event_type"].replace(".", "_")
        getattr(self, f"_{kind}", lambda *_: None)(row, json.loads(row["data"] or "null"))

    def _require(self, is_so: object, what: str, row: dict[str, Any]) -> None:
        if not is_so:
            self.problems.append(f"{what}: {row}")

    def _is_present(self, agent_id: str | None) -> bool:
        return agent_id in self.agents and self.agents[agent_id]["state"] != "left"

    def _move(self, row: dict[str, Any], origins: tuple[str, ...], to: str, **columns: Any) -> dict[str, Any]:
        task = self.tasks[row["task_id"]]
        self._require(task["state"] in origins, f"a task that is {task['state']} became {to}", row)
        task.update(state=to, **columns)
        return task

    # --- agents ---

    def _agent_joined(self, row, data):
        self._require(row["agent_id"] not in self.agents, "joined twice", row)
        self.agents[row["agent_id"]] = {
            "id": row["agent_id"], "name": data["name"], "state": "idle", "joined_at": row["timestamp"],
            "left_at": None, "reason": None,
        }  # fmt: skip

    def _agent_status_changed(self, row, data):
        agent = self.agents[row["agent_id"]]
        self._require({agent["state"], data["status"]} == {"idle", "busy"}, "no change of status", row)
        agent["state"] = data["status"]

    def _agent_left(self, row, data):
        self._require(self._is_present(row["agent_id"]), "left twice", row)
        holds = [task for task in self.tasks.values() if task["agent_id"] == row["agent_id"] and task["state"] in HELD]
        self._require(not holds, "left with a task", row)
        self.agents[row["agent_id"]].update(state="left", left_at=row["timestamp"], reason=data["reason"])

    # --- tasks ---

    def _task_created(self, row, data):
        self._require(row["task_id"] not in self.tasks, "created twice", row)
        names = ("closes_at", "agent_id", "bid_sats", "assigned_at", "started_at", "ended_at", "result", "reason")
        self.tasks[row["task_id"]] = {
            "id": row["task_id"], "description": data["description"], "state": "created",
            "created_at": row["timestamp"], **dict.fromkeys(names),
        }  # fmt: skip

    def _task_bidding(self, row, data):
        self._move(row, ("created",), "bidding", closes_at=data["closes_at"])

    def _bid_submitted(self, row, data):
        self._require(self.tasks[row["task_id"]]["state"] == "bidding", "a bid after the auction", row)
        self._require(self._is_present(row["agent_id"]), "a bid of a stranger", row)
        self.bids.append((row["task_id"], row["agent_id"], data["bid_sats"], row["timestamp"]))

    def _auction_closed(self, row, data):
        task = self.tasks[row["task_id"]]
        self._require(task["state"] == "bidding", "closed twice", row)
        is_set_back = row["timestamp"] < task["created_at"]
        self._require(row["timestamp"] >= task["closes_at"] or is_set_back, "closed early", row)
        offers = [bid for bid in self.bids if bid[0] == row["task_id"]]
        best = min((bid for bid in offers if self._is_present(bid[1])), key=lambda bid: bid[2], default=None)
        self._require(data["bids"] == len(offers), "miscounted bids", row)
        self._require(
            (row["agent_id"], data.get("bid_sats")) == (best[1:3] if best else (None, None)), "wrong winner", row
        )
        task["winner"] = (row["agent_id"], data.get("bid_sats"))

    def _task_assigned(self, row, data):
        terms = (row["agent_id"], data["bid_sats"])
        task = self._move(row, ("bidding",), "assigned", agent_id=terms[0], bid_sats=terms[1])
        self._require(task.pop("winner", None) == terms, "assigned without an auction", row)
        task["assigned_at"] = row["timestamp"]

    def _task_started(self, row, data):
        task = self._move(row, ("assigned",), "started", started_at=row["timestamp"])
        self._require(task["agent_id"] == row["agent_id"] and self._is_present(row["agent_id"]), "not its task", row)

    def _task_completed(self, row, data):
        task = self._move(row, ("started",), "completed", ended_at=row["timestamp"], result=data["result"])
        self._require(task["agent_id"] == row["agent_id"] and self._is_present(row["agent_id"]), "not its task", row)

    def _task_failed(self, row, data):
        task = self._move(row, ("bidding", *HELD), "failed", ended_at=row["timestamp"], reason=data["reason"])
        self._require(task["agent_id"] == row["agent_id"], "not its task", row)
        self._require(task.pop("winner", (None, None)) == (None, None), "failed with a winner", row)

    def _tool_called(self, row, data):
        self._require(self._is_present(row["agent_id"]), "a tool of a stranger", row)
        if row["task_id"] is not None:
            task = self.tasks[row["task_id"]]
            self._require((task["state"], task["agent_id"]) == ("started", row["agent_id"]), "not its task", row)

    # --- the tables ---

    def compare(self, tables: dict[str, list[dict[str, Any]]]) -> list[str]:
        found = {agent["id"]: agent for agent in tables["agent"]}
        for agent in found.values():
            agent.pop("seen_at"), agent.pop("number")
        problems = _differences(self.agents, found)
        found = {task["id"]: task for task in tables["task"]}
        for task in found.values():
            task.pop("number")
            task["result"] = json.loads(task["result"] or "null")
        problems += _differences(self.tasks, found)
        bids = [(bid["task_id"], bid["agent_id"], bid["bid_sats"], bid["created_at"]) for bid in tables["bid"]]
        problems += [] if bids == self.bids else [f"bids: log {self.bids}, table {bids}"]
        for agent in tables["agent"]:
            holds = any(task["agent_id"] == agent["id"] and task["state"] in HELD for task in tables["task"])
            if (agent["state"] == "busy") != holds:
                problems.append(f"{agent['id']} is {agent['state']} and holds {'a' if holds else 'no'} task")
        return problems


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    ids = [*expected, *(id_ for id_ in found if id_ not in expected)]
    return [f"log {expected.get(id_)}, table {found.get(id_)}" for id_ in ids if expected.get(id_) != found.get(id_)]
