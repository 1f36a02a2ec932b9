"""A consumer belongs to one principal: every transport rejects others."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from outfeed.access.store import account, user
from outfeed.client import Client, ConsumerSuperseded
from outfeed.store import database as db
from tests.clients import FeedClient
from tests.server import Server

FORBIDDEN = "forbidden_consumer"
TOKENS = {"owner": ["read"], "writer": ["read", "write"], "admin": ["admin"]}


class Cast(NamedTuple):
    """A server and the headers of each visitor.

    `namesake` is a user with the name of the token `owner`.
    """

    server: Server
    headers: dict[str, dict[str, str]]
    numbers: Iterator[int]

    def http(self, who: str) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, headers=self.headers[who], timeout=30, verify=False)

    def connect(self, who: str) -> FeedClient:
        return FeedClient(self.server.url, None, headers=self.headers[who])

    def checkpoint(self, name: str) -> tuple[int, int, str | None]:
        with contextlib.closing(sqlite3.connect(self.server.database)) as raw:
            query = "SELECT seq, generation, owner FROM outfeed_checkpoint WHERE name = ?"
            return raw.execute(query, (name,)).fetchone()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    with Server(tmp_path_factory.mktemp("owner")) as server:
        database = db.at(server.database)
        secrets = {name: account.create_token(database, name, scopes) for name, scopes in TOKENS.items()}
        headers = {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
        user.add(database, "owner", "viewer")
        key = account.create_session(database, "owner", account.CODE_LIFETIME)
        database.close()
        cookies = {"namesake": server.cookie(key), "operator": server.session}
        own_page = {"Sec-Fetch-Site": "same-origin"}
        headers |= {name: {"Cookie": f"{server.cookie_name}={cookie}", **own_page} for name, cookie in cookies.items()}
        yield Cast(server, headers, itertools.count())


@pytest.fixture
def name(cast: Cast) -> str:
    return f"consumer-{next(cast.numbers)}"


# --- each transport: returns the code of the refusal, or "" -----------------------------------------------------------


def by_websocket(cast: Cast, who: str, name: str) -> str:
    with cast.connect(who) as client:
        client.send(action="subscribe", channel="events", consumer=name)
        return code_in(client.receive())


def by_frame(cast: Cast, who: str, name: str) -> str:
    """Acknowledge by a frame. Without a claim the frame can move no consumer."""
    with cast.connect(who) as client:
        client.send(action="subscribe", channel="events", consumer=name)
        if refused := code_in(client.receive()):
            client.subscribe()
        client.send(action="ack", seq=cast.checkpoint(name)[0])
        assert code_in(client.receive()) == ("no_consumer" if refused else "")
        return refused


def code_in(frame: dict[str, Any]) -> str:
    return str(frame["payload"]["code"]) if frame["type"] == "error" else ""


def by_stream(cast: Cast, who: str, name: str) -> str:
    with cast.http(who) as http, http.stream("GET", "/api/feed/stream", params={"consumer": name}) as answer:
        if answer.status_code == 200:
            assert next(answer.iter_lines())
            return ""
        answer.read()
        return code_of(answer)


def by_poll(cast: Cast, who: str, name: str) -> str:
    with cast.http(who) as http:
        return code_of(http.get("/api/feed", params={"consumer": name}))


def by_long_poll(cast: Cast, who: str, name: str) -> str:
    with cast.http(who) as http:
        return code_of(http.get("/api/feed", params={"consumer": name, "wait": 0.2}))


def by_post(cast: Cast, who: str, name: str) -> str:
    with cast.http(who) as http:
        if "Cookie" in cast.headers[who]:  # sent by a form or a script of Outfeed's page
            page = http.get("/swarm/live")
            http.headers["X-CSRFToken"] = re.findall(r'name="csrf_token" value="([^"]+)"', page.text)[0]
            http.headers["Cookie"] = page.headers["Set-Cookie"].partition(";")[0]
        seq, *_ = cast.checkpoint(name)
        epoch = http.get("/api/feed").json()["epoch"]
        return code_of(http.post(f"/api/consumers/{name}/ack", json={"seq": seq, "epoch": epoch}))


def code_of(answer: httpx.Response) -> str:
    assert answer.status_code in (200, 403), answer.text
    return "" if answer.status_code == 200 else str(answer.json().get("code", answer.json()["detail"]))


Use = Callable[[Cast, str, str], str]
WAYS: list[Use] = [by_websocket, by_frame, by_stream, by_poll, by_long_poll, by_post]
ways = pytest.mark.parametrize("use", WAYS, ids=lambda use: use.__name__)


@ways
@pytest.mark.parametrize("who", ["owner", "admin", "operator"])
def test_the_owner_and_operators_can_use_a_consumer(cast: Cast, name: str, use: Use, who: str) -> None:
    with cast.http("owner") as http:
        http.post("/api/consumers", json={"name": name})
    assert use(cast, who, name) == ""
    assert cast.checkpoint(name)[2] == "token:owner"


@ways
@pytest.mark.parametrize("who", ["writer", "namesake"])
def test_other_principals_are_rejected_and_the_owner_stays_connected(cast: Cast, name: str, use: Use, who: str) -> None:
    with cast.connect("owner") as holder:
        holder.subscribe(consumer=name)
        before = cast.checkpoint(name)

        assert use(cast, who, name) == FORBIDDEN

        assert cast.checkpoint(name) == before
        with cast.http("writer") as http:
            seq = http.post("/api/events", json={"event_type": "a.b", "source": "s"}).json()["seq"]
        assert holder.next_event()["seq"] == seq
        holder.send(action="ack", seq=seq)
        assert holder.receive() == {"type": "acked", "payload": {"seq": seq}}


def test_a_ticket_of_the_owner_is_rejected_and_the_owner_stays_connected(cast: Cast, name: str) -> None:
    with cast.http("owner") as http, cast.connect("owner") as holder:
        holder.subscribe(consumer=name)
        ticket = http.post("/api/tickets").json()["ticket"]
        with FeedClient(f"{cast.server.url}/ws?ticket={ticket}", None) as page:
            page.send(action="subscribe", channel="events", consumer=name)
            assert code_in(page.receive()) == FORBIDDEN
            page.subscribe()
        holder.send(action="ping")
        assert holder.receive()["type"] == "pong"


def test_a_rejected_claim_keeps_the_connections_subscription(cast: Cast, name: str) -> None:
    with cast.connect("owner") as holder, cast.connect("writer") as other:
        holder.subscribe(consumer=name)
        other.subscribe(consumer=f"{name}-other")
        other.send(action="subscribe", channel="events", consumer=name)
        assert code_in(other.receive()) == FORBIDDEN
        other.send(action="ack", seq=0)
        assert other.receive()["type"] == "acked"


def test_a_foreign_ack_does_not_allow_pruning(cast: Cast, name: str) -> None:
    """The owner's acknowledgements of a protected consumer limit pruning."""
    server = cast.server
    assert server.run("consumer", "add", name, "--protected", "--owner", "token:owner").returncode == 0
    first = cast.checkpoint(name)[0] + 1
    for _ in range(3):
        server.log_event("kept.event", "s")
    with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
        raw.execute("UPDATE outbox SET created_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-10 days')")
    head = first + 3

    def prune() -> int:
        done = server.run("prune", "--older-than-days", "1")
        assert done.returncode == 0, done.stderr
        with contextlib.closing(sqlite3.connect(server.database)) as raw:
            return int(raw.execute("SELECT min(seq) FROM outbox").fetchone()[0])

    with cast.http("writer") as http:
        epoch = http.get("/api/feed").json()["epoch"]
        answer = http.post(f"/api/consumers/{name}/ack", json={"seq": head, "epoch": epoch})
        assert (answer.status_code, answer.json()["code"]) == (403, FORBIDDEN)
    assert prune() <= first
    with cast.http("owner") as http:
        page = http.get("/api/feed", params={"consumer": name}).json()
        assert [event["event_type"] for event in page["events"]] == ["kept.event"] * 3
        body = {"seq": page["cursor"], "epoch": epoch}
        assert http.post(f"/api/consumers/{name}/ack", json=body).status_code == 200
    assert prune() > first


