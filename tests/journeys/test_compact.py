"""`<event-feed>` in a narrow box, in a page's colours, and as a package."""

from __future__ import annotations

import configparser
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.journeys.test_embedding import site
from tests.page import tasks, write
from tests.proxy import Proxy
from tests.server import Server

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "app" / "outfeed" / "static" / "event-feed"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(22, 27, 34)"


def ground(feed: Locator) -> str:
    return str(feed.evaluate("feed => getComputedStyle(feed).backgroundColor"))


def height(part: Locator) -> float:
    box = part.bounding_box()
    assert box is not None
    return box["height"]


def test_compact_controls_fit_into_a_line_of_300_pixels(shared: Server, proxy: Proxy, page: Page) -> None:
    write(shared.database, *tasks(2))
    write(shared.database, {"message": "Disk full"}, event_type="system.error")
    names = {"plain": "", "small": "controls=compact columns=icon", "none": "controls=none columns=time,source"}
    proxy.pages["/"] = site(
        "".join(
            f'<event-feed id="{name}" {attributes} class="in"><h2 slot="title">Events</h2></event-feed>'
            for name, attributes in names.items()
        ),
        head="<style>.in { width: 300px; height: 300px }</style>",
    )
    page.goto(proxy.url)
    plain, small, none = (page.locator(f"#{name}") for name in names)
    for feed in (plain, small, none):
        expect(feed.locator(".rows > .event")).to_have_count(3)
        assert feed.locator("h2").evaluate("title => getComputedStyle(title).margin") == "0px"

    expect(plain.locator(".chips")).to_be_hidden()
    expect(plain.locator("input")).to_be_visible()
    assert height(plain.locator(".bar")) < 100  # 225 px before

    assert height(small.locator(".bar")) <= 45
    assert height(small.locator(".rows > .event").first) < 42  # one line: no time and no ids
    expect(small.locator("time").first).to_be_hidden()
    expect(small.locator(".icon").first).to_be_visible()
    expect(small.locator("input")).to_be_hidden()
    opener = small.get_by_role("button", name="Filter", exact=True)
    opener.click()
    expect(opener).to_have_attribute("aria-expanded", "true")
    small.locator("input").fill("disk")
    expect(small.locator(".rows > .event:visible")).to_have_count(1)
    opener.click()
    expect(small.locator("input")).to_be_hidden()
    expect(small.locator(".rows > .event:visible")).to_have_count(3)  # a hidden filter hides no row
    small.locator(".scroller").press("/")
    expect(small.locator("input")).to_be_focused()
    small.locator(".pause").click()
    expect(small.get_by_role("button", name="Resume")).to_be_visible()

    for part in ("input", ".pause", ".chips", ".find"):
        expect(none.locator(part)).to_be_hidden()
    expect(none.locator(".label")).to_have_text("Live")
    expect(none.locator(".icon").first).to_be_hidden()
    expect(none.locator(".source").first).to_be_visible()
    expect(none.locator(".task_id").first).to_be_hidden()
    none.evaluate("feed => feed.removeAttribute('columns')")
    expect(none.locator(".icon").first).to_be_visible()


def test_a_feed_without_events_says_so(shared: Server, proxy: Proxy, page: Page) -> None:
    proxy.pages["/"] = site(
        '<event-feed id="plain"> </event-feed><event-feed id="own"><p>Nothing from the shop</p></event-feed>'
    )
    page.goto(proxy.url)
    plain, own = page.locator("#plain"), page.locator("#own")
    expect(plain.get_by_text("No events yet")).to_be_visible()
    expect(own.get_by_text("Nothing from the shop")).to_be_visible()
    expect(own.get_by_text("No events yet")).to_be_hidden()
    write(shared.database, *tasks(1))
    expect(plain.locator(".rows > .event")).to_have_count(1)
    expect(plain.get_by_text("No events yet")).to_be_hidden()


