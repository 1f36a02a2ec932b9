"""The documentation at /docs: Markdown pages with a menu and a search.

The pages are public and need no database.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, render_template, request
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from outfeed import manual
from outfeed.http.permission import public

MAX_QUERY_CHARS = 200
docs_pages = Blueprint("docs_pages", __name__, url_prefix="/docs")
_LINK = re.compile(r"([\w-]+)\.md(#[\w-]+)?")


@docs_pages.get("")
@docs_pages.get("/<topic>")
@public(is_page=True)
def topic(topic: str = "index") -> str:
    """Show one page of the documentation."""
    if topic not in manual.topics():
        raise NotFound(f'The documentation has no page "{topic:.80}". The menu at /docs lists all pages.')
    return _page(
        topic, title=manual.title(topic), content=rendered(topic, request.script_root), headings=_headings(topic)
    )


@docs_pages.get("/search")
@public(is_page=True)
def search() -> str:
    """Show the sections of the documentation that contain every word of `q`."""
    query = request.args.get("q", "")[:MAX_QUERY_CHARS].strip()
    hits = [(section, _marked(snippet, query)) for section, snippet in manual.search(query)]
    return _page("search", title="Search", query=query, hits=hits)


def _marked(snippet: str, query: str) -> list[tuple[str, bool]]:
    """Return the parts of *snippet*; True marks a word of *query*."""
    words = "|".join(map(re.escape, query.split()))
    parts = re.split(f"({words})", snippet, flags=re.IGNORECASE)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]


def _page(current: str, **values: Any) -> str:
    menu = {group: [(topic, manual.title(topic)) for topic in topics] for group, topics in manual.MENU.items()}
    return render_template("docs.html", menu=menu, current=current, **values)


def _headings(topic: str) -> list[manual.Section]:
    return [each for each in manual.sections() if each.topic == topic and each.anchor]


# --- Markdown ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def rendered(topic: str, root: str) -> Markup:
    """Return the page as HTML, with its links below the path *root*.

    Markup inside the Markdown is shown as text.
    """
    return _render(manual.read(topic), root)


@functools.lru_cache(maxsize=64)
def rendered_section(topic: str, anchor: str, root: str) -> Markup:
    """Return the text under one heading of the page as HTML.

    Its links lie below the path *root*.
    """
    (section,) = [each for each in manual.sections() if (each.topic, each.anchor) == (topic, anchor)]
    return _render(section.text, root)


def _render(text: str, root: str) -> Markup:
    markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    return Markup(markdown.render(text, {"root": root}))  # noqa: S704 - the renderer makes it from a file of the package


class _Renderer(RendererHTML):
    """A renderer for HTML with GitHub's anchors and links between the pages.

    Code and tables can be scrolled by keyboard.
    """

    def heading_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        tokens[idx].attrSet("id", manual.anchor_of(tokens[idx + 1].content))
        return self.renderToken(tokens, idx, options, env)

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        if found := _LINK.fullmatch(str(tokens[idx].attrGet("href"))):
            tokens[idx].attrSet("href", f"{env['root']}/docs/{found[1]}{found[2] or ''}")
        return self.renderToken(tokens, idx, options, env)

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return "</table></div>"

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        language = html.escape(tokens[idx].info.split(" ")[0])
        return f'<pre class="copy" tabindex="0" data-language="{language}">{html.escape(tokens[idx].content)}</pre>\n'
