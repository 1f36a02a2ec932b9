"""The lint that keeps forbidden words out of the texts that users read."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import prose

PLANTED = {
    "a template": ("a.html", "<p>\nNobody is at work.</p>", 2),
    "a string of a script": ("a.js", '\nsay("The feed begins anew.");', 2),
    "a template string of a script": ("a.js", "say(`${name} waits in vain`);", 1),
    "an error": ("a.py", 'raise ValueError("an error of ours")', 1),
    "an f-string": ("a.py", '\n\nraise ValueError(f"{name} is worthless")', 3),
    "the help of a command": ("a.py", '@click.command()\ndef tidy():\n    """Tidy up for whoever asks."""', 2),
    "the help of an option": ("a.py", 'click.option("--all", help="What is left.")', 1),
}
ALLOWED = {
    "a docstring": ("a.py", '"""For want of a better name."""'),
    "the docstring of a function": ("a.py", 'def tidy():\n    """Tidy up for whoever asks."""'),
    "a comment of a script": ("a.js", "// nobody reads this\nstart();"),
    "a comment of a template": ("a.html", "{# nobody reads this #}<p>Fine.</p>"),
    "a question": ("a.html", "<p>What is a cursor?</p>"),
    "no longer": ("a.py", 'raise ValueError("the event is no longer in the outbox")'),
}


@pytest.mark.parametrize(("name", "text", "line"), PLANTED.values(), ids=PLANTED)
def test_a_planted_word_is_found_on_its_line(name: str, text: str, line: int) -> None:
    (problem,) = prose.problems(name, text)
    assert problem.startswith(f"{name}:{line}: ")


@pytest.mark.parametrize(("name", "text"), ALLOWED.values(), ids=ALLOWED)
def test_what_users_do_not_read_and_plain_words_are_left_alone(name: str, text: str) -> None:
    assert list(prose.problems(name, text)) == []


def test_the_exit_code_says_whether_one_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = tmp_path / "page.html"
    planted.write_text("<p>Nobody is here.</p>")
    assert prose.main([str(planted)]) == 1
    assert "page.html:1: 'Nobody'" in capsys.readouterr().out
    planted.write_text("<p>No agents connected.</p>")
    assert prose.main([str(planted)]) == 0
