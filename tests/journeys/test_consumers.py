"""Durable consumers: acknowledgements persist; one connection is active."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.clients import FeedClient
from tests.server import Server, writer
from tests.waits import wait_until


def consume(client: FeedClient, name: str) -> dict[str, Any]:
    return client.subscribe(consumer=name)


def ack(client: FeedClient, seq: int) -> dict[str, Any]:
    return answer(client, action="ack", seq=seq)


def answer(client: FeedClient, **fields: Any) -> dict[str, Any]:
    """Send a message and return the answer, reading the frames before it."""
    client.send(**fields)
    while (frame := client.receive())["type"] not in ("acked", "error"):
        client.note(frame)
    return frame


def checkpoints(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return dict(raw.execute("SELECT name, seq FROM outfeed_checkpoint").fetchall())


def test_a_new_consumer_starts_at_the_head_and_resumes_at_its_checkpoint(server: Server) -> None:
    server.log_event("a.b", "before")
    with server.connect() as client:
        assert consume(client, "bot")["verdict"] == "resumed"
        assert client.cursor == 1
        for n in range(3):
            server.log_event("a.b", f"s{n}")
        client.follow(4)
        assert ack(client, 3) == {"type": "acked", "payload": {"seq": 3}}
    with server.connect() as client:
        assert consume(client, "bot")["after"] == 3
        assert client.next_event()["seq"] == 4


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"seq": 99}, "ack_beyond"),
        ({"seq": "1"}, "invalid_field"),
        ({"seq": -1}, "invalid_field"),
        ({}, "invalid_field"),
    ],
)
def test_a_bad_ack_is_an_error_and_moves_nothing(server: Server, fields: dict[str, Any], code: str) -> None:
    with server.connect() as client:
        consume(client, "bot")
        assert answer(client, action="ack", **fields)["payload"]["code"] == code
    assert checkpoints(server.database) == {"bot": 0}


def test_an_ack_without_a_consumer_is_an_error(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        assert ack(client, 0)["payload"]["code"] == "no_consumer"


def test_a_consumer_with_a_cursor_of_its_own_is_an_error(server: Server) -> None:
    with server.connect() as client:
        client.send(action="subscribe", channel="events", consumer="bot", after=0)
        assert client.receive()["payload"]["code"] == "invalid_field"


def test_a_heartbeats_cursor_may_be_acknowledged(tmp_path: Path) -> None:
    with Server(tmp_path, heartbeat_secs=0.2) as server, server.connect() as client:
        client.subscribe(consumer="bot", types=["no.such"])
        server.log_event("a.b", "s")
        wait_until(lambda: client.receive()["payload"].get("cursor") == 1, "a heartbeat at 1")
        assert ack(client, 1)["type"] == "acked"
    assert checkpoints(server.database) == {"bot": 1}


def test_a_checkpoint_of_another_epoch_is_a_reset(server: Server) -> None:
    server.log_event("a.b", "s")
    with server.connect() as client:
        consume(client, "bot")
    with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
        raw.execute("UPDATE outfeed_checkpoint SET epoch = 'another', seq = 0")
    with server.connect() as client:
        assert consume(client, "bot")["verdict"] == "reset"
        server.log_event("a.b", "s")
        client.follow(2)
        assert ack(client, 2)["type"] == "acked"
        assert consume(client, "bot")["verdict"] == "resumed"


def test_events_after_a_reset_are_sent_until_they_are_acknowledged(server: Server) -> None:
    server.log_event("a.b", "s")
    with server.connect() as client:
        consume(client, "bot")
    with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
        raw.execute("UPDATE outfeed_checkpoint SET epoch = 'another', seq = 0")
    for _ in range(2):  # the client gets the reset, and leaves without an acknowledgement
        with server.connect() as client:
            verdict = consume(client, "bot")
            assert (verdict["verdict"], verdict["after"]) == ("reset", 1)
            server.log_event("a.b", "s")
            assert client.next_event()["seq"] == 2
    with server.http() as http:
        page = http.get("/api/feed", params={"consumer": "bot"}).json()
    assert (page["verdict"], page["cursor"]) == ("reset", 1)


def test_subscribing_again_with_the_same_name_on_one_connection_keeps_it(server: Server) -> None:
    with server.connect() as client:
        for _ in range(20):
            consume(client, "bot")
        server.log_event("a.b", "s")
        assert client.next_event()["seq"] == 1
        assert ack(client, 1)["type"] == "acked"


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, workers=2) as running:
        wait_until(lambda: len(running.workers()) == 2, "two workers")
        yield running


def test_only_the_newest_connection_of_a_consumer_in_two_workers_is_active(two_workers: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(two_workers.connect()) for _ in range(12)]
        for client in clients:
            consume(client, "bot")
        for older in clients[:-1]:
            assert older.closed_with()[0] == 4009
        two_workers.log_event("a.b", "s")
        clients[-1].follow(1)
        assert ack(clients[-1], 1)["type"] == "acked"


def test_kills_neither_repeat_acknowledged_events_nor_lose_others(server: Server) -> None:
    bot = Bot(server)
    thread = threading.Thread(target=bot.run)
    thread.start()
    try:
        wait_until(lambda: "bot" in checkpoints(server.database), "the consumer exists")
        with writer(server.database, rate=200) as written:
            for _ in range(3):
                before = bot.acked
                wait_until(lambda before=before: bot.acked > before + 50, "progress")  # type: ignore[misc]
                server.kill()
                server.start()
        wait_until(lambda: set(bot.seen.values()) >= set(written), "all events are handled", timeout=30)
    finally:
        bot.is_stopping = True
        thread.join()
    assert sorted(bot.seen) == list(range(1, len(written) + 1))
    assert bot.mistakes == []


class Bot:
    """Handles every event and acknowledges at random moments."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: dict[int, str] = {}
        self.acked = 0
        self.mistakes: list[str] = []
        self.is_stopping = False
        self._rng = random.Random(3)
        assert server.token

    def run(self) -> None:
        while not self.is_stopping:
            with (
                contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError),
                self.server.connect() as client,
            ):
                self._session(client)

    def _connect_and_follow(self) -> None:
        with self.server.connect() as client:
            self._session(client)

    def _session(self, client: FeedClient) -> None:
        verdict = consume(client, "bot")
        if verdict["after"] < self.acked:
            self.mistakes.append(f"resumed at {verdict['after']}, acknowledged was {self.acked}")
        while not self.is_stopping:
            with contextlib.suppress(TimeoutError):
                frame = client.receive(timeout=0.2)
                if frame["type"] == "event":
                    self._handle(client, frame)
                elif frame["type"] == "acked":
                    self.acked = max(self.acked, frame["payload"]["seq"])

    def _handle(self, client: FeedClient, frame: dict[str, Any]) -> None:
        if frame["seq"] <= self.acked:
            self.mistakes.append(f"{frame['seq']} came again")
        self.seen[frame["seq"]] = frame["payload"]["id"]
        if self._rng.random() < 0.1:
            client.send(action="ack", seq=frame["seq"])


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_a_consumer_over_http_gets_the_same_events_until_it_acknowledges(server: Server) -> None:
    with server.http() as http:
        assert http.post("/api/consumers", json={"name": "cron"}).status_code == 201
        assert http.get("/api/feed", params={"consumer": "cron"}).json()["events"] == []
        server.log_event("a.b", "s")
        for _ in range(2):
            page = http.get("/api/feed", params={"consumer": "cron"}).json()
            assert [event["seq"] for event in page["events"]] == [1]
        answer = http.post("/api/consumers/cron/ack", json={"seq": page["cursor"], "epoch": page["epoch"]})
        assert (answer.status_code, answer.json()) == (200, {"seq": 1, "epoch": page["epoch"]})
        assert http.get("/api/feed", params={"consumer": "cron"}).json()["events"] == []


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("cron", {"seq": 5, "epoch": "?"}, 422),
        ("cron", {"seq": 1, "epoch": "other"}, 422),
        ("cron", {"seq": "1", "epoch": "?"}, 422),
        ("cron", {"seq": 1}, 422),
        ("cron", [], 400),
        ("nobody", {"seq": 0, "epoch": "?"}, 404),
    ],
)
def test_a_bad_ack_over_http_is_rejected(server: Server, name: str, body: Any, status: int) -> None:
    with server.http() as http:
        epoch = http.post("/api/consumers", json={"name": "cron"}).json()["epoch"]
        if isinstance(body, dict) and body.get("epoch") == "?":
            body = body | {"epoch": epoch}
        answer = http.post(f"/api/consumers/{name}/ack", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


# --- by the command line ----------------------------------------------------------------------------------------------


def test_commands_on_consumers_take_effect_on_connections(server: Server) -> None:
    assert server.token
    assert server.run("consumer", "add", "ops-bot", "--protected", "--owner", "token:tests").returncode == 0
    with server.connect() as client:
        consume(client, "ops-bot")
        server.log_event("a.b", "s")
        client.follow(2)  # the first is an audit event, which names the owner
        listed = server.run("consumer", "list", "--json").stdout
        assert '"lag": 2' in listed
        assert '"owner": "token:tests"' in listed
        assert '"is_protected": true' in listed
        assert server.run("consumer", "reset", "ops-bot").returncode == 0
        assert client.closed_with()[0] == 4009
    assert checkpoints(server.database) == {"ops-bot": 2}
    assert server.run("consumer", "remove", "ops-bot").returncode == 0
    assert server.run("consumer", "remove", "ops-bot").returncode == 1
    assert server.run("consumer", "add", "no good").returncode == 2
    assert checkpoints(server.database) == {}
