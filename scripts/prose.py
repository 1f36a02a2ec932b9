"""Lists forbidden words in the texts that users read: templates, scripts of pages, CLI help, errors and settings."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "app" / "outfeed"
FORBIDDEN = re.compile(
    r"\b(?:whoever|whatever|anew|in vain|of ours|make-believe|for want of|worthless|(?:no|some)body|meanwhile|no sooner"
    r"|an error of|aught|lest)\b|(?<!there )\b(?:is|are) no (?!longer|more|URL)"
    r"|(?:^|[.;:] )(?:who|what) (?:is|are|has|was|does)\b(?![^.;:]*\?)",
    re.IGNORECASE,
)
COMMENT = re.compile(r"{#.*?#}|/\*.*?\*/|(?<![:\w])//[^\n]*", re.DOTALL)
SCRIPT_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`')


def problems(name: str, text: str) -> Iterator[str]:
    """Yield a line for each forbidden word in *text*, the content of the file *name*."""
    for line, said in texts(Path(name).suffix, text):
        for found in FORBIDDEN.finditer(" ".join(said.split())):
            yield f"{name}:{line}: {found[0].strip()!r} in {' '.join(said.split())[:100]!r}"


def texts(kind: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and content of each text that users may read in a file of that *kind*."""
    if kind == ".py":
        yield from _python_texts(ast.parse(text))
        return
    plain = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
    if kind == ".html":
        yield from enumerate(plain.split("\n"), 1)
        return
    for found in SCRIPT_TEXT.finditer(plain):
        yield plain.count("\n", 0, found.start()) + 1, found[0][1:-1]


def _python_texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each string that is no docstring, an f-string as a whole, and the help of each command."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and _is_command(node) and (text := ast.get_docstring(node)):
            yield node.lineno, text
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(map(id, ast.walk(node)))
            yield node.lineno, "".join(_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "{}"


def _is_command(node: ast.FunctionDef) -> bool:
    """Return whether a decorator like `@click.command()` or `@user.group()` makes the docstring a help text."""
    made_by = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Attribute) and each.attr in ("command", "group") for each in made_by)


def main(names: list[str]) -> int:
    files = [Path(name) for name in names] or sorted(
        file for file in PACKAGE.rglob("*") if file.suffix in (".html", ".js", ".py")
    )
    found = [problem for file in files for problem in problems(str(file), file.read_text("utf-8"))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
