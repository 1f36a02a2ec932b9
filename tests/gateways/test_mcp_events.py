"""The extension for events: list, poll and stream over the feed's cursor."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outfeed import log_event
from outfeed.access.store import account
from outfeed.store import database as db
from outfeed.store.database import Database
from tests.app_fixtures import Api
from tests.gateways.test_mcp import CURRENT, META, Mcp, message, repeated, with_token
from tests.server import Server, writer
from tests.waits import PATIENCE_SECS, wait_until

NAME = "event.logged"
INVALID_PARAMS, NOT_FOUND, FORBIDDEN, EXHAUSTED, UNSUPPORTED = -32602, -32011, -32012, -32013, -32014


@pytest.fixture
def mcp(api: Api) -> Mcp:
    return Mcp(api)


def poll(client: Mcp, **params: Any) -> Any:
    answer = client.call("events/poll", CURRENT, **{"name": NAME, **params}).json
    return answer.get("result") or answer["error"]


def ids(found: Any) -> list[str]:
    return [event["eventId"] for event in found["events"]]


class TestPoll:
    def test_the_list_has_one_type_with_the_filters_of_the_feed(self, mcp: Mcp) -> None:
        assert mcp.call("server/discover", CURRENT).json["result"]["capabilities"]["events"] == {}
        (event,) = mcp.call("events/list", CURRENT).json["result"]["events"]

        assert (event["name"], event["delivery"]) == (NAME, ["poll", "push"])
        assert list(event["inputSchema"]["properties"]) == ["types", "source", "task_id", "agent_id"]
        assert {"id", "event_type", "data"} <= set(event["payloadSchema"]["properties"])
        assert "untrusted" in event["description"]

    def test_a_poll_without_a_cursor_starts_from_now_and_the_next_one_continues(self, mcp: Mcp) -> None:
        log_event("a.old", "s")
        first = poll(mcp, cursor=None)
        for number in range(3):
            log_event("a.b", "s", "t", "a", {"n": number}, id=f"e{number}")
        page = poll(mcp, cursor=first["cursor"], maxEvents=2)
        rest = poll(mcp, cursor=page["cursor"])

        assert (first["events"], first["truncated"]) == ([], False)
        assert (ids(page), page["hasMore"], ids(rest), rest["hasMore"]) == (["e0", "e1"], True, ["e2"], False)
        occurrence = page["events"][1]
        assert (occurrence["name"], occurrence["data"]["data"], occurrence["data"]["task_id"]) == (NAME, {"n": 1}, "t")
        assert occurrence["timestamp"] == occurrence["data"]["timestamp"]
        assert page["nextPollMs"] > 0

    def test_arguments_and_the_types_of_the_token_select_events(self, api: Api, database: Database) -> None:
        log_event("task.a", "one", id="1")
        log_event("task.b", "two", id="2")
        log_event("secret.a", "one", id="3")
        client = with_token(api, database, "read", types=("task.*",))
        start = poll(client)["cursor"].rpartition(":")[0] + ":0"

        assert ids(poll(client, cursor=start)) == ["1", "2"]
        assert ids(poll(client, cursor=start, arguments={"source": "one"})) == ["1"]
        assert ids(poll(client, cursor=start, arguments={"types": ["secret.*", "task.b"]})) == ["2"]

    def test_a_cursor_that_cannot_be_honoured_is_told(self, mcp: Mcp, database: Database) -> None:
        for number in range(4):
            log_event("a.b", "s", id=f"e{number}")
        epoch = poll(mcp)["cursor"].rpartition(":")[0]
        with database.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE seq <= 2")
        gap, reset = poll(mcp, cursor=f"{epoch}:1"), poll(mcp, cursor="other:1")

        assert (ids(gap), gap["truncated"]) == (["e2", "e3"], True)
        assert (ids(reset), reset["truncated"], reset["cursor"]) == ([], True, f"{epoch}:4")
        assert poll(mcp, cursor=f"{epoch}:2")["truncated"] is False

    def test_events_older_than_the_client_wants_are_left_out_and_told(self, mcp: Mcp) -> None:
        log_event("a.b", "s", id="old", timestamp="2020-01-01T00:00:00Z")
        log_event("a.b", "s", id="new")
        start = poll(mcp)["cursor"].rpartition(":")[0] + ":0"
        found = poll(mcp, cursor=start, maxAgeMs=60_000)

        assert (ids(found), found["truncated"]) == (["new"], True)

    def test_the_largest_age_leaves_out_no_event(self, mcp: Mcp) -> None:
        log_event("a.b", "s", id="old", timestamp="2020-01-01T00:00:00Z")
        start = poll(mcp)["cursor"].rpartition(":")[0] + ":0"
        assert ids(poll(mcp, cursor=start, maxAgeMs=2**53)) == ["old"]

    @pytest.mark.parametrize(
        ("params", "code"),
        [
            ({"name": "email.received"}, NOT_FOUND),
            ({"cursor": "5"}, INVALID_PARAMS),
            ({"cursor": "a:b"}, INVALID_PARAMS),
            ({"cursor": f"a:{2**64}"}, INVALID_PARAMS),
            ({"arguments": {"text": "x"}}, INVALID_PARAMS),
            ({"arguments": {"types": ["*"]}}, INVALID_PARAMS),
            ({"arguments": []}, INVALID_PARAMS),
            ({"maxEvents": 0}, INVALID_PARAMS),
            ({"timeoutMs": -1}, INVALID_PARAMS),
        ],
    )
    @pytest.mark.parametrize("method", ["events/poll", "events/stream"])
    def test_an_invalid_subscription_is_an_error(
        self, mcp: Mcp, method: str, params: dict[str, Any], code: int
    ) -> None:
        if method == "events/stream" and set(params) & {"maxEvents", "timeoutMs"}:
            params = {"maxAgeMs": -1}
        assert mcp.error(method, CURRENT, **{"name": NAME, **params})[1] == code

    def test_a_token_that_may_only_write_gets_no_events(self, api: Api, database: Database) -> None:
        client = with_token(api, database, "write")
        assert client.call("events/list", CURRENT).json["result"]["events"] == []
        assert poll(client)["code"] == FORBIDDEN
        assert client.error("events/stream", CURRENT, name=NAME)[1] == FORBIDDEN
        assert Mcp(api).error("events/stream", CURRENT, name=NAME, maxAgeMs=5)[1] == UNSUPPORTED


# --- streams ----------------------------------------------------------------------------------------------------------


class Stream:
    """One `events/stream`, and what came on it."""

    def __init__(self, server: Server, token: str | None = None, cursor: str | None = None, **arguments: Any) -> None:
        params = {"name": NAME, "cursor": cursor, "arguments": arguments}
        headers = {name.replace("_", "-"): value for name, value in repeated("events/stream", CURRENT, {}).items()}
        headers["Authorization"] = f"Bearer {token or server.token}"
        self._open = contextlib.ExitStack()
        http = self._open.enter_context(httpx.Client(timeout=PATIENCE_SECS, trust_env=False))
        self.response = self._open.enter_context(
            http.stream("POST", f"{server.url}/mcp", json=message("events/stream", CURRENT, **params), headers=headers)
        )
        self._lines = self.response.iter_lines()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield each message until the stream ends."""
        for line in self._lines:
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def next(self, name: str) -> dict[str, Any]:
        """Return the params of the next notification of that name."""
        found = next(each for each in self.messages() if each.get("method") == f"notifications/events/{name}")
        assert found["params"]["_meta"] == {f"{META}subscriptionId": 7}
        params: dict[str, Any] = found["params"]
        return params


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("events"), heartbeat_secs=0.2) as server:
        yield server


