"""Checks of a page in a browser, at each size and theme."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.page import DESKTOP, PHONE
from tests.server import Server

# Rules that depend on the theme, and on the size. All other rules are checked once.
THEME = ["color-contrast"]
SIZE = ["color-contrast", "target-size", "scrollable-region-focusable"]
VIEWS: list[tuple[str, dict[str, int], list[str] | None]] = [
    ("light", DESKTOP, None), ("dark", DESKTOP, THEME), ("dark", PHONE, SIZE), ("light", PHONE, THEME),
]  # fmt: skip


@contextlib.contextmanager
def operator_tab(browser: Browser, server: Server) -> Iterator[Page]:
    """Yield one tab of an operator. Its errors fail the block."""
    said: list[str] = []
    with contextlib.closing(browser.new_context(reduced_motion="reduce", locale="en-GB")) as own:
        own.grant_permissions(["clipboard-read", "clipboard-write"])
        own.add_cookies([{"name": server.cookie_name, "value": server.sign_in("operator"), "url": server.url}])
        page = own.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
    assert [text for text in said if "status of 422" not in text] == []  # a form that is not accepted


def problems(page: Page, rules: list[str] | None = None) -> str:
    """Return axe's report of the page; empty without a violation."""
    options: dict[str, Any] = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = Axe().run(page, options=options)
    return found.generate_report() if found.violations_count else ""


def check_everywhere(page: Page, what: str) -> None:
    """Check the page with axe and for its width, at each size and theme."""
    for theme, size, rules in VIEWS:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert problems(page, rules) == "", (what, theme, size)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"], (what, size)
    expect(page.locator("h1")).to_have_count(1)
