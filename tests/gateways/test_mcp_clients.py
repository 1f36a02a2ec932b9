"""The official Python client, over HTTP and stdio, also across `kill -9`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from outfeed.access.store import account
from outfeed.process import REQUESTS_AT_ONCE
from outfeed.store import database as db
from tests.event_loop import run_in_loop
from tests.gateways.test_mcp import BEFORE, CURRENT, message, repeated
from tests.page import change
from tests.server import Server
from tests.waits import wait_until

KILLS = 2
WAITS = 3 * REQUESTS_AT_ONCE  # the threads of requests stay, and those of the jobs
EVENTS = 30
OpenClient = Callable[[Server], AbstractAsyncContextManager[Client]]


@contextlib.asynccontextmanager
async def over_http(server: Server, token: str | None = None, mode: Any = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token or server.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=90, trust_env=False) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def over_stdio(server: Server, mode: Any = "auto") -> AsyncIterator[Client]:
    environment = {"OUTFEED_URL": server.url, "OUTFEED_TOKEN": server.token, "PATH": "/usr/bin:/bin"}
    command = StdioServerParameters(command=sys.executable, args=["-m", "outfeed", "mcp"], env=environment)
    with tempfile.TemporaryFile("w") as log:
        async with Client(stdio_client(command, errlog=log), mode=mode) as client:
            yield client


TRANSPORTS = {"http": over_http, "stdio": over_stdio}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Server(tmp_path_factory.mktemp("mcp")) as server:
        yield server


async def answer(client: Client, name: str, **arguments: Any) -> Any:
    """Return the structured answer of a tool, which the client has checked."""
    found = await client.call_tool(name, arguments)
    assert not found.is_error, found.content
    return found.structured_content


class TestTheClient:
    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    @pytest.mark.parametrize("open_client", TRANSPORTS.values(), ids=TRANSPORTS)
    def test_every_part_is_served_in_both_revisions(self, running: Server, open_client: Any, mode: str) -> None:
        async def use() -> None:
            async with open_client(running, mode=mode) as client:
                assert client.protocol_version == {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
                names = [tool.name for tool in (await client.list_tools()).tools]
                logged = await answer(client, "log_event", event_type="a.b", data="ü", id=f"{mode}-{id(open_client)}")
                found = await answer(client, "search_events", event_type="a.*", limit=1)
                uri = (await client.list_resources()).resources[0].uri
                templates = (await client.list_resource_templates()).resource_templates
                text = (await client.read_resource(uri)).contents[0].text
                refused = await client.call_tool("get_event", {"id": "none"})
                summary = await answer(client, "summary")
                with pytest.raises(MCPError, match="unknown tool 'none'"):
                    await client.call_tool("none", {})
            assert (names[0], names[-1]) == ("search_events", "log_event")
            assert found["events"][0]["id"] == logged["id"] == json.loads(text)["event"]["id"]
            assert templates[0].uri_template == "outfeed://events/{id}"
            assert (refused.is_error, refused.content[0].text) == (True, "no event with the id 'none'")
            assert summary["summary"]["a.b"] >= 1

        run_in_loop(use())

    def test_a_wait_ends_with_the_first_event_and_holds_a_place_of_connections(self, tmp_path: Path) -> None:
        async def use(server: Server) -> None:
            found: list[Any] = []

            async def wait(client: Client) -> None:
                found.append(await answer(client, "wait_for_events", types=["b.*"], wait=50))

            async with over_http(server) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(wait, client)
                await until_a_wait_is_open(server)
                refused = await client.call_tool("wait_for_events", {"wait": 1})
                read = await answer(client, "wait_for_events", wait=0)
                await answer(client, "log_event", event_type="a.other")
                await answer(client, "log_event", event_type="b.wanted", id="wanted")
            assert [event["id"] for event in found[0]["events"]] == ["wanted"]
            assert found[0]["verdict"] == "live"
            assert refused.content[0].text == "too many connections; try again in 5 s"
            assert read["verdict"] == "live"

        with Server(tmp_path, max_connections=1) as server:
            run_in_loop(use(server))

    def test_a_token_that_is_revoked_during_a_wait_gets_no_event(self, running: Server) -> None:
        database = db.at(running.database)
        secret = account.create_token(database, "brief", ["read"])

        async def use() -> None:
            async with over_http(running, secret) as client:
                found: list[Any] = []

                async def wait() -> None:
                    try:
                        found.append(await client.call_tool("wait_for_events", {"types": ["late.*"], "wait": 50}))
                    except MCPError as error:
                        found.append(error)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    await until_a_wait_is_open(running)
                    account.revoke_token(database, "brief")
                    await anyio.to_thread.run_sync(running.log_event, "late.event", "s")
            assert isinstance(found[0], MCPError), found

        run_in_loop(use())
        database.close()

    def test_another_log_ends_a_wait_without_a_cursor_with_a_reset(self, running: Server) -> None:
        async def use() -> None:
            async with over_http(running) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(end_the_log, running)
                found = await answer(client, "wait_for_events", wait=50)
            assert (found["verdict"], found["events"]) == ("reset", [])

        run_in_loop(use())


async def end_the_log(server: Server) -> None:
    await until_a_wait_is_open(server)
    change(server.database, "UPDATE outfeed_meta SET value = 'another' WHERE key = 'epoch'")


async def until_a_wait_is_open(server: Server, waits: int = 1) -> None:
    def count() -> bool:
        return sum(server.counted("outfeed_clients", transport="poll", state="waiting").values()) == waits

    await anyio.to_thread.run_sync(wait_until, count, "the waits are open")


def test_waits_of_both_kinds_hold_no_thread_and_all_get_the_event(tmp_path: Path) -> None:
    with Server(tmp_path, max_connections=WAITS) as server:
        run_in_loop(wait_together(server))


async def wait_together(server: Server) -> None:
    headers, limits = {"Authorization": f"Bearer {server.token}"}, httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, limits=limits, timeout=90, trust_env=False
    ) as http:

        async def ask(method: str, version: str, **params: Any) -> str:
            told = repeated(method, version, params)
            body, named = message(method, version, **params), {name.replace("_", "-"): told[name] for name in told}
            return (await http.post("/mcp", json=body, headers=named)).text

        first = json.loads(await ask("events/poll", CURRENT, name="event.logged"))["result"]
        before = server.threads()
        tool = {"name": "wait_for_events", "arguments": {"types": ["b.*"], "wait": 50}}
        poll = {"name": "event.logged", "cursor": first["cursor"], "arguments": {"types": ["b.*"]}, "timeoutMs": 50_000}
        kinds = [("tools/call", BEFORE, tool), ("events/poll", CURRENT, poll)] * (WAITS // 2)
        answers = [asyncio.create_task(ask(method, version, **params)) for method, version, params in kinds]
        await until_a_wait_is_open(server, WAITS)
        assert server.threads() - before < WAITS
        await anyio.to_thread.run_sync(server.log_event, "b.wanted", "s")
        assert ["b.wanted" in found for found in await asyncio.gather(*answers)] == [True] * WAITS


# --- across kills -----------------------------------------------------------------------------------------------------


class Exchange:
    """A writer of events and a follower of the feed.

    Each call is repeated until it succeeds, as an agent repeats it. A client that ends with its connection is opened
    again. The work begins when the clients of both are open.
    """

    def __init__(self, server: Server, open_client: OpenClient) -> None:
        self._server = server
        self._open_client = open_client
        self.written: list[str] = []
        self.seen: list[str] = []
        self.verdicts: set[str] = set()
        self.failures = 0
        self.clients = 0
        self._are_open = anyio.Event()
        self.place: dict[str, Any] = {}

    async def run(self) -> None:
        async with self._open_client(self._server) as client:
            self._move(await answer(client, "wait_for_events", wait=0))
        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._persist, self._write, self.written)
                tasks.start_soon(self._persist, self._follow, self.seen)
                tasks.start_soon(anyio.to_thread.run_sync, self._kill)

    async def _persist(self, work: Callable[[Client], Awaitable[None]], done: list[str]) -> None:
        while len(done) < EVENTS:
            try:
                async with self._open_client(self._server) as client:
                    self.clients += 1
                    if self.clients == 2:
                        self._are_open.set()
                    await self._are_open.wait()
                    while len(done) < EVENTS:
                        try:
                            await work(client)
                        except MCPError:
                            self.failures += 1
                            await anyio.to_thread.run_sync(wait_until, self._answers, "the server answers", 60)
            except* (MCPError, httpx2.HTTPError):
                self.failures += 1

    def _answers(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self._server.url}/healthz", trust_env=False).is_success
        return False

    async def _write(self, client: Client) -> None:
        number = len(self.written)
        receipt = await answer(client, "log_event", event_type="step.done", data={"n": number}, id=f"n{number}")
        self.written.append(receipt["id"])

    async def _follow(self, client: Client) -> None:
        page = await answer(client, "wait_for_events", types=["step.*"], wait=5, limit=4, **self.place)
        self.seen += [event["id"] for event in page["events"]]
        self.verdicts.add(page["verdict"])
        self._move(page)

    def _move(self, page: dict[str, Any]) -> None:
        self.place = {"after": page["cursor"], "epoch": page["epoch"]}

    def _kill(self) -> None:
        for number in range(1, KILLS + 1):
            goal = number * EVENTS // (KILLS + 1)
            wait_until(lambda goal=goal: len(self.written) >= goal, "events are written", timeout=60)  # type: ignore[misc]
            self._server.kill()
            self._server.start()


@pytest.mark.parametrize("open_client", TRANSPORTS.values(), ids=TRANSPORTS)
def test_nothing_is_lost_and_nothing_comes_twice_across_kills(tmp_path: Path, open_client: OpenClient) -> None:
    expected = [f"n{number}" for number in range(EVENTS)]
    with Server(tmp_path) as server:
        exchange = Exchange(server, open_client)
        run_in_loop(exchange.run())
        with contextlib.closing(sqlite3.connect(server.database)) as raw:
            rows = raw.execute("SELECT id FROM event_log WHERE event_type = 'step.done' ORDER BY rowid").fetchall()

    assert exchange.failures, "a kill met a request"
    assert exchange.seen == exchange.written == expected
    assert [each for (each,) in rows] == expected
    assert exchange.verdicts == {"resumed"}
    if open_client is over_stdio:
        assert exchange.clients == 2, "the command continues after a restart of the server"


# --- the command ------------------------------------------------------------------------------------------------------


def bridge(url: str, token: str, lines: str) -> subprocess.CompletedProcess[str]:
    environment = {"OUTFEED_URL": url, "OUTFEED_TOKEN": token, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "outfeed", "mcp"]
    return subprocess.run(
        command, input=lines, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


PING = '{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


class TestTheCommand:
    def test_stdout_has_only_messages_and_errors_say_what_to_do(self, running: Server) -> None:
        lines = f'{PING}\n\nnot json\n[]\n{{"jsonrpc":"2.0","method":"notifications/x"}}\n'
        done = bridge(running.url, running.token, lines)

        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert {"jsonrpc": "2.0", "id": 1, "result": {}} in found
        assert sorted(each["error"]["code"] for each in found if "error" in each) == [-32700, -32600]
        assert "the line is not JSON" in done.stderr

    def test_a_wrong_token_and_an_absent_server_are_clear_errors(self, running: Server) -> None:
        refused = json.loads(bridge(running.url, "outfeed_wrong", PING).stdout)
        absent = bridge("http://127.0.0.1:9", "outfeed_wrong", PING)

        assert refused["error"]["message"] == "this token is unknown, expired or revoked"
        assert refused["error"]["data"] == {"status": 401}
        told = json.loads(absent.stdout)["error"]["message"]
        assert told.startswith("Outfeed at http://127.0.0.1:9 does not answer (")
        assert told.endswith("start it, or check OUTFEED_URL")
        assert told in absent.stderr

    def test_an_answer_that_can_not_be_decoded_is_an_error_of_its_request(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer() -> None:
                with listening.accept()[0] as connected:
                    connected.recv(65_536)
                    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk")

            thread = threading.Thread(target=answer)
            thread.start()
            done = bridge(f"http://127.0.0.1:{listening.getsockname()[1]}", "outfeed_x", PING)
            thread.join()
        assert json.loads(done.stdout)["id"] == 1
        assert "Traceback" not in done.stderr