# Each background, with the colour that the element has on it.
GROUNDS = {
    "": LIGHT,
    "background: #101418": DARK,
    "background: oklch(0.2 0.02 250)": DARK,
    "background: color(srgb 0.1 0.1 0.1)": DARK,
    "background: rgba(0, 0, 0, 0.2)": LIGHT,
    "background: #101418; color-scheme: light": LIGHT,
    "color-scheme: dark": DARK,
}


def test_the_colours_follow_the_background_of_the_page(shared: Server, proxy: Proxy, page: Page) -> None:
    feeds = "".join(
        f'<div style="{style}"><event-feed id="feed-{number}"></event-feed></div>'
        for number, style in enumerate(GROUNDS)
    )
    themed = '<div style="background: black"><event-feed id="themed" theme="light"></event-feed></div>'
    proxy.pages["/"] = site(feeds + themed, head="<style>.night { background: black }</style>")
    page.goto(proxy.url)
    expect(page.locator("#themed .label")).to_have_text("Live")
    shown = {style: ground(page.locator(f"#feed-{number}")) for number, style in enumerate(GROUNDS)}
    assert shown == GROUNDS
    assert ground(page.locator("#themed")) == LIGHT

    first = page.locator("#feed-0")
    page.evaluate("document.body.classList.add('night')")
    expect(first).to_have_css("background-color", DARK)
    page.evaluate("document.body.classList.remove('night')")
    expect(first).to_have_css("background-color", LIGHT)
    page.evaluate("document.documentElement.style.setProperty('--surface', 'rgb(1, 2, 3)')")
    expect(first).to_have_css("background-color", "rgb(1, 2, 3)")
    page.evaluate("document.documentElement.style.setProperty('--event-feed-surface', 'rgb(4, 5, 6)')")
    expect(first).to_have_css("background-color", "rgb(4, 5, 6)")


# --- the package for npm ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the package that `npm pack` makes of the folder."""
    target = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", "--pack-destination", str(target)]
    subprocess.run(command, check=True, cwd=FOLDER, capture_output=True, timeout=60)
    (archive,) = target.glob("*.tgz")
    with tarfile.open(archive) as found:
        files = {member.name.removeprefix("package/"): found.extractfile(member) for member in found}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_the_package_for_npm_is_complete(packed: dict[str, str]) -> None:
    described = json.loads(packed["package.json"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert {name: described[name] for name in ("version", "license")} == {
        name: setup["metadata"][name] for name in ("version", "license")
    }
    exported = described["exports"]["."]
    assert {exported["types"], exported["default"]} == {"./event-feed.d.ts", "./event-feed.js"}
    assert {file.name for file in FOLDER.iterdir()} == set(packed)


def test_a_page_of_the_packed_modules_is_live(shared: Server, proxy: Proxy, page: Page, packed: dict[str, str]) -> None:
    for name, text in packed.items():
        proxy.pages[f"/node_modules/{name}"] = ("text/javascript", text)
    module = '<script type="module" src="/node_modules/event-feed.js"></script>'
    proxy.pages["/"] = ("text/html", f"<!doctype html>{module}<event-feed></event-feed>")
    write(shared.database, *tasks(1))
    page.goto(proxy.url)
    expect(page.locator("event-feed .label")).to_have_text("Live")
    expect(page.locator("event-feed .rows .icon")).to_have_text("📝")  # the server's table of types


def test_the_types_name_every_attribute_and_event_of_the_documentation(packed: dict[str, str]) -> None:
    documented = (FOLDER.parents[1] / "docs" / "event-feed.md").read_text("utf-8")
    types = packed["event-feed.d.ts"]
    table = documented.partition("## Attributes")[2].partition("## Events")[0]
    attributes = [
        name.strip("` ")
        for line in table.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    ]
    assert len(attributes) > 10
    assert [name for name in attributes if f" {name}?:" not in types and f' "{name}"?:' not in types] == []
    events = [line.split("`")[1] for line in documented.splitlines() if line.startswith("| `event-feed:")]
    assert len(events) >= 6
    assert [name for name in events if f'"{name}":' not in types] == []
