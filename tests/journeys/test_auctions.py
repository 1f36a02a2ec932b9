"""Auctions across processes and restarts: each is closed once."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

from tests.journeys.test_failures import FaultyServer
from tests.server import Server
from tests.swarm.log_replay import disagreements
from tests.waits import wait_until


def closings(server):
    with closing(sqlite3.connect(server.database)) as connection:
        return Counter(row[0] for row in connection.execute(
            "SELECT task_id FROM event_log WHERE event_type = 'auction.closed'"
        ))  # fmt: skip


def test_two_workers_close_each_auction_and_expire_each_agent_once(tmp_path):
    with Server(tmp_path, workers=2, auction_secs=0.5, agent_timeout_secs=2) as server, server.http() as http:
        agent = http.post("/api/swarm/agents", json={"name": "Forge"}).json()["id"]
        tasks = [http.post("/api/swarm/tasks", json={"description": "Write"}).json()["id"] for _ in range(30)]
        for task in tasks:
            http.post(f"/api/swarm/tasks/{task}/bids", json={"agent_id": agent, "bid_sats": 5})
        wait_until(lambda: len(closings(server)) == len(tasks), "every auction closed")
        wait_until(lambda: http.get(f"/api/swarm/agents/{agent}").json()["state"] == "left", "the agent has left")
        refused = http.post(f"/api/swarm/agents/{agent}/heartbeat")
        assert (refused.status_code, refused.json()["state"]) == (409, "left")
        assert closings(server) == dict.fromkeys(tasks, 1)
        assert disagreements(server.database) == []


def test_auctions_due_during_a_downtime_close_after_the_start(tmp_path):
    (tmp_path / "ailments").write_text("patience=30")
    with FaultyServer(tmp_path, auction_secs=60) as server:
        with server.http() as http:
            agents = [http.post("/api/swarm/agents", json={"name": name}).json()["id"] for name in ("Forge", "Echo")]
            task = http.post("/api/swarm/tasks", json={"description": "Write"}).json()
            lonely = http.post("/api/swarm/tasks", json={"description": "Sing"}).json()
            for agent, sats in zip(agents, (9, 5), strict=True):
                http.post(f"/api/swarm/tasks/{task['id']}/bids", json={"agent_id": agent, "bid_sats": sats})
        server.kill()
        assert not closings(server)
        with server.lacking("clock=60 patience=30"), server.http() as http:
            server.start()
            wait_until(lambda: len(closings(server)) == 2, "both auctions closed")
            found = http.get(f"/api/swarm/tasks/{task['id']}").json()
            assert (found["state"], found["agent_id"], found["bid_sats"]) == ("assigned", agents[1], 5)
            found = http.get(f"/api/swarm/tasks/{lonely['id']}").json()
            assert (found["state"], found["reason"]) == ("failed", "no bids")
        assert disagreements(server.database) == []
