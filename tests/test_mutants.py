"""The mutation run: it reports unnoticed faults and keeps the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants import MUTANTS, ROOT, Mutant, copy_of_tree, notices, simulation_finds


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


def test_each_mutant_names_a_text_that_its_file_holds_once() -> None:
    files = {mutant.file: (ROOT / "app" / "outfeed" / mutant.file).read_text() for mutant in MUTANTS}
    assert not [mutant for mutant in MUTANTS if files[mutant.file].count(mutant.old) != 1]


def test_the_table_names_fifty_mutants_that_the_simulator_finds_alone() -> None:
    assert sum(mutant.is_simulated for mutant in MUTANTS) >= 50


def test_the_simulator_finds_a_fault_of_the_tail_and_two_of_the_cohorts() -> None:
    # The others take longer: scripts/mutate --by simulation.
    quick = [each for each in MUTANTS if "prev=place.prev" in each.new or "self._tail.extend" in each.old]
    quick += [each for each in MUTANTS if each.new == "self.position = head"]
    assert len(quick) == 3
    with copy_of_tree() as copy:
        assert all(simulation_finds(copy, mutant) for mutant in quick)
