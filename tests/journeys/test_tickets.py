"""`<event-feed>` on another site, by tickets and without a cookie."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import Browser, expect

from outfeed.access.store import account
from outfeed.store import database as db
from tests.server import Server, free_port

PATIENCE_MS = 20_000


class Site:
    """A foreign web server whose page embeds the feed of *server*."""

    def __init__(self, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.feed_url = ""
        self.token = ""
        self.tickets = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = (
                    f'<script type="module" src="{site.feed_url}/static/event-feed.js"></script>'
                    '<event-feed ticket-url="/ticket"></event-feed>'
                )
                self.answer("text/html", page.encode())

            def do_POST(self) -> None:
                site.tickets += 1
                headers = {"Authorization": f"Bearer {site.token}"}
                self.answer(
                    "application/json",
                    httpx.post(f"{site.feed_url}/api/tickets", headers=headers, verify=False).content,
                )

            def answer(self, content_type: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Server]]:
    made = Site(free_port())
    thread = threading.Thread(target=made.http.serve_forever)
    thread.start()
    try:
        with Server(tmp_path_factory.mktemp("site"), allowed_origins=made.url) as server:
            made.feed_url = server.url
            made.token = account.create_token(db.at(server.database), "site", ["read"], types=["task.*"])
            db.at(server.database).close()
            yield made, server
    finally:
        made.http.shutdown()
        thread.join()
        made.http.server_close()


def test_a_page_on_another_site_follows_by_ticket_across_a_restart(site: tuple[Site, Server], browser: Browser) -> None:
    made, server = site
    with closing(browser.new_page()) as page:
        page.goto(made.url)
        label = page.locator("event-feed .label")
        expect(label).to_have_text("Live", timeout=PATIENCE_MS)
        server.log_event("agent.joined", "s", {"name": "hidden from this token"})
        server.log_event("task.created", "s", {"description": "Seen elsewhere"})
        row = page.locator("event-feed .rows > .event .sentence")
        expect(row).to_have_text("New task: Seen elsewhere", timeout=PATIENCE_MS)
        expect(page.locator("event-feed .rows > .event .icon")).to_have_text("📝")

        server.kill()
        server.start()
        server.log_event("task.created", "s", {"description": "After the restart"})

        expect(row.first).to_have_text("New task: After the restart", timeout=PATIENCE_MS)
        assert made.tickets >= 2
        assert page.context.cookies() == []


def test_a_page_on_another_site_has_displays_by_a_ticket(site: tuple[Site, Server], browser: Browser) -> None:
    made, server = site
    server.run("type", "set", "task.sold", "--label", "Sold {item}")
    with closing(browser.new_page()) as page:
        page.goto(made.url)
        server.log_event("task.sold", "s", {"item": "a chair"})
        row = page.locator("event-feed .rows > .event .sentence").first
        expect(row).to_have_text("Sold a chair", timeout=PATIENCE_MS)
        server.run("type", "set", "task.sold", "--label", "{item} is sold")
        expect(row).to_have_text("a chair is sold", timeout=PATIENCE_MS)
        assert page.context.cookies() == []


def test_a_page_of_a_site_that_is_not_allowed_gets_no_event(site: tuple[Site, Server], browser: Browser) -> None:
    made, server = site
    server.kill()
    server.settings["OUTFEED_ALLOWED_ORIGINS"] = "https://shop.example"
    server.start()
    refusals: list[str] = []
    with closing(browser.new_page()) as page:
        page.on("console", lambda message: refusals.append(message.text))
        page.goto(made.url)
        ticket = httpx.post(
            f"{server.url}/api/tickets", headers={"Authorization": f"Bearer {made.token}"}, verify=False
        ).json()
        code = page.evaluate(
            """url => new Promise(resolve => { new WebSocket(url).onclose = ({ code }) => resolve(code); })""",
            f"{server.url.replace('http', 'ws')}/ws?ticket={ticket['ticket']}",
        )
        assert code == 1006
        assert page.evaluate("customElements.get('event-feed') === undefined")
    assert any("CORS" in refusal for refusal in refusals), json.dumps(refusals)
