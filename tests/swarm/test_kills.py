"""State and log agree after random calls of processes that are killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.swarm.log_replay import disagreements
from tests.waits import wait_until

ROOT = Path(__file__).parents[2]
PROCESSES = 3
KILLS = 6
EVENTS_A_LIFE = 50
EVERY_TYPE = {
    "agent.joined", "agent.left", "agent.status_changed", "auction.closed", "bid.submitted", "task.assigned",
    "task.bidding", "task.completed", "task.created", "task.failed", "task.started", "tool.called",
}  # fmt: skip


def test_state_and_log_agree_after_random_kills(database):
    chance, seeds = random.Random(), itertools.count(1)
    with contextlib.ExitStack() as running:

        def begin():
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.swarm.random_calls", str(database.path), str(next(seeds))],
                cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            running.enter_context(process)
            running.callback(process.kill)
            return process

        lives = [begin() for _ in range(PROCESSES)]
        for life in lives:
            assert life.stdout.readline() == "running\n"
        for _ in range(KILLS):
            goal = events(database.path).total() + EVENTS_A_LIFE
            wait_until(lambda goal=goal: events(database.path).total() >= goal, "more events")
            victim = chance.randrange(PROCESSES)
            lives[victim].kill()
            assert lives[victim].wait() == -9, "the process ended for another reason"
            assert disagreements(database.path) == []
            lives[victim] = begin()
        wait_until(lambda: set(events(database.path)) >= EVERY_TYPE, "an event of every type")

    assert disagreements(database.path) == []


def events(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return Counter(dict(connection.execute("SELECT event_type, count(*) FROM event_log GROUP BY 1")))
