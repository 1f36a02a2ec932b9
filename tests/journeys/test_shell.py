"""The shell of the pages in a browser: menu, theme, zone and keys."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.page import DESKTOP, PHONE, tasks, write
from tests.server import Server


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def choose(page: Page, choice: str) -> None:
    page.locator("header .menu > summary").click()
    with page.expect_navigation():
        page.get_by_role("button", name=choice, exact=True).click()


def test_the_menu_chooses_the_theme_and_the_zone_of_every_page(shared: Server, page: Page) -> None:
    write(shared.database, {"description": "a task"}, timestamp="2026-01-15T23:30:00.000Z")
    page.emulate_media(color_scheme="light")
    page.goto(f"{shared.url}/swarm/events?type=task.*")
    light = ground(page)
    expect(page.locator("#zone")).to_have_text("Times in Europe/Berlin")

    choose(page, "Dark")
    expect(page).to_have_url(re.compile(r"/swarm/events\?type=task\.\*$"))
    dark = ground(page)
    choose(page, "UTC")
    expect(page.locator("#zone")).to_have_text("Times in UTC")

    page.goto(f"{shared.url}/swarm/live")
    assert ground(page) == dark != light
    expect(page.locator("event-feed .rows time")).to_have_text("15 Jan 23:30:00")
    surface = "element => getComputedStyle(element).backgroundColor"
    assert page.locator("event-feed .bar").evaluate(surface) != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    assert ground(page) == "rgba(0, 0, 0, 0)"  # paper is light
    page.emulate_media(media="screen", color_scheme="dark")
    choose(page, "Light")
    assert ground(page) == light


def test_the_keyboard_opens_pages_the_list_of_keys_and_closes_menus(shared: Server, page: Page) -> None:
    page.goto(f"{shared.url}/docs")
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(keys.get_by_text("Move to the filter")).to_be_visible()
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()

    menu = page.locator("header .menu > summary")
    menu.click()
    page.get_by_role("link", name="Keyboard shortcuts").click()
    expect(keys).to_be_visible()
    keys.get_by_role("button", name="Close").click()
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.locator("h1").click()):
        menu.click()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        close()
        expect(page.get_by_role("button", name="Sign out")).to_be_hidden()

    page.goto(f"{shared.url}/docs/search?q=epoch")
    hits = page.locator(".hits > li > a")
    for key, place in (("j", 0), ("j", 1), ("k", 0), ("k", 0)):
        page.keyboard.press(key)
        expect(hits.nth(place)).to_be_focused()

    write(shared.database, *tasks(2))
    page.keyboard.press("g")
    page.keyboard.press("e")
    expect(page).to_have_url(f"{shared.url}/swarm/events")
    rows = page.locator("#rows > .event > details > summary")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#rows details[open] pre")).to_contain_text("task 0")
    page.keyboard.press("k")
    expect(rows.first).to_be_focused()
    page.get_by_label("Search").fill("? g l")
    page.get_by_label("Search").press("?")
    expect(keys).to_be_hidden()
    page.locator("h1").click()
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page).to_have_url(f"{shared.url}/swarm/live")


def test_the_menu_and_the_content_have_one_width_on_every_page(shared: Server, page: Page) -> None:
    lefts = {}
    for size in (DESKTOP, {"width": 2200, "height": 900}, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        for path in ("/swarm/live", "/swarm/events", "/status", "/docs", "/api/docs"):
            page.goto(shared.url + path)
            boxes = [page.locator(name).bounding_box() for name in ("header.top", "main")]
            lefts[size["width"], path] = [(box["x"], box["width"]) for box in boxes if box]
        assert len({tuple(found) for (width, _), found in lefts.items() if width == size["width"]}) == 1, lefts
