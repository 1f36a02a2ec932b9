"""Two edges over everything that fails.

No event is lost or comes twice, and only a dead edge's sockets are closed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from outfeed.access.store import account
from outfeed.client import Client
from outfeed.store import database as db
from tests.audience import Audience
from tests.clients import FeedClient
from tests.database_file import epoch_of, head_of, write_events
from tests.engines import EVENTS, GRANTS, HEAD, Edge, RedisServer, caught_up
from tests.server import Server, hidden_fields, writer
from tests.waits import wait_until

RATE = 100
KEPT = 1000
_numbers = itertools.count()
# The grants last for 6 s after the last write of the origin.
SETTINGS = {"heartbeat_secs": 0.3, "engine_events": KEPT, "grant_minutes": 0.1}


class Cluster(NamedTuple):
    engine: RedisServer
    origin: Server
    edges: list[Edge]

    @property
    def database(self) -> Path:
        return self.origin.database

    def settle(self) -> None:
        """Wait until every part is as it was before a test."""
        caught_up(self.engine, self.database, timeout=30)
        wait_until(lambda: self.engine.client.hexists(GRANTS, "_"), "grants are there")
        wait_until(lambda: all(status(edge) == 200 for edge in self.edges), "edges ready")


def status(server: Server, path: str = "/readyz") -> int:
    with httpx.Client(trust_env=False, timeout=10) as http, contextlib.suppress(httpx.TransportError):
        return http.get(server.url + path).status_code
    return 0


def poll_with(server: Server, secret: str) -> int:
    """Return the status of a poll with the token *secret*."""
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.get(f"{server.url}/api/feed", headers=headers, trust_env=False, timeout=10).status_code


def handshake(server: Server) -> int:
    """Return the status with which a new viewer is received."""
    try:
        with server.connect(open_timeout=10):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("edges")
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(RedisServer(folder))
        origin = stack.enter_context(Server(folder, engine=engine.url, **SETTINGS))
        edges = [stack.enter_context(Edge(origin, engine, f"edge-{number}", **SETTINGS)) for number in range(2)]
        assert origin.token
        yield Cluster(engine, origin, edges)


@pytest.fixture
def cluster(standing: Cluster) -> Cluster:
    standing.settle()
    return standing


def load(cluster: Cluster) -> contextlib.AbstractContextManager[list[str]]:
    """Write events with ids of their own.

    SQLite ignores an event that is there already.
    """
    return writer(cluster.database, RATE, source=f"writer-{next(_numbers)}")


@contextlib.contextmanager
def watched(cluster: Cluster) -> Iterator[Audience]:
    """Four viewers over the edges, and 100 events a second.

    At the end each has them all, and its socket.
    """
    with Audience(cluster.edges) as audience:
        with load(cluster):
            audience.have(20)
            yield audience
            audience.have(20)
        audience.complete(cluster.database)
    assert audience.closes == []
    assert audience.verdicts == set()


def test_the_engine_is_killed_and_comes_back_empty(cluster: Cluster) -> None:
    with watched(cluster):
        cluster.engine.kill()
        assert handshake(cluster.edges[0]) == 503
        cluster.engine.start()


def test_the_engine_is_flushed_under_load(cluster: Cluster) -> None:
    with watched(cluster) as audience:
        for _ in range(3):
            cluster.engine.client.flushall()
            audience.have(10)


def test_a_paused_engine_stops_no_viewer_at_the_origin(cluster: Cluster) -> None:
    """The engine executes an append after the uplink has given it up."""
    noted = len(cluster.origin.output)
    with Audience([cluster.origin], 1) as local:
        with watched(cluster), cluster.engine.paused():
            local.have(100)
            assert handshake(cluster.edges[1]) == 503
            wait_until(lambda: "uplink waits" in cluster.origin.output[noted:], "the reply is lost")
        local.complete(cluster.database)


def test_a_failover_to_an_older_replica_makes_edges_wait(cluster: Cluster) -> None:
    """The dump is what a replica had that lagged behind."""
    with watched(cluster) as audience:
        cluster.engine.client.save()
        audience.have(100)
        cluster.engine.kill()
        cluster.engine.start()  # from the dump
        with cluster.edges[0].connect() as client:
            assert client.subscribe(after=audience.viewers[0].cursor, epoch=audience.viewers[0].epoch)["verdict"] == (
                "resumed"
            )
    (cluster.engine.folder / "dump.rdb").unlink()


def test_a_changed_password_is_told_and_passes(cluster: Cluster) -> None:
    engine = cluster.engine.client
    with watched(cluster):
        engine.config_set("requirepass", "another")
        engine.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        ready = f"{cluster.edges[0].url}/readyz"
        wait_until(lambda: "Authentication required" in httpx.get(ready, trust_env=False).text, "the reason is told")
        assert status(cluster.edges[0]) == 503
        engine.config_set("requirepass", "")


def test_lost_grants_are_no_revocation(cluster: Cluster) -> None:
    with watched(cluster):
        cluster.engine.client.delete(GRANTS)
        wait_until(lambda: handshake(cluster.edges[0]) == 101, "new viewers")


def test_evicted_keys_come_back(cluster: Cluster) -> None:
    engine = cluster.engine.client
    with watched(cluster):
        engine.config_set("maxmemory-policy", "allkeys-lru")
        engine.config_set("maxmemory", "1mb")
        wait_until(lambda: not engine.exists(EVENTS), "events evicted")
        engine.config_set("maxmemory", "0")
        engine.config_set("maxmemory-policy", "noeviction")


def test_a_client_behind_the_engine_is_told_what_is_missing_and_where_it_is(cluster: Cluster) -> None:
    write_events(cluster.database, 3 * KEPT)
    cluster.settle()
    head = head_of(cluster.database)
    wait_until(lambda: len(cluster.engine.seqs()) < KEPT + 200, "engine trimmed")
    after = head - 3 * KEPT
    with cluster.edges[0].connect() as client:
        verdict = client.subscribe(after=after, epoch=epoch_of(cluster.database))
        first = cluster.engine.seqs()[0]
        assert verdict["verdict"] == "gap"
        assert verdict["missing"] == {"from": after + 1, "to": first - 1}
        assert verdict["origin"] == cluster.origin.url
        client.follow(head)
        assert client.seen == list(range(first, head + 1))
    with cluster.origin.connect() as client:
        assert client.subscribe(after=after, epoch=epoch_of(cluster.database))["verdict"] == "resumed"
    missing: list[object] = []
    feed = Client(cluster.edges[0].url, cluster.edges[0].token).follow(
        after=after, epoch=epoch_of(cluster.database), on_missing=missing.append
    )
    with feed:
        assert [event.seq for event in itertools.islice(feed, 2 * KEPT)] == list(range(after + 1, after + 2 * KEPT + 1))
    assert missing == []


def test_a_killed_origin_takes_the_engine_over_at_once_when_it_is_back(cluster: Cluster) -> None:
    with watched(cluster):
        cluster.origin.kill()
        began = time.monotonic()
        cluster.origin.start()
        caught_up(cluster.engine, cluster.database)
        print(f"caught up {time.monotonic() - began:.1f} s after the start")


def test_a_killed_worker_of_the_origin_has_a_successor(cluster: Cluster) -> None:
    with watched(cluster):
        [worker] = cluster.origin.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: cluster.origin.workers() not in ([], [worker]), "another worker")


def test_viewers_of_a_killed_edge_resume_on_the_other(cluster: Cluster) -> None:
    first = cluster.edges[0]
    with Audience(cluster.edges) as audience:
        with load(cluster):
            audience.have(20)
            first.kill()
            audience.have(20)
            first.start()
        audience.complete(cluster.database)
    assert sorted(audience.closes) == [1006, 1006]
    assert audience.verdicts == {"resumed"}


def test_an_edge_that_is_cut_off_says_so_and_keeps_its_viewers(cluster: Cluster) -> None:
    engine = cluster.engine.client
    engine.acl_setuser("second", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
    url = cluster.engine.url.replace("redis://", "redis://second:secret@")
    with contextlib.ExitStack() as stack:
        edge = stack.enter_context(Edge(cluster.origin, cluster.engine, "cut-off", **SETTINGS, engine=url))
        with Audience([edge], 2) as audience, Audience([cluster.edges[1]], 1) as others:
            with load(cluster):
                audience.have(10)
                engine.acl_setuser("second", enabled=False)
                engine.execute_command("CLIENT", "KILL", "USER", "second")
                wait_until(lambda: status(edge) == 503, "unready")
                counts = [len(viewer.ages) for viewer in audience]
                others.have(50)
                wait_until(
                    lambda: all(len(viewer.ages) > count + 3 for viewer, count in zip(audience, counts, strict=True)),
                    "heartbeats go on",
                )
                assert all(viewer.ages[-1] > viewer.ages[-2] for viewer in audience)
                engine.acl_setuser("second", enabled=True)
                audience.have(10)
            audience.complete(cluster.database)
    assert audience.closes == []


def test_a_full_engine_is_trimmed_and_goes_on(cluster: Cluster) -> None:
    engine = cluster.engine.client
    write_events(cluster.database, KEPT)
    cluster.settle()
    before = int(engine.hget(HEAD, "shortages") or 0)
    with watched(cluster):
        engine.config_set("maxmemory", str(engine.info("memory")["used_memory"] - 10_000))
        wait_until(lambda: int(engine.hget(HEAD, "shortages") or 0) > before, "shortage counted")
        engine.config_set("maxmemory", "0")


def test_an_erased_event_can_not_be_read_at_an_edge(cluster: Cluster) -> None:
    write_events(cluster.database, 3, data=json.dumps("planted"))
    cluster.settle()
    seq = head_of(cluster.database) - 1
    with contextlib.closing(sqlite3.connect(cluster.database)) as raw:
        (event_id,) = raw.execute("SELECT event_id FROM outbox WHERE seq = ?", (seq,)).fetchone()
    assert cluster.origin.run("prune", "--id", event_id).returncode == 0
    wait_until(lambda: seq not in cluster.engine.seqs(), "erased in the engine")
    with cluster.edges[0].http() as http:
        page = http.get("/api/feed", params={"after": seq - 2, "epoch": epoch_of(cluster.database)}).json()
    assert [event["seq"] for event in page["events"][:2]] == [seq - 1, seq + 1]
    assert page["erasures"] == 1


def test_a_revoked_token_is_closed_at_an_edge_within_two_seconds(cluster: Cluster) -> None:
    database = db.at(cluster.database)
    secret = account.create_token(database, "doomed", ["read"])
    wait_until(lambda: cluster.engine.knows(f"token:{account.hash_of(secret)}"), "token known")
    clients = [FeedClient(edge.url, secret) for edge in cluster.edges]
    for client in clients:
        client.subscribe()
    account.revoke_token(database, "doomed")
    began = time.monotonic()
    assert [client.closed_with()[0] for client in clients] == [4001, 4001]
    assert time.monotonic() - began < 2
    headers = {"Authorization": f"Bearer {secret}"}
    for edge in cluster.edges:
        assert httpx.get(f"{edge.url}/api/feed", headers=headers, trust_env=False).status_code == 401
    for client in clients:
        client.__exit__()
    database.close()


def test_a_ticket_opens_one_socket_over_two_edges_and_the_origin(cluster: Cluster) -> None:
    statuses: set[int] = set()

    def ticket() -> str:
        with cluster.origin.http() as http:
            return str(http.post("/api/tickets").json()["ticket"])

    def opens(server: Server, value: str) -> bool:
        try:
            with FeedClient(f"{server.url}/ws?ticket={value}", None) as client:
                return client.subscribe()["verdict"] == "live"
        except InvalidStatus as refused:
            statuses.add(refused.response.status_code)
            return False

    for _ in range(5):
        value = ticket()
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(opens, [*cluster.edges, cluster.origin], [value] * 3))
        assert sum(found) == 1
    assert not any(opens(server, value) for server in (cluster.origin, *cluster.edges))
    assert statuses == {401}


def test_a_fresh_session_opens_the_socket_of_an_edge_at_once(cluster: Cluster) -> None:
    with httpx.Client(base_url=cluster.origin.url, trust_env=False, timeout=10) as browser:
        code = account.create_code(db.at(cluster.database), account.CODE_LIFETIME)
        page = browser.get(f"/login?code={code}")
        assert browser.post("/login", data=hidden_fields(page.text)).status_code == 303
        name, value = next(iter(browser.cookies.items()))
        client = FeedClient(cluster.edges[0].url, None, headers={"Cookie": f"{name}={value}"})
        client.subscribe()
        page = browser.get("/password")
        browser.post("/logout", data=hidden_fields(page.text))
        assert client.closed_with()[0] == 4001
        client.__exit__()
    db.at(cluster.database).close()


def test_an_origin_that_is_gone_leaves_its_viewers_connected_and_its_revoked_tokens_out(cluster: Cluster) -> None:
    edge = cluster.edges[0]
    secret = account.create_token(db.at(cluster.database), "late", ["read"])
    wait_until(lambda: cluster.engine.knows(f"token:{account.hash_of(secret)}"), "token known")
    write_events(cluster.database, 5)
    cluster.settle()
    engine = cluster.engine.client
    before = engine.execute_command("DUMP", GRANTS, NEVER_DECODE=True)
    with Audience(cluster.edges) as audience, FeedClient(edge.url, secret) as doomed:
        doomed.subscribe()
        cluster.origin.kill()
        assert handshake(edge) == 101, "the grants last"
        with edge.connect() as client:
            assert client.subscribe(after=head_of(cluster.database) - 3, epoch=epoch_of(cluster.database))[
                "verdict"
            ] == ("resumed")
        assert cluster.origin.run("token", "revoke", "late").returncode == 0
        assert doomed.closed_with()[0] == 4001
        engine.restore(GRANTS, engine.pttl(GRANTS), before, replace=True)  # as a failover to an older replica does
        assert poll_with(edge, secret) == 200
        wait_until(lambda: poll_with(edge, secret) == 503, "grants expired")
        assert handshake(edge) == 503
        wait_until(lambda: all(viewer.stale for viewer in audience), "told that it is stale")
        assert all(viewer.ages[-1] > 9 for viewer in audience)
        assert status(edge) == 200
        cluster.origin.start()
        wait_until(lambda: handshake(edge) == 101, "grants are back")
        assert poll_with(edge, secret) == 401
        wait_until(lambda: all(viewer.stale[-1] is None for viewer in audience), "told that it is not")
        write_events(cluster.database, 5)
        audience.complete(cluster.database)
    assert audience.closes == []
    db.at(cluster.database).close()


def test_a_hung_origin_is_told_as_a_dead_one(cluster: Cluster) -> None:
    """A partition that keeps the uplink from the engine looks the same."""
    with Audience(cluster.edges, 2) as audience:
        with cluster.origin.halted():
            wait_until(lambda: all(viewer.stale for viewer in audience), "told that it is stale")
            assert status(cluster.edges[0]) == 200
        write_events(cluster.database, 5)
        audience.complete(cluster.database)
    assert audience.closes == []


def test_the_origin_lists_its_edges(cluster: Cluster) -> None:
    cookie = {"Cookie": f"{cluster.origin.cookie_name}={cluster.origin.session}"}

    def page() -> str:
        return httpx.get(f"{cluster.origin.url}/status", headers=cookie, trust_env=False, timeout=10).text

    def row(edge: Edge) -> list[str]:
        [found] = re.findall(rf"<tr[^>]*>(?:(?!</tr>).)*127.0.0.1:{edge.port}.*?</tr>", page()) or [""]
        return re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", found)

    wait_until(lambda: all(map(row, cluster.edges)), "edges listed")
    head = f"{head_of(cluster.database):,}"
    for edge in cluster.edges:
        # An earlier report may still count a client of another test.
        wait_until(lambda edge=edge: row(edge)[3:5] == ["0", head], "position of the head")  # type: ignore[misc]
        _, _, workers, _, _, lag, age, _ = row(edge)
        assert (workers, lag) == ("1", "0")
        assert 0 <= int(age.removesuffix(" s ago")) <= 10
    with cluster.edges[0].connect() as client, cluster.origin.http() as http:
        client.subscribe()
        line = f'outfeed_edge_clients{{edge="{socket.gethostname()} 127.0.0.1:{cluster.edges[0].port}"}} 1.0'
        wait_until(lambda: line in http.get("/metrics").text, "client counted")


# The last: it ends the history that the others share.
def test_a_second_origin_is_refused_and_renews_its_epoch_once_it_owns_the_engine(
    cluster: Cluster, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(cluster.database)) as raw:
        raw.execute("VACUUM INTO ?", (str(tmp_path / "outfeed.db"),))
    shutil.copy(f"{cluster.database}.secret", tmp_path / "outfeed.db.secret")
    with Audience(cluster.edges) as audience, Server(tmp_path, engine=cluster.engine.url, **SETTINGS) as second:
        write_events(cluster.database, 5)
        write_events(second.database, 6, event_type="of.second")
        audience.complete(cluster.database)
        wait_until(lambda: "another origin owns the engine" in second.output, "second refused")
        cluster.origin.kill()
        wait_until(lambda: epoch_of(second.database) != epoch_of(cluster.database), "epoch renewed")
        wait_until(lambda: all(viewer.verdicts[-1] == "reset" for viewer in audience), "all told", timeout=30)
        write_events(second.database, 20)
        audience.complete(second.database)
        assert set(audience.closes) == {4008}
    cluster.origin.start()


def test_a_restored_backup_is_a_reset_at_edges(cluster: Cluster, tmp_path: Path) -> None:
    write_events(cluster.database, 5)
    cluster.settle()
    assert cluster.origin.run("backup", str(tmp_path / "copy.db")).returncode == 0
    with Audience(cluster.edges) as audience:
        write_events(cluster.database, 5)
        audience.complete(cluster.database)
        done = cluster.origin.run("restore", str(tmp_path / "copy.db"))
        assert done.returncode == 0, done.stderr
        wait_until(lambda: all(viewer.verdicts[-1] == "reset" for viewer in audience), "all told", timeout=30)
        write_events(cluster.database, 20)
        audience.complete(cluster.database)
    assert audience.closes == [4008] * 4
    assert all(viewer.verdicts.count("reset") == 1 for viewer in audience)
