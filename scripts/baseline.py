"""Check the page's scripts and styles against the browser baseline.

The baseline is Safari 16.4, Firefox 115 and Chrome 111. Usage: python -m scripts.baseline [FILE …]; without a FILE, all
files of the package. Prints one line for each use of a newer feature, and exits 1 if there is one. The table lists
features that MDN's browser-compat-data (v6.1.5) gives a later version for, if such pages might use them. It omits
features that older browsers ignore without harm. A line that ends with `baseline: guarded`, and the line after it, may
use a newer feature: the code tests for it first.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.prose import files, report

GUARD = "baseline: guarded"
COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`\\])//[^\n]*", re.DOTALL)


class Feature(NamedTuple):
    """A feature of newer browsers: its pattern, its name and its versions.

    The versions are those of Chrome, Firefox and Safari.
    """

    pattern: re.Pattern[str]
    name: str
    since: tuple[str, str, str]


def _features(rows: list[tuple[str, str, str]]) -> list[Feature]:
    found = []
    for pattern, name, versions in rows:
        chrome, firefox, safari = versions.split()
        found.append(Feature(re.compile(pattern), name, (chrome, firefox, safari)))
    return found


# A name that older objects have as well (`map`, `has`) is matched only if the text is certainly the newer one.
SCRIPT = _features(
    [
        (r"AbortSignal\.any\b", "AbortSignal.any", "116 124 17.4"),
        (r"Promise\.withResolvers\b", "Promise.withResolvers", "119 121 17.4"),
        (r"Promise\.try\b", "Promise.try", "128 134 18.2"),
        (r"\b(?:Object|Map)\.groupBy\b", "groupBy", "117 119 17.4"),
        (r"\bArray\.fromAsync\b", "Array.fromAsync", "121 115 16.4"),
        (r"\bURL\.canParse\b", "URL.canParse", "120 115 17"),
        (r"\bURL\.parse\b", "URL.parse", "126 126 18"),
        (r"\b(?:params|query|searchParams)\.size\b", "URLSearchParams.size", "113 112 17"),
        (r"\bResponse\.json\(", "Response.json", "105 115 17"),
        (r"\bAtomics\.waitAsync\b", "Atomics.waitAsync", "87 145 16.4"),
        (r"\.(?:isWellFormed|toWellFormed)\(", "well-formed strings", "111 119 16.4"),
        (
            r"\.(?:union|intersection|difference|symmetricDifference|isSubsetOf|isSupersetOf|isDisjointFrom)\(",
            "Set methods", "122 127 17",
        ),
        (
            r"(?<!\bObject)\.(?:values|keys|entries|matchAll)\([^()]*\)\s*\.(?:map|filter|take|drop|flatMap|reduce|toArray|forEach|some|every|find)\(",
            "iterator helpers", "122 131 18.4",
        ),
        (r"\bIterator\.(?:from|prototype)\b", "iterator helpers", "122 131 18.4"),
        (r"\bRegExp\.escape\b", "RegExp.escape", "136 134 18.2"),
        (r"(?<![\w)\]])/(?:[^/\\\n]|\\.)+/[dgimsuy]*v[dgimsuy]*\b", "the v flag of regular expressions", "112 116 17"),
        (r"\bMath\.sumPrecise\b|\bFloat16Array\b|\.getFloat16\(", "Float16", "135 129 18.2"),
        (r"\bfromBase64\(|\.toBase64\(|\.toHex\(|\bfromHex\(", "base64 of Uint8Array", "140 133 18.2"),
        (r"\.transfer(?:ToFixedLength)?\(", "ArrayBuffer.transfer", "114 122 17.4"),
        (r"\bJSON\.(?:rawJSON|isRawJSON)\b", "JSON.rawJSON", "114 135 18.4"),
        (r"\bError\.isError\b", "Error.isError", "134 138 26"),
        (r"\b(?:await )?using \w+ =", "using", "134 141 -"),
        (r"\bimport\b[^\n;]*\bwith\s*\{", "import attributes", "123 138 17.2"),
        (r"\bimport (?:defer|source)\b", "deferred imports", "- - -"),
        (r"\bIntl\.(?:DurationFormat|Segmenter)\b", "Intl.DurationFormat and Segmenter", "129 136 16.4"),
        (r"\bTemporal\.", "Temporal", "144 139 -"),
        (r"\.checkVisibility\(", "checkVisibility", "105 106 17.4"),
        (r"\.(?:showPopover|hidePopover|togglePopover)\(|\bpopover[TA]\w+", "popovers", "114 125 17"),
        (r"\.role\b", "reflection of ARIA roles", "103 119 12.1"),
        (r"\.aria[A-Z]\w+", "reflection of ARIA attributes", "81 119 12.1"),
        (r"\bstartViewTransition\b", "view transitions", "111 144 18"),
        (r"\bgetHTML\(|\bsetHTMLUnsafe\(|\bparseHTMLUnsafe\(", "getHTML", "124 123 17.4"),
        (r"\.moveBefore\(", "moveBefore", "133 144 -"),
        (r"\bscheduler\.(?:yield|postTask)\b", "scheduler", "129 142 -"),
        (r"\brequestIdleCallback\b", "requestIdleCallback", "47 55 -"),
        (r"\bScrollTimeline\b|\bViewTimeline\b", "scroll-driven animations", "115 - 26"),
        (r"\bcaretPositionFromPoint\b", "caretPositionFromPoint", "128 20 26.2"),
        (r"\bnew Highlight\(|\bCSS\.highlights\b", "custom highlights", "105 140 17.2"),
        (r"\bCustomStateSet\b|\bstates\.(?:add|delete|has)\(", "states of custom elements", "125 126 17.4"),
        (r"\bnew FormData\([^,()]+,", "FormData of a submitter", "112 111 16.4"),
        (r"\bnew URLPattern\b", "URLPattern", "95 142 26"),
        (r"\bnavigation\.(?:navigate|addEventListener|currentEntry)\b", "the navigation API", "102 147 26.2"),
        (r"\bEditContext\b|\bCloseWatcher\b", "CloseWatcher", "126 149 -"),
        (r"\bonscrollend\b|[\"']scrollend[\"']", "scrollend", "114 109 26.2"),
        (r"\bUint8ClampedArray\.fromAsync\b|\.at\(-?\d+\)\.with\(", "array copies", "110 115 16"),
        (r"light-dark\(", "light-dark()", "123 120 17.5"),
    ]
)  # fmt: skip
STYLE = _features(
    [
        (r"light-dark\(", "light-dark()", "123 120 17.5"),
        (r":has\(", ":has()", "105 121 15.4"),
        (r"@starting-style\b", "@starting-style", "117 129 17.5"),
        (r"@property\b", "@property", "85 128 16.4"),
        (r"@scope\b", "@scope", "118 146 17.4"),
        (r"@view-transition\b", "@view-transition", "126 - 18.2"),
        (r"@position-try\b|\banchor(?:-size)?\(|\banchor-name:", "anchor positioning", "125 147 26"),
        (r"@function\b|(?<![\w-])if\(", "functions and conditions", "139 - -"),
        (r"@container[^{]*\b(?:style|scroll-state)\(", "style queries", "111 - 18"),
        (r"\bsubgrid\b", "subgrid", "117 71 16"),
        (r"\banimation-timeline:|\bscroll-timeline|\bview-timeline", "scroll-driven animations", "115 - 26"),
        (r"\banimation-composition:", "animation-composition", "112 115 16"),
        (r"\btransition-behavior:|\ballow-discrete\b", "transition-behavior", "117 129 18"),
        (r"\b(?:rgba?|hsla?|hwb|lab|lch|oklab|oklch|color)\(\s*from\b", "relative colours", "119 128 16.4"),
        (r"(?<![\w-])(?:round|mod|rem)\(", "round(), mod(), rem()", "125 118 15.4"),
        (r"(?<![\w-])(?:pow|sqrt|hypot|log|exp)\(", "pow() and its kin", "120 118 15.4"),
        (r"(?<![\w-])(?:abs|sign)\(", "abs(), sign()", "138 118 15.4"),
        (r"\d(?:r?lh|rcap|rch|rex|ric|cap)\b", "lh and other units of type", "118 147 17.2"),
        (r"\bcalc-size\(|\binterpolate-size:", "calc-size()", "129 - -"),
        (r"\bfield-sizing:", "field-sizing", "123 - 26.2"),
        (r"\bmask(?:-image|-size|-repeat|-position)?:", "mask without a prefix", "120 53 15.4"),
        (r"\boffset-position:|\boffset-anchor:", "offset-position", "116 122 16"),
        (r"\boverlay:|:popover-open|::backdrop\b.*popover", "popovers", "114 125 17"),
        (r":dir\(", ":dir()", "120 49 16.4"),
        (r":(?:user-valid|user-invalid)\b", ":user-valid", "119 88 16.5"),
        (r":state\(", ":state()", "125 126 17.4"),
        (r"::highlight\(", "::highlight()", "105 140 17.2"),
        (r"::details-content\b", "::details-content", "131 143 18.4"),
        (r":(?:open|modal-open)\b", ":open", "133 136 26.5"),
        (r"\btext-box(?:-trim|-edge)?:", "text-box-trim", "133 - 18.2"),
        (r"\bcontrast-color\(", "contrast-color()", "147 146 26"),
        (r"\balign-content:[^;]*;[^}]*display:\s*block", "align-content in blocks", "123 125 17.4"),
        (r"\bzoom:", "zoom", "1 126 3.1"),
        (r"\blinear\(", "linear()", "113 112 17.2"),
        (r"\bfont-size-adjust:\s*(?:from-font|ex-height|cap-height)", "font-size-adjust", "127 118 17"),
        (r"\bimage-set\([^)]*type\(", "type() in image-set()", "113 89 17"),
        (r"\bsmooth\b(?=[^{}]*scroll-snap)|\bscrollbar-gutter:", "scrollbar-gutter", "94 97 18.2"),
    ]
)  # fmt: skip
MARKUP = _features(
    [
        (r"\spopover(?:target)?[\s=>]", "popovers", "114 125 17"),
        (r"<details[^>]*\sname=", "exclusive details", "120 130 17.2"),
        (r"<search[\s>]", "<search>", "118 118 17"),
        (r"\bshadowrootmode=", "declarative shadow roots", "111 123 16.4"),
        (r"\bcommandfor=|\bclosedby=", "invokers", "135 144 26.2"),
        (r"<selectedcontent\b|type=\"importmap\"[^>]*src=", "customizable select", "135 - -"),
        (r"\shidden=\"until-found\"", "until-found", "102 139 26.2"),
    ]
)


def problems(name: str, text: str) -> Iterator[str]:
    """Yield a line for each newer feature in *text*, the content of *name*."""
    kind = Path(name).suffix
    if kind == ".html":
        yield from _found(name, text, MARKUP)
        return
    lines = text.split("\n")
    guarded = [GUARD in line or GUARD in before for before, line in zip(["", *lines], lines, strict=False)]
    plain = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text).split("\n")
    kept = "\n".join("" if is_guarded else line for line, is_guarded in zip(plain, guarded, strict=True))
    if kind == ".css":
        yield from _found(name, kept, STYLE)
        yield from _nested(name, kept)
        return
    yield from _found(name, kept, SCRIPT)
    for sheet in re.finditer(r"(?:replaceSync|sheetOf)\(`\n(.*?)`\)", kept, re.DOTALL):  # styles in a script
        above = "\n" * kept.count("\n", 0, sheet.start(1))
        yield from _found(name, above + sheet[1], STYLE)
        yield from _nested(name, above + sheet[1])


def _found(name: str, text: str, features: list[Feature]) -> Iterator[str]:
    for feature in features:
        for use in feature.pattern.finditer(text):
            line = text.count("\n", 0, use.start()) + 1
            yield f"{name}:{line}: {feature.name}: since " + ", ".join(
                f"{browser} {version}"
                for browser, version in zip(("Chrome", "Firefox", "Safari"), feature.since, strict=True)
            )


def _nested(name: str, text: str) -> Iterator[str]:
    """Yield each rule within a rule.

    Chrome 112, Firefox 117 and Safari 16.5 have nesting.
    """
    open_rules: list[bool] = []  # for each open brace, whether it belongs to a rule with a selector
    start = 0
    for brace in re.finditer(r"[{};]", text):
        if brace[0] == "{":
            prelude = text[start : brace.start()].strip()
            is_rule = not prelude.startswith("@")
            if any(open_rules):
                line = text.count("\n", 0, brace.start()) + 1
                yield f"{name}:{line}: nesting: since Chrome 112, Firefox 117, Safari 16.5"
            open_rules.append(is_rule)
        elif brace[0] == "}" and open_rules:
            open_rules.pop()
        start = brace.end()


def main(names: list[str]) -> int:
    """Report the files of *names*, or all of the package if there are none."""
    every = (name for name in files(".js", ".css", ".html") if name.startswith("app/outfeed/"))
    return report(names or [*every], problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