class TestStream:
    def test_a_stream_begins_with_its_cursor_and_has_events_and_heartbeats(self, running: Server) -> None:
        with Stream(running, types=["x.*"]) as stream:
            active = stream.next("active")
            running.log_event("y.other", "s")
            running.log_event("x.wanted", "s", {"text": "two\nlines"})
            event = stream.next("event")
            beat = stream.next("heartbeat")

        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert (active["truncated"], event["data"]["event_type"]) == (False, "x.wanted")
        assert event["data"]["data"] == {"text": "two\nlines"}
        assert event["eventId"] == event["data"]["id"]
        assert event["cursor"] == beat["cursor"] != active["cursor"]

    def test_a_stream_of_a_revoked_token_is_terminated(self, running: Server) -> None:
        database = db.at(running.database)
        with Stream(running, account.create_token(database, "brief", ["read"])) as stream:
            stream.next("active")
            account.revoke_token(database, "brief")
            terminated = stream.next("terminated")
            (end,) = stream.messages()
        database.close()

        assert terminated["error"]["code"] == FORBIDDEN
        assert (end["id"], end["result"]["_meta"]) == (7, {})

    def test_streams_and_waiting_polls_count_as_connections(self, tmp_path: Path) -> None:
        with Server(tmp_path, max_connections=1) as server, Stream(server) as first:
            cursor = first.next("active")["cursor"]
            with Stream(server) as second:
                second.response.read()
                assert second.response.json()["error"]["code"] == EXHAUSTED
            params = {"name": NAME, "cursor": cursor, "timeoutMs": 5000}
            headers = {name.replace("_", "-"): each for name, each in repeated("events/poll", CURRENT, {}).items()}
            with server.http() as http:
                answer = http.post("/mcp", json=message("events/poll", CURRENT, **params), headers=headers)
        assert answer.json()["error"]["data"] == {"limit": "connections"}

    def test_a_poll_waits_for_the_first_event(self, running: Server) -> None:
        with Stream(running) as stream:
            cursor = stream.next("active")["cursor"]
        params = {"name": NAME, "cursor": cursor, "timeoutMs": 60_000, "arguments": {"types": ["waited.*"]}}
        headers = {name.replace("_", "-"): each for name, each in repeated("events/poll", CURRENT, {}).items()}
        log = threading.Timer(0.2, running.log_event, ("waited.for", "s"))
        with running.http() as http:
            log.start()
            found = http.post("/mcp", json=message("events/poll", CURRENT, **params), headers=headers).json()["result"]
            log.join()

        assert [event["data"]["event_type"] for event in found["events"]] == ["waited.for"]

    def test_a_client_that_resumes_by_cursor_gets_every_event_once_across_kills(self, tmp_path: Path) -> None:
        seen: list[str] = []
        with Server(tmp_path) as server, writer(server.database, 100) as written:
            with Stream(server) as stream:
                cursor = first = stream.next("active")["cursor"]
            for goal in (20, 40, 60):
                with Stream(server, cursor=cursor) as stream, contextlib.suppress(httpx.TransportError):
                    for each in stream.messages():
                        params = each["params"]
                        cursor = params["cursor"]
                        seen += [params["eventId"]] if each["method"].endswith("/event") else []
                        if len(seen) >= goal:
                            break
                    if goal < 60:  # while the stream is open
                        server.kill()
                        server.start()
        assert cursor != first
        assert seen == written[written.index(seen[0]) :][: len(seen)]
        assert len(seen) >= 60


