"""The colours of kinds in the stylesheets, and their contrast."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outfeed.display import COLOURS, KINDS

STATIC = Path(__file__).parents[1] / "app" / "outfeed" / "static"
CSS = (STATIC / "outfeed.css").read_text("utf-8")
DARK = (STATIC / "dark.css").read_text("utf-8")
LOOK = (STATIC / "event-feed" / "look.js").read_text("utf-8")
GROUNDS = ("ground", "surface", "hover", "warn-ground", "error-ground")
TWELVE = [f"kind-{number}" for number in range(COLOURS)]


def theme(name: str) -> dict[str, str]:
    """Return the colours of a theme by property.

    The light theme is in outfeed.css. dark.css replaces its colours for the dark one.
    """
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", CSS))
    return found | (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", DARK)) if name == "dark" else {})


def mixed(colour: str, ground: str, share: float) -> str:
    """Return *share* of *colour* over *ground*, as CSS `color-mix` does."""
    pairs = zip(digits_of(colour), digits_of(ground), strict=True)
    return "#" + "".join(f"{round(one * share + other * (1 - share)):02x}" for one, other in pairs)


def digits_of(colour: str) -> list[int]:
    digits = colour[1:] if len(colour) == 7 else "".join(char * 2 for char in colour[1:])
    return [int(digits[start : start + 2], 16) for start in (0, 2, 4)]


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    parts = [part / 255 for part in digits_of(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, another: str) -> float:
    darker, lighter = sorted(map(luminance, (one, another)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("kind", TWELVE)
def test_a_colour_of_the_twelve_is_read_on_every_ground_of_both_themes(name, kind):
    colours = theme(name)
    for ground in GROUNDS:
        assert contrast(colours[kind], colours[ground]) >= 4.5


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("kind", [*KINDS, *TWELVE])
def test_the_type_and_the_count_of_a_row_are_read_on_their_tint(name, kind):
    colours = theme(name)
    (share,) = {float(each) / 100 for each in re.findall(r"\.many \{.*?var\(--kind\) (\d+)%, transparent", CSS)}
    for ground in ("surface", "hover"):
        assert contrast(colours["ink"], mixed(colours[kind], colours[ground], share)) >= 4.5


@pytest.mark.parametrize("name", ["light", "dark"])
def test_warnings_and_errors_are_read_on_their_grounds(name):
    colours = theme(name)
    for level in ("warn", "error"):
        for ground in ("surface", f"{level}-ground", "hover"):
            assert contrast(colours[level], colours[ground]) >= 4.5


@pytest.mark.parametrize("name", ["light", "dark"])
def test_no_two_kinds_have_one_colour(name):
    colours = [theme(name)[kind] for kind in (*KINDS, *TWELVE)]
    assert len(set(colours)) == len(colours)


def test_event_feed_has_the_colours_of_the_pages():
    pairs = {name: (light, dark) for name, light, dark in re.findall(r'"?([\w-]+)"?: \["(#\w+)", "(#\w+)"\]', LOOK)}
    for kind in (*KINDS, *TWELVE):
        assert pairs[kind] == (theme("light")[kind], theme("dark")[kind])
        assert f'[data-colour="{kind}"] {{ --kind: var(--{kind}); }}' in CSS
