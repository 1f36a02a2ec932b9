"""Checks of a page in a browser, at each size and theme."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Browser, Page, expect

from tests.page import DESKTOP, PHONE
from tests.server import Server

# Rules that depend on the theme, and on the size. All other rules are checked once.
THEME = ["color-contrast"]
SIZE = ["color-contrast", "target-size", "scrollable-region-focusable"]
VIEWS: list[tuple[str, dict[str, int], list[str] | None]] = [
    ("light", DESKTOP, None), ("dark", DESKTOP, THEME), ("dark", PHONE, SIZE), ("light", PHONE, THEME),
]  # fmt: skip

VIOLATIONS = """async ([within, options]) => {
    const found = await axe.run(within || document, options);
    return {...found, passes: [], incomplete: [], inapplicable: []};
}"""


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


def problems(page: Page, rules: list[str] | None = None, within: Any = None) -> str:
    """Return axe's report of the page, or of a part; empty if all is well.

    A document loads axe once. No rule reads the style sheets, so axe does not request them again.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": rules} if rules else {})
    found = AxeResults(page.evaluate(VIOLATIONS, [within, options]))
    return found.generate_report() if found.violations_count else ""


def check_everywhere(page: Page, what: str) -> None:
    """Check the page with axe and for its width, at each size and theme."""
    for theme, size, rules in VIEWS:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert problems(page, rules) == "", (what, theme, size)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"], (what, size)
    expect(page.locator("h1")).to_have_count(1)
