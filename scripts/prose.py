"""List texts that break the prose rules, and exit 1 if there is one.

Usage: python scripts/prose.py [FILE …]; without a FILE the whole project is read. The rules:

- no word of FORBIDDEN;
- no sentence with a bare `who`, `what` or `nobody` as its subject, and none that begins with `where` as a condition;
- a docstring's summary is one line of at most 72 characters.

Texts are the strings, docstrings and comments of Python, the texts and comments of templates, JavaScript, CSS and SQL,
and Markdown outside of code. Of tests, only docstrings and comments are read: their strings are what people may write.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# These files quote what the rules forbid.
LEFT_OUT = ("scripts/prose.py", "tests/test_prose.py")
MAX_SUMMARY_CHARS = 72

FORBIDDEN = re.compile(
    r"\b(?:who(?:ever|soever)|whatever|anew|in vain|of ours|make-believe|for want of|worthless|meanwhile|no sooner"
    r"|aught|lest|(?:no|some|every)body|an error of)\b|(?<!there )\b(?:is|are) no (?!longer|more|URL)",
    re.IGNORECASE,
)
HEADLESS = re.compile(r"(?:^|(?<=[.;!?:] ))(?:Who|Whose|What|Where|Everyone|Everything that)\b[^.;?!]*(?=$|[.;!])")
CODE = re.compile(r"`[^`]*`")
FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(
    r"{#(?P<template>.*?)#}|<!--(?P<markup>.*?)-->|/\*(?P<block>.*?)\*/|(?:(?<![:\w\"'`\\])//|^--)(?P<line>[^\n]*)",
    re.DOTALL | re.MULTILINE,
)
QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`')
# A paragraph, an item of a list, a heading or a row of a table.
BLOCK = re.compile(r"[^\n]+(?:\n(?! *(?:[-*] |\d+\. |#|\|)|\n)[^\n]+)*")
TAG = re.compile(r"<[^<>]*>|{%.*?%}|{{.*?}}", re.DOTALL)


class Text(NamedTuple):
    """A text that people read, and the line on which it begins."""

    line: int
    content: str


def problems(name: str, source: str) -> Iterator[str]:
    """Yield a line for each breach in *source*, the content of the file *name*."""
    for line, content in texts(name, source):
        plain = " ".join(CODE.sub("X", content).split())
        for found in (*FORBIDDEN.finditer(plain), *HEADLESS.finditer(plain)):
            yield f"{name}:{line}: {found[0].strip()[:60]!r} in {plain[max(0, found.start() - 30) :][:100]!r}"
    if name.endswith(".py"):
        yield from _long_summaries(name, ast.parse(source))


def texts(name: str, source: str) -> Iterator[Text]:
    """Yield each text that people read in *source*, the content of the file *name*."""
    kind = Path(name).suffix
    if kind == ".py":
        yield from _docstrings(ast.parse(source))
        yield from _python_comments(source)
        if "tests" not in Path(name).parts:
            yield from _python_strings(ast.parse(source))
    elif kind == ".md":
        yield from _paragraphs(FENCED.sub(lambda found: "\n" * found[0].count("\n"), source))
    else:
        yield from _comments(source)
        bare = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), source)
        if kind == ".html":
            yield from _lines(TAG.sub(lambda found: "\n" * max(found[0].count("\n"), 0), bare))
        elif kind == ".js":
            yield from (Text(bare.count("\n", 0, found.start()) + 1, found[0][1:-1]) for found in QUOTED.finditer(bare))


def _docstrings(tree: ast.Module) -> Iterator[Text]:
    for node in _documented(tree):
        yield from (
            Text(node.body[0].lineno + text.line - 1, text.content) for text in _paragraphs(ast.get_docstring(node))
        )


def _documented(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            yield node


def _long_summaries(name: str, tree: ast.Module) -> Iterator[str]:
    for node in _documented(tree):
        summary, *rest = (ast.get_docstring(node) or "").split("\n")
        if len(summary) > MAX_SUMMARY_CHARS:
            yield f"{name}:{node.body[0].lineno}: a summary of {len(summary)} characters, at most {MAX_SUMMARY_CHARS}"
        elif rest and rest[0]:
            yield f"{name}:{node.body[0].lineno}: a summary of more than one line"


def _python_comments(source: str) -> Iterator[Text]:
    """Yield the comments; those on adjacent lines are one."""
    comments = [
        (token.start[0], token.start[1], token.string.lstrip("#! "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for _, group in groupby(enumerate(comments), key=lambda each: (each[1][0] - each[0], each[1][1])):
        block = [comment for _, comment in group]
        yield Text(block[0][0], "\n".join(content for _, _, content in block))


def _python_strings(tree: ast.Module) -> Iterator[Text]:
    """Yield each string that is no docstring, an f-string as a whole."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(map(id, ast.walk(node)))
            yield Text(node.lineno, "".join(_part(part) for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield Text(node.lineno, node.value)


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "{}"


def _comments(source: str) -> Iterator[Text]:
    """Yield the comments of a template, script, stylesheet or SQL file; adjacent `//` lines are one."""
    for found in COMMENT.finditer(source):
        content = next(part for part in found.groups() if part is not None)
        yield Text(source.count("\n", 0, found.start()) + 1, re.sub(r"^ *\*+", "", content, flags=re.MULTILINE))


def _paragraphs(source: str | None) -> Iterator[Text]:
    """Yield the paragraphs and items of Markdown; no headings, and each cell of a table by itself."""
    for block in BLOCK.finditer(source or ""):
        line = (source or "").count("\n", 0, block.start()) + 1
        content = block[0].strip(" \n-*")
        if content.startswith("|"):
            yield from (Text(line, cell.strip()) for cell in content.split("|"))
        elif not content.startswith("#"):
            yield Text(line, content)


def _lines(source: str) -> Iterator[Text]:
    yield from (Text(number, content.strip()) for number, content in enumerate(source.split("\n"), 1))


def files(*kinds: str) -> list[str]:
    """Return the project's files whose names end so."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).split()
    return [name for name in listed if name.endswith(kinds)]


def report(names: list[str], problems_of: Callable[[str, str], Iterator[str]]) -> int:
    """Print the problems of those files, a line each, and return the exit code."""
    found = [problem for name in names for problem in problems_of(name, (ROOT / name).read_text("utf-8"))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


def main(names: list[str]) -> int:
    """Report the files of *names*, or the whole project if there are none."""
    every = files(".py", ".html", ".js", ".css", ".md", ".sql")
    return report(names or [name for name in every if name not in LEFT_OUT], problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
