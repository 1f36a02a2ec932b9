"""Below /feed, behind proxies that remove the path or keep it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.clients import FeedClient
from tests.fronts import KINDS, PREFIX, front
from tests.page import PATIENCE_MS, sign_out
from tests.server import Server, free_port


class Behind(Server):
    """A server whose public address is a proxy's."""

    def __init__(self, folder: Path) -> None:
        self.public_url = f"http://127.0.0.1:{free_port()}{PREFIX}"
        super().__init__(folder, public_url=self.public_url, trusted_proxies="127.0.0.1")


@pytest.fixture(params=[f"{kind} {how}" for kind in KINDS for how in ("removes", "keeps")])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Behind]:
    kind, how = request.param.split()
    with Behind(tmp_path) as server:
        port = int(re.findall(r":(\d+)/", server.public_url)[0])
        with front(kind, tmp_path, port, server, removes_prefix=how == "removes"):
            yield server


def test_a_person_signs_in_by_the_link_and_sees_new_events(behind: Behind, browser: Browser) -> None:
    link = behind.sign_in_link()
    assert link.startswith(f"{behind.public_url}/login?code=")
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    missing: list[str] = []
    sockets: list[str] = []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
    page.on("websocket", lambda opened: sockets.append(opened.url))

    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{behind.public_url}/swarm/live")
    expect(page.locator("event-feed .chip .label")).to_have_text("Live")
    behind.log_event("job.done", "cron", {"message": "seen behind the proxy"})
    expect(page.locator("event-feed")).to_contain_text("job.done")
    # The form appears with the first task.
    token = {"Authorization": f"Bearer {behind.token}"}
    httpx.post(f"{behind.public_url}/api/swarm/tasks", json={"description": "plan"}, headers=token).raise_for_status()
    page.get_by_label("Describe the task").fill("write the docs")
    page.get_by_role("button", name="Post task").click()
    page.get_by_role("link", name="write the docs").first.click()
    page.wait_for_url(f"{behind.public_url}/swarm/tasks/*")
    page.get_by_role("link", name="Event log", exact=True).click()
    page.wait_for_url(f"{behind.public_url}/swarm/events")
    sign_out(page)
    page.wait_for_url(f"{behind.public_url}/login")

    assert missing == []
    assert {url.replace("ws:", "http:") for url in sockets} == {f"{behind.public_url}/ws"}
    assert {cookie["path"] for cookie in context.cookies()} == {PREFIX}
    context.close()


def test_a_program_follows_and_polls_and_streams(behind: Behind) -> None:
    behind.log_event("job.done", "cron")
    headers = {"Authorization": f"Bearer {behind.token}"}
    with FeedClient(behind.public_url, behind.token) as client:
        client.subscribe(last=1)
        assert client.next_event()["payload"]["source"] == "cron"
    with httpx.Client(base_url=behind.public_url, headers=headers, trust_env=False, timeout=30) as http:
        assert http.get("/api/feed?last=1").json()["events"][0]["source"] == "cron"
        with http.stream("GET", "/api/feed/stream?last=1") as stream:
            assert any("job.done" in line for line in stream.iter_lines())
        assert http.post("/api/events", json={"event_type": "a.b", "source": "x"}).status_code == 201
        query = {"text": "界" * 1000}
        assert http.get("/api/events", params=query).status_code == 200
