"""The mutation run: it reports unnoticed faults and keeps the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants import MUTANTS, ROOT, Mutant, notices


@pytest.mark.parametrize(("new", "is_noticed"), [("limit = 2", True), ("limit = 1  # the same", False)])
def test_a_fault_is_noticed_and_the_file_is_restored(tmp_path: Path, new: str, is_noticed: bool) -> None:
    module, test = tmp_path / "app/outfeed/part.py", tmp_path / "test_part.py"
    module.parent.mkdir(parents=True)
    module.write_text("limit = 1\n")
    test.write_text(f"def test():\n    found = {{}}\n    exec(open({str(module)!r}).read(), found)\n"
                    "    assert found['limit'] == 1\n")  # fmt: skip
    assert notices(tmp_path, Mutant("part.py", "limit = 1", new, ("test_part.py",))) is is_noticed
    assert module.read_text() == "limit = 1\n"


def test_the_table_names_tests_that_exist() -> None:
    assert not [test for mutant in MUTANTS for test in mutant.tests if not (ROOT / test).exists()]
