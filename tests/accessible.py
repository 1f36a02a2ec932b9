"""Checks of a page in a browser, at each size and theme."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.page import DESKTOP, PHONE

# Rules that depend on the theme, and on the size. All other rules are checked once.
THEME = ["color-contrast"]
SIZE = ["color-contrast", "target-size", "scrollable-region-focusable"]
VIEWS: list[tuple[str, dict[str, int], list[str] | None]] = [
    ("light", DESKTOP, None), ("dark", DESKTOP, THEME), ("dark", PHONE, SIZE), ("light", PHONE, THEME),
]  # fmt: skip


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
