"""The documentation's pages and their HTML examples in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.page import PHONE
from tests.proxy import Proxy
from tests.server import Server
from tests.test_docs_examples import PAGES, blocks_of

HTML = [
    (page, block.text) for page in PAGES for block in blocks_of(page) if (block.language, block.mode) == ("html", "")
]


@pytest.mark.parametrize(("name", "text"), HTML, ids=lambda value: value[:20])
def test_an_html_example_shows_the_feed(page: Page, shared: Server, name, text):
    with Proxy(shared, {"/example": ("text/html", f"<!doctype html>{text}")}) as site:
        page.goto(f"{site.url}/example")
        expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live")
        shared.log_event("order.paid", "shop")
        shared.log_event("task.created", "shop")
        shared.log_event("system.error", "shop")
        expect(page.locator("event-feed .event").first).to_be_visible()
        if "document.title" in text:
            expect(page).to_have_title("Error: shop")


@pytest.mark.parametrize("topic", ["index", "websocket", "commands", "performance"])
def test_a_page_fits_a_phone(page: Page, shared: Server, topic):
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.goto(f"{shared.url}/docs/{topic}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_search_leads_to_the_section(page: Page, shared: Server):
    page.goto(f"{shared.url}/docs")
    page.get_by_role("searchbox").fill("alembic")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Alembic").click()
    expect(page).to_have_url(f"{shared.url}/docs/adopt#alembic")
    expect(page.get_by_role("heading", name="Alembic")).to_be_in_viewport()
