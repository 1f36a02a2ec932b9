"""The checks of `outfeed verify`.

A good server passes, and each planted fault is found.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from outfeed.verify import server as server_module
from outfeed.verify.checks import CHECKS, Transport
from outfeed.verify.destructive import check_kill, check_prune, check_restore
from outfeed.verify.results import Result, result_of
from outfeed.verify.server import EVENT_TYPE, MAX_EVENTS, VerifiedServer
from outfeed.verify.transports import TRANSPORTS
from tests.engines import cluster
from tests.server import Server
from tests.verify.faulty_proxy import FAULTS, FaultyProxy
from tests.waits import wait_until

PATIENCE_SECS = 2.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("verified")) as found:
        yield found


def first_breach(target: VerifiedServer, transport: Transport) -> Result | None:
    """Run the checks over *transport* until one finds a breach."""
    for each in CHECKS:
        if transport in each.transports:
            result = result_of(each.title, each.sentences, transport, lambda: each.run(target, transport))  # noqa: B023
            if result.breach:
                return result
    return None


def test_a_good_server_keeps_the_protocol_and_nothing_is_left_but_probes(running: Server) -> None:
    with FaultyProxy(running, "none") as proxy:
        done = subprocess.run(
            [sys.executable, "-m", "outfeed", "verify", proxy.url, "--json"],
            check=False, env=running.environment | {"OUTFEED_TOKEN": running.token}, capture_output=True, timeout=120,
        )  # fmt: skip
    results = json.loads(done.stdout)
    assert [each for each in results if each["breach"]] == []
    assert done.returncode == 0
    assert {each["transport"] for each in results} == {each.transport for each in TRANSPORTS}
    assert json.loads(running.run("consumer", "list", "--json").stdout) == []
    with running.http() as http:
        events = http.get("/api/events", params={"limit": 1000}).json()["events"]
    assert {each["event_type"] for each in events} == {EVENT_TYPE}
    assert len(events) <= MAX_EVENTS


def test_an_edge_keeps_the_protocol_with_what_it_serves(tmp_path: Path) -> None:
    with cluster(tmp_path, edges=1, heartbeat_secs=1) as (_, origin, [edge]):
        token = {"Authorization": f"Bearer {origin.token}"}
        with httpx.Client(base_url=edge.url, headers=token, trust_env=False) as http:
            wait_until(lambda: http.get("/api/feed").status_code == 200, "the edge knows the token")
        with ThreadPoolExecutor(len(TRANSPORTS)) as pool:
            results = list(pool.map(functools.partial(results_over, edge.url, origin.token), TRANSPORTS))
    assert [each for each in itertools.chain(*results) if each.breach] == []


def results_over(url: str, token: str, transport: Transport) -> list[Result]:
    """Run every check that an edge can serve over *transport*."""
    target = VerifiedServer(url, token)
    try:
        return [
            result_of(each.title, each.sentences, transport, functools.partial(each.run, target, transport))
            for each in CHECKS
            if transport in each.transports and not each.needs_origin
        ]
    finally:
        target.close()
        assert target.is_copy


@pytest.fixture(scope="module")
def breaches(running: Server) -> Iterator[dict[tuple[str, str], Future[Result | None]]]:
    """The first breach of each transport with each fault.

    They are looked for at once, because each search waits for most of its time.
    """
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(TRANSPORTS) * len(FAULTS)) as pool:
        patch.setattr(server_module, "PATIENCE_SECS", PATIENCE_SECS)
        yield {
            (transport.transport, fault): pool.submit(breach_with, running, transport, fault)
            for fault, transport in itertools.product(FAULTS, TRANSPORTS)
        }


def breach_with(running: Server, transport: Transport, fault: str) -> Result | None:
    with FaultyProxy(running, fault, delay_secs=2 * PATIENCE_SECS) as proxy:
        target = VerifiedServer(proxy.url, running.token)
        try:
            return first_breach(target, transport)
        finally:
            target.close()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda each: each.transport)
def test_a_faulty_message_on_any_transport_is_found(
    breaches: dict[tuple[str, str], Future[Result | None]], transport: Transport, fault: str
) -> None:
    found = breaches[transport.transport, fault].result()
    assert found is not None
    assert found.breach.partition(":")[0] in ("E1", "E2", "E4")


def test_a_prune_a_restore_and_a_kill_keep_the_protocol(server: Server, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    target = VerifiedServer(server.url, server.token)

    def kill_and_restart() -> None:
        server.kill()
        server.start()

    try:
        target.write(1)
        assert server.run("backup", str(backup)).returncode == 0
        results = check_kill(target, kill_and_restart)
        results += check_prune(target, lambda: prune_everything(server))
        results += check_restore(target, lambda: restore(server, backup))
    finally:
        target.close()
    assert [each for each in results if each.breach] == []
    assert len(results) == 4 * len(TRANSPORTS)


def prune_everything(server: Server) -> None:
    """Remove all events from the window, as retention does later."""
    with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
        raw.execute("DELETE FROM outbox")


def restore(server: Server, backup: Path) -> None:
    assert server.run("restore", str(backup)).returncode == 0
