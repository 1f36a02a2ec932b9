"""The prose check: headless subjects, private words, long summaries."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import prose

LONG = "Return " + "x" * 66

PLANTED = {
    "a template": ("a.html", "<p>\nNobody is at work.</p>", 2),
    "a comment of a template": ("a.html", "\n{# Who comes is told. #}<p>Fine.</p>", 2),
    "a string of a script": ("a.js", '\nsay("The feed begins anew.");', 2),
    "a template string of a script": ("a.js", "say(`${name} waits in vain`);", 1),
    "a comment of a script": ("a.js", "start();\n// What is cut is left out.\n", 2),
    "a block comment of a script": ("a.js", "/**\n * Runs for whoever asks.\n */\n", 1),
    "a comment of a stylesheet": ("a.css", "p { color: red; } /* for want of a better one */", 1),
    "an error": ("a.py", 'raise ValueError("an error of ours")', 1),
    "an f-string": ("a.py", '\n\nraise ValueError(f"{name} is worthless")', 3),
    "a docstring": ("a.py", 'def tidy():\n    """Tidy up for whoever asks."""', 2),
    "a later paragraph of a docstring": ("a.py", '"""A module.\n\nIt is fine. Where it is not, it ends.\n"""', 3),
    "a comment": ("a.py", "tidy()\n# Who has left\n# is forgotten.\n", 2),
    "the help of an option": ("a.py", 'click.option("--all", help="What is left.")', 1),
    "a summary that is too long": ("a.py", f'def f():\n    """{LONG}"""', 2),
    "a summary on two lines": ("a.py", '"""Return one\nof two."""', 1),
    "a paragraph of Markdown": ("a.md", "# Title\n\nNothing is lost. Who comes late is told.\n", 3),
    "an item of Markdown": ("a.md", "- one\n- What is two is told.\n", 2),
    "a cell of Markdown": ("a.md", "| a | b |\n|---|---|\n| fine | Who may |\n", 3),
    "a comment of a test": ("tests/a.py", "# nobody comes\n", 1),
    "a comment of a migration": ("a.sql", "-- Who may.\nCREATE TABLE a (b);", 1),
}
ALLOWED = {
    "a string of a test": ("tests/a.py", 'write("Nobody is at work.")'),
    "a question": ("a.html", "<p>What is a cursor?</p>"),
    "no longer": ("a.py", 'raise ValueError("the event is no longer in the outbox")'),
    "code of Markdown": ("a.md", "Run `nobody`:\n\n```sh\n# Who comes\nnobody\n```\n"),
    "a heading": ("a.md", "## What it is\n"),
    "a place": ("a.md", "The folder where the files are.\n"),
    "an address in a script": ("a.js", 'const a = "http://nobody.example/";'.replace("nobody", "x")),
    "a comment within a statement of a migration": ("a.sql", "CREATE TABLE a (\n    b -- Who may.\n);"),
    "a summary of full length": ("a.py", f'def f():\n    """{LONG[:-1]}"""'),
}


@pytest.mark.parametrize(("name", "text", "line"), PLANTED.values(), ids=PLANTED)
def test_a_planted_breach_is_found_on_its_line(name: str, text: str, line: int) -> None:
    (problem,) = prose.problems(name, text)
    assert problem.startswith(f"{name}:{line}: ")


@pytest.mark.parametrize(("name", "text"), ALLOWED.values(), ids=ALLOWED)
def test_plain_texts_and_code_are_accepted(name: str, text: str) -> None:
    assert list(prose.problems(name, text)) == []


def test_the_exit_code_tells_whether_a_breach_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = tmp_path / "page.html"
    planted.write_text("<p>Nobody is here.</p>")
    assert prose.main([str(planted)]) == 1
    assert f"{planted}:1: 'Nobody'" in capsys.readouterr().out
    planted.write_text("<p>No agents connected.</p>")
    assert prose.main([str(planted)]) == 0