def test_a_consumer_keeps_its_owner_when_the_token_is_rotated(cast: Cast, name: str) -> None:
    def rotate() -> dict[str, str]:
        made = cast.server.run("token", "create", f"rotated {name}", "--scopes", "read")
        assert made.returncode == 0, made.stderr
        return {"Authorization": f"Bearer {made.stdout.strip()}"}

    with httpx.Client(base_url=cast.server.url, headers=rotate(), verify=False) as http:
        assert http.post("/api/consumers", json={"name": name}).status_code == 201
    assert cast.server.run("token", "revoke", f"rotated {name}").returncode == 0
    with httpx.Client(base_url=cast.server.url, headers=rotate(), verify=False) as http:
        assert http.get("/api/feed", params={"consumer": name}).status_code == 200


def test_a_changed_owner_ends_the_connection_and_the_next_claim_is_rejected(cast: Cast, name: str) -> None:
    with cast.connect("owner") as holder:
        holder.subscribe(consumer=name)
        assert cast.server.run("consumer", "own", name, "token:writer").returncode == 0
        assert holder.closed_with()[0] == 4009
    assert by_websocket(cast, "owner", name) == FORBIDDEN
    assert by_websocket(cast, "writer", name) == ""


def test_the_python_client_reports_a_superseded_consumer(cast: Cast, name: str) -> None:
    token = cast.headers["owner"]["Authorization"].removeprefix("Bearer ")
    with cast.connect("owner") as newer:

        def take_over(_: str) -> None:
            newer.subscribe(consumer=name)

        with (
            Client(cast.server.url, token).follow(consumer=name, on_connection=take_over) as follow,
            pytest.raises(ConsumerSuperseded, match="taken over"),
        ):
            next(follow)
