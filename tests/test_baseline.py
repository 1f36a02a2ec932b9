"""The lint that keeps scripts, styles and templates to the baseline."""

from __future__ import annotations

import pytest

from scripts import baseline

NEWER = {
    "AbortSignal.any": ("a.js", "const signal = AbortSignal.any([one, other]);"),
    "Promise.withResolvers": ("a.js", "const { promise } = Promise.withResolvers();"),
    "groupBy": ("a.js", "Object.groupBy(rows, ({ kind }) => kind)"),
    "a Set method": ("a.js", "seen.union(others)"),
    "an iterator helper": ("a.js", "rows.values().map(textOf)"),
    "an iterator helper of a chain": ("a.js", "rows\n  .entries()\n  .filter(isShown)"),
    "the v flag": ("a.js", r"const SPACE = /[\s--\n]/v;"),
    "a reflected role": ("a.js", 'list.role = "list";'),
    "a reflected label": ("a.js", 'list.ariaLabel = "Rows";'),
    "checkVisibility": ("a.js", "if (row.checkVisibility()) show(row);"),
    "a popover": ("a.js", "menu.showPopover();"),
    "rawJSON": ("a.js", "JSON.rawJSON(digits)"),
    "light-dark() in a script": ("a.js", "element.style.color = `light-dark(${light}, ${dark})`;"),
    ":has() in a script's style": ("a.js", "sheet.replaceSync(`\n.bar:has(button) { color: red; }\n`);"),
    "nesting in a script's style": ("a.js", "const STYLE = sheetOf(`\n.bar {\n  &:hover { color: red; }\n}\n`);"),
    "light-dark()": ("a.css", ":root { --ink: light-dark(#000, #fff); }"),
    ":has()": ("a.css", "label:has(input) { color: red; }"),
    "nesting": ("a.css", ".a { color: red; .b { color: blue; } }"),
    "nesting with an ampersand": ("a.css", "@media print { .a { &:hover { color: blue; } } }"),
    "a media query in a rule": ("a.css", ".a { @media print { color: blue; } .b { color: red; } }"),
    "@starting-style": ("a.css", "@starting-style { .row { opacity: 0; } }"),
    "subgrid": ("a.css", ".row { grid-template-columns: subgrid; }"),
    "a unit": ("a.css", ".row { height: 2lh; }"),
    "a relative colour": ("a.css", ".row { color: rgb(from var(--ink) r g b / 50%); }"),
    "a popover in markup": ("a.html", '<div id="menu" popover>'),
    "exclusive details": ("a.html", '<details class="a" name="b">'),
}


@pytest.mark.parametrize(("file", "text"), NEWER.values(), ids=NEWER)
def test_a_feature_that_an_older_browser_lacks_is_found_with_its_line(file: str, text: str) -> None:
    found = list(baseline.problems(file, f"\n\n{text}"))
    assert found, text
    assert all(each.startswith(f"{file}:") and "Firefox" in each for each in found)
    assert int(found[0].split(":")[1]) >= 3


ALLOWED = {
    "a comment": ("a.js", "// AbortSignal.any is too new\nconst any = 1; /* light-dark() */"),
    "older array methods": (
        "a.js",
        "Object.entries(rows).map(one); [...rows.values()].filter(two); rows.findLast(three)",
    ),
    "older signals": ("a.js", "fetch(url, { signal: AbortSignal.timeout(1000) })"),
    "what asks first": ("a.js", '// baseline: guarded\nif (CSS.supports("color", "light-dark(red, red)")) paint();'),
    "an address in a string": ("a.js", 'const url = "https://example.org/x";'),
    "attributes of ARIA": ("a.js", 'list.setAttribute("aria-label", "Rows"); list.getAttribute("role");'),
    "rules in at-rules": ("a.css", "@media print { @supports (color: red) { .a { color: red; } } .b { color: red; } }"),
    "keyframes": ("a.css", "@keyframes arrive { from { color: red; } to { color: blue; } }"),
    "other functions": ("a.css", ".a { color: color-mix(in srgb, red 8%, blue); width: min(1rem, calc(100% - 1px)); }"),
    "line heights": ("a.css", ".a { line-height: 1.5rem; max-height: 100dvh; }"),
    "plain details": ("a.html", '<details class="name"><summary>More</summary></details>'),
}


@pytest.mark.parametrize(("file", "text"), ALLOWED.values(), ids=ALLOWED)
def test_features_of_older_browsers_are_accepted(file: str, text: str) -> None:
    assert list(baseline.problems(file, text)) == []


def test_the_pages_use_only_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert baseline.main([]) == 0, capsys.readouterr().out
