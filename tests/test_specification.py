"""The specification in the documentation, and the tests that it names."""

from __future__ import annotations

import ast
import re

from outfeed import manual
from tests.server import ROOT

PAGE = manual.read("protocol")
SENTENCES = re.findall(r"^- \*\*([A-Z]\d+)\*\* ", PAGE, re.MULTILINE)
ROWS = dict(re.findall(r"^\| ([A-Z]\d+) \| (.*) \|$", PAGE, re.MULTILINE))


def names_of_tests(name: str) -> set[str]:
    """Return the names of the tests in the file *name* below tests/."""
    tree = ast.parse((ROOT / "tests" / name).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_sentence_has_a_number_of_its_own_and_names_its_tests() -> None:
    assert len(set(SENTENCES)) == len(SENTENCES) > 50
    assert list(ROWS) == SENTENCES
    assert all(ROWS.values())


def test_every_named_test_exists() -> None:
    named = [each.split("::") for row in ROWS.values() for each in re.findall(r"`([^`]+)`", row)]
    missing = [f"{name}::{test}" for name, test in named if test not in names_of_tests(name)]
    assert missing == []
