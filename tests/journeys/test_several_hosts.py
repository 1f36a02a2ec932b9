"""The proxy in front of edges, and the script for one machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.several_hosts import Front
from tests.clients import FeedClient
from tests.database_file import write_events
from tests.engines import GRANTS, cluster, require_redis
from tests.fronts import program
from tests.server import ROOT, Server, free_port
from tests.waits import wait_until

EXAMPLE = ROOT / "scripts" / "deploy" / "Caddyfile.edges"


@contextlib.contextmanager
def caddy(folder: Path, port: int, origin: Server, edges: list[Server]):  # type: ignore[no-untyped-def]
    """Run the example without TLS, with the addresses of these servers."""
    text = EXAMPLE.read_text().split("# For programs that use no durable consumer.")[0]
    for server, address in zip([origin, *edges], ("192.0.2.1", "192.0.2.2", "192.0.2.3"), strict=True):
        text = text.replace(f"{address}:8000", f"127.0.0.1:{server.port}")
    text = text.replace("\n{\n", "\n{\n\tadmin off\n\tauto_https off\n", 1)
    text = text.replace("feed.example.com {", f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1")
    (folder / "Caddyfile").write_text(text)
    executable = program("caddy")
    assert executable is not None, "Caddy is not installed"
    with (folder / "caddy.log").open("wb") as log:
        command = [executable, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "Caddy answers")
        yield
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    return False


@pytest.mark.skipif(
    "CI" not in os.environ and program("caddy") is None, reason="Caddy is not installed; scripts/test fetches it"
)
def test_the_example_of_a_proxy_serves_browsers_from_edges_and_programs_from_the_origin(tmp_path: Path) -> None:
    port = free_port()
    settings = {"trusted_proxies": "127.0.0.1", "public_url": f"http://127.0.0.1:{port}", "workers": 2}
    with cluster(tmp_path, **settings) as (engine, origin, edges), caddy(tmp_path, port, origin, [*edges]):
        url = f"http://127.0.0.1:{port}"
        before = engine.client.hlen(GRANTS)
        cookie = {"Cookie": f"{origin.cookie_name}={origin.sign_in('viewer')}"}
        wait_until(lambda: engine.client.hlen(GRANTS) > before, "session known")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(FeedClient(url, None, headers=cookie)) for _ in range(6)]
            assert {client.subscribe()["verdict"] for client in clients} == {"live"}
            wait_until(lambda: sorted(map(clients_of, edges)) == [2, 2], "two each; the origin has the others")
            edges[0].kill()
            again = [stack.enter_context(FeedClient(url, None, headers=cookie)) for _ in range(4)]
            assert {client.subscribe()["verdict"] for client in again} == {"live"}
        page = httpx.get(f"{url}/api/feed?origin=1", headers=cookie, trust_env=False)
        assert page.status_code == 200
        token = {"Authorization": f"Bearer {origin.token}"}
        made = httpx.post(f"{url}/api/consumers", json={"name": "c"}, headers=token, trust_env=False)
        assert made.status_code in (200, 201)
        assert httpx.get(f"{url}/api/feed?consumer=c", headers=token, trust_env=False).status_code == 200


def clients_of(edge: Server) -> int:
    """Return how many WebSocket clients *edge* has."""
    with edge.http() as http:
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("outfeed_clients{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if 'transport="websocket"' in line)


def test_a_live_page_of_the_script_continues_when_its_edge_is_killed(browser: Browser, tmp_path: Path) -> None:
    require_redis()
    database, output = tmp_path / "outfeed.db", tmp_path / "output"
    with several_hosts(database, output), contextlib.closing(browser.new_page()) as page:
        edges = {port: int(pid) for port, pid in re.findall(r"Edge on port (\d+) is process (\d+)", output.read_text())}
        assert all(answers(f"http://127.0.0.1:{port}/readyz") for port in edges)
        page.add_init_script(RECORD)
        page.goto(re.findall(r"http://\S+/login\?code=\S+", output.read_text())[0])
        page.get_by_role("button", name="Sign in").click()
        expect(page).not_to_have_url(re.compile("/login"))
        [url] = re.findall(r"(\S+) serves pages from the origin", output.read_text())
        page.goto(f"{url}/swarm/live")
        wait_until(lambda: len(shown(page)) > 2, "events on the page")
        *_, serving = served = re.findall(r"A viewer is served by port (\d+)", output.read_text())
        os.kill(edges[serving], signal.SIGKILL)
        count = len(shown(page))
        wait_until(lambda: len(shown(page)) > count + 2, "more events on the page", timeout=30)
        others = re.findall(r"A viewer is served by port (\d+)", output.read_text())[len(served) :]
        assert set(others) == edges.keys() - {serving}
        assert page.evaluate("verdicts")[1:] == ["resumed"]
        seqs = shown(page)
        assert seqs == visible(database, seqs[0], seqs[-1])
    assert not any(Path(f"/proc/{pid}").exists() for pid in edges.values())
    assert "Traceback" not in output.read_text()


# The verdicts, and the seqs in the order in which the page has shown them.
RECORD = """
    window.verdicts = []; window.seqs = [];
    addEventListener('event-feed:verdict', (e) => verdicts.push(e.detail.verdict));
    addEventListener('event-feed:event', (e) => seqs.push(e.detail.seq));