class TestStdio:
    def test_the_command_forwards_notifications_until_the_client_cancels(self, running: Server) -> None:
        environment = {"OUTFEED_URL": running.url, "OUTFEED_TOKEN": running.token, "PATH": "/usr/bin:/bin"}
        with subprocess.Popen(
            [sys.executable, "-m", "outfeed", "mcp"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            send, lines = process.stdin.write, iter(process.stdout)
            send(json.dumps(message("events/stream", CURRENT, name=NAME, arguments={"types": ["c.*"]})) + "\n")
            assert json.loads(next(lines))["method"] == "notifications/events/active"
            running.log_event("c.first", "s", "one\u2028line\x85 of text")
            event = next(each for each in map(json.loads, lines) if each["method"].endswith("/event"))
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
            send(json.dumps(cancel) + "\n")
            wait_until(lambda: not self._streams(running), "the stream has ended")
            running.log_event("c.second", "s")
            send(json.dumps({**message("ping"), "id": 8}) + "\n")
            last = next(
                each for each in map(json.loads, lines) if "method" not in each or each["method"].endswith("event")
            )
            process.stdin.close()
            assert process.wait(PATIENCE_SECS) == 0

        found = event["params"]["data"]
        assert (found["event_type"], found["data"]) == ("c.first", "one\u2028line\x85 of text")
        assert last == {"jsonrpc": "2.0", "id": 8, "result": {}}

    def _streams(self, server: Server) -> float:
        return sum(server.counted("outfeed_clients", transport="stream").values())
