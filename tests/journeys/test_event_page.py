"""The page of one event in a browser: copying, folding, neighbours."""

from __future__ import annotations

import json
import re
import shlex

from playwright.sync_api import BrowserContext, Page, expect

from tests.page import write
from tests.server import Server

DATA = {"customer": {"name": "ACME & Co", "vip": True}, "amount": 12900}


def test_an_event_is_copied_folded_filtered_and_left_by_key(
    shared: Server, page: Page, context: BrowserContext
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    for number in (1, 2, 3):
        write(shared.database, DATA | {"number": number}, event_type="payment.succeeded")
    page.goto(f"{shared.url}/swarm/events")
    ids = page.locator(".event").evaluate_all("rows => rows.map(row => row.dataset.id)")
    page.goto(f"{shared.url}/swarm/events/{ids[1]}")

    def copied(name: str) -> str:
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        expect(button).to_be_visible()  # the label returns
        return str(page.evaluate("navigator.clipboard.readText()"))

    assert copied("Copy link") == page.url
    assert copied("Copy id") == ids[1]
    assert json.loads(copied("Copy JSON")) == DATA | {"number": 2}
    curl = shlex.split(copied("Copy as curl"))
    assert (curl[0], curl[-1]) == ("curl", f"{shared.url}/api/events/{ids[1]}")

    name = page.locator(".tree").get_by_text("ACME & Co")
    expect(name).to_be_visible()
    page.locator(".tree summary", has_text="customer").click()
    expect(name).to_be_hidden()
    link = page.get_by_role("link", name="Filter by data.number:2")
    expect(link).to_have_attribute("href", "/swarm/events?q=data.number:2")

    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(ids[0]))
    page.keyboard.press("[")
    page.wait_for_url(re.compile(ids[1]))
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(ids[2]))