"""


@contextlib.contextmanager
def several_hosts(database: Path, output: Path) -> Iterator[None]:
    """Run the script with two edges and the demo, and end it by SIGTERM."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTFEED_")}
    environment = {**clean, "OUTFEED_DATABASE": str(database), "OUTFEED_BIND": f"127.0.0.1:{free_port()}"}
    with output.open("wb") as file:
        command = [sys.executable, "-m", "scripts.several_hosts", "--edges", "2", "--demo"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: "Try: OUTFEED_TOKEN" in output.read_text(), "all started", timeout=60)
        assert "Try: OUTFEED_TOKEN" in output.read_text(), output.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def shown(page: Page) -> list[int]:
    """Return the seqs that the page has shown."""
    return list(page.evaluate("seqs"))


def visible(database: Path, first: int, last: int) -> list[int]:
    """Return the seqs of the outbox between both, without the audit's."""
    with contextlib.closing(sqlite3.connect(database)) as raw:
        rows = raw.execute(
            "SELECT seq FROM outbox WHERE seq BETWEEN ? AND ?"
            " AND json_extract(payload, '$.event_type') NOT LIKE 'access.%' ORDER BY seq",
            (first, last),
        ).fetchall()
    return [seq for (seq,) in rows]


def test_a_page_gets_the_rest_from_the_origin_and_shows_when_it_is_stale(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    settings = {"public_url": f"http://127.0.0.1:{port}", "trusted_proxies": "127.0.0.1", "engine_events": 1000}
    with cluster(tmp_path, 1, **settings) as (engine, origin, edges), contextlib.ExitStack() as stack:
        front = stack.enter_context(serving(Front(port, origin.port, [edges[0].port])))
        page = stack.enter_context(contextlib.closing(browser.new_page()))
        value = edges[0].sign_in("operator")
        page.context.add_cookies([{"name": origin.cookie_name, "value": value, "url": f"http://127.0.0.1:{port}"}])
        page.add_init_script(RECORD)
        page.goto(f"http://127.0.0.1:{port}/swarm/live")
        wait_until(lambda: page.evaluate("verdicts").count("live") == 1, "live")
        bar = page.locator("event-feed .bar")
        with origin.halted():
            expect(bar).to_have_attribute("data-state", "stale", timeout=30_000)
            expect(bar).to_contain_text("Stale: the origin")
        expect(bar).to_have_attribute("data-state", "live")
        front.refuse()
        write_events(origin.database, 3000, event_type="task.created")
        wait_until(lambda: engine.position >= 3000 and len(engine.seqs()) < 1200, "engine trimmed")
        front.accept()
        wait_until(lambda: len(page.evaluate("verdicts")) > 1, "another verdict", timeout=30)
        assert page.evaluate("verdicts")[1:] == ["resumed"]


@contextlib.contextmanager
def serving(front: Front) -> Iterator[Front]:
    thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield front
    finally:
        front.shutdown()
        front.refuse()
        thread.join()
        front.server_close()
