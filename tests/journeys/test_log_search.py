"""The search of the log: bar, completion, chart, facets, views."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.accessible import problems
from tests.page import DESKTOP, PHONE, write
from tests.server import Server

ROWS = "#rows > .event"
LONG = {"list": [f"item {number}" for number in range(300)]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 90 events of three sources on two days."""
    with Server(tmp_path_factory.mktemp("search")) as running:
        with contextlib.closing(sqlite3.connect(running.database)) as raw, raw:
            raw.executemany(
                "INSERT INTO event_log VALUES (?, ?, ?, NULL, ?, ?, ?)",
                [
                    (
                        f"e{number}",
                        ("page.viewed", "page.viewed", "payment.failed")[number % 3],
                        ("web", "cdn", "night job")[number % 3],
                        "Forge" if number % 2 else None,
                        json.dumps({"status": 500 if number % 10 == 0 else 200, "n": number}),
                        f"2026-01-{14 + number // 60}T10:{number % 60:02}:00.000Z",
                    )
                    for number in range(90)
                ],
            )
        write(running.database, LONG, event_type="report.made", source="cron", timestamp="2026-01-15T11:00:00.000Z")
        yield running


def query_of(page: Page) -> str:
    return parse_qs(urlsplit(page.url).query).get("q", [""])[0]


def pills(page: Page) -> Locator:
    return page.locator(".pill-term bdi")


def test_the_bar_completes_and_its_pills_become_text_again(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events")
    page.keyboard.press("/")
    page.keyboard.type("sou")
    options = page.get_by_role("option")
    expect(options).to_have_text(["source:Component that wrote the event"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(options.locator("b")).to_have_text(["source:cdn", "source:cron", 'source:"night job"', "source:web"])
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("combobox")).to_have_attribute("aria-activedescendant", "suggestion-3")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox")).to_have_value('source:"night job" ')
    page.keyboard.type("data.status:500")
    page.keyboard.press("Enter")
    expect(page.locator(ROWS)).to_have_count(3)
    expect(pills(page)).to_have_text(['source:"night job"', "data.status:500"])
    assert query_of(page) == 'source:"night job" data.status:500'

    page.locator("#query").focus()
    page.keyboard.press("Backspace")
    expect(page.locator("#query")).to_have_value("data.status:500")
    page.keyboard.type(" since:2026-01-01")
    page.keyboard.press("Enter")
    expect(page.locator("#times > summary")).to_contain_text("1 Jan")
    assert query_of(page) == 'source:"night job" data.status:500 since:2026-01-01'
    page.get_by_title('Remove source:"night job"').click()
    expect(pills(page)).to_have_text(["data.status:500"])
    expect(page.locator("#counts strong")).to_have_text("9 events")


def test_the_facets_and_the_chart_narrow_the_query(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events")
    expect(page.locator("#counts .place")).to_have_text("1–50 of 91")
    expect(page.locator("#rows .day")).to_have_text([re.compile("15 January"), re.compile("14 January")])
    page.get_by_title("Exclude type payment.failed").click()
    page.get_by_title("Only source web").click()
    assert query_of(page) == "-type:payment.failed source:web"
    expect(page.locator("#counts strong")).to_have_text("30 events")

    page.goto(f"{server.url}/swarm/events?q=until:2026-01-14T12:00")
    area = page.locator(".histogram .area")
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 20)
    expect(page.locator(".histogram .label")).to_contain_text(re.compile(r"14 Jan 11:\d\d:00 – .*: 5 events"))
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + 20)
    expect(page.locator(".histogram .brush")).to_be_visible()
    page.mouse.up()
    page.wait_for_url(re.compile("since"))
    assert re.fullmatch(r"since:2026-01-14T10:1\d:00Z until:2026-01-14T10:4\d:00Z", query_of(page))
    expect(page.locator("#counts strong")).to_have_text(re.compile("^3[05] events$"))
    table = page.locator(".histogram .table")
    table.locator("summary").click()
    table.get_by_role("link").first.click()
    expect(page.locator("#counts strong")).to_have_text(re.compile("^[15] events?$"))


def test_a_view_is_saved_and_an_event_is_shown_among_its_neighbours(server: Server, page: Page) -> None:
    name = "Reports of all teams, each of them with its items"
    page.goto(f"{server.url}/swarm/events?q=type:report.made")
    page.locator("#rows summary").click()
    expect(page.locator("#rows pre")).to_contain_text("item 299")  # all of the data, which the page has cut
    page.locator("#views > summary").click()
    page.get_by_label("Save this query as").fill(name)
    page.get_by_label("Share with everyone").check()
    page.get_by_role("button", name="Save view").click()
    expect(page.locator("#views > summary")).to_have_text(name)
    overflow = "summary => summary.scrollWidth - summary.clientWidth"
    assert page.locator("#views > summary").evaluate(overflow) == 0
    page.goto(f"{server.url}/swarm/events?around=e40")
    expect(page.locator(ROWS)).to_have_count(51)
    expect(page.locator(f"{ROWS}.here")).to_have_attribute("data-id", "e40")
    expect(page.locator(f"{ROWS}.here")).to_be_in_viewport()
    page.locator("#views > summary").click()
    page.get_by_role("link", name=name).click()
    expect(page.locator(ROWS)).to_have_count(1)
    page.locator("#views > summary").click()
    page.get_by_role("button", name=f"Delete {name}").click()
    expect(page.locator("#views > summary")).to_have_text("Views")
    page.goto(f"{server.url}/swarm/events")
    page.locator("#times > summary").click()
    page.get_by_label("Jump to").fill("2026-01-14T11:05:30")  # in Berlin
    page.get_by_role("button", name="Jump").click()
    expect(page.locator(f"{ROWS} time").first).to_have_text("11:05:00")
    page.get_by_role("link", name="Show the newest").click()
    expect(page.locator(ROWS).first).to_contain_text("report.made")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_log_is_accessible_and_logs_no_error(
    server: Server, browser: Browser, context: BrowserContext, size: dict[str, int], scheme: str
) -> None:
    is_phone = size is PHONE
    with contextlib.closing(
        browser.new_context(viewport=size, color_scheme=scheme, has_touch=is_phone, is_mobile=is_phone)  # type: ignore[arg-type]
    ) as own:
        own.add_cookies(context.cookies())  # type: ignore[arg-type]
        page, said = own.new_page(), list[str]()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{server.url}/swarm/events?q=-source:cdn type:page.* status since:2026-01-01&columns=data")
        if is_phone:
            first = page.locator(ROWS).first.bounding_box()
            assert first is not None
            assert first["y"] < size["height"] * 0.6
            expect(page.locator("#facets")).to_be_hidden()
            page.get_by_text("Filters (3)").tap()
            expect(page.locator("#facets")).to_be_visible()
        page.locator("#rows summary").first.click()
        page.locator("#times > summary").click()
        for part in (page.locator("#times .sheet"), page.locator("#facets")):
            box = part.bounding_box()
            assert box is not None
            assert 0 <= box["x"] <= box["x"] + box["width"] <= size["width"]
        assert problems(page) == ""
        page.keyboard.press("Escape")
        page.locator("#views > summary").click()
        page.locator("#query").fill("tpye:x")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Did you mean type?")
        page.locator("#query").fill("a")
        expect(page.get_by_role("option").first).to_be_visible()
        assert problems(page) == ""
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert said == []
