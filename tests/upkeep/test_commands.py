"""Output and exit codes of the upkeep commands and scripts."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest

from outfeed import list_events, log_event
from outfeed.cli import main
from outfeed.display import look_of
from outfeed.store import database as db
from outfeed.store.outbox import Outbox

ROOT = Path(__file__).parents[2]


@pytest.fixture
def old_and_new(database):
    for number in range(3):
        log_event("task.created", "tests", timestamp=f"2020-01-0{number + 1}T00:00:00Z")
    log_event("task.created", "tests", id="new")


def left():
    return [event.id for event in list_events() if event.source != "outfeed"]


def script(name, folder, *arguments):
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def answer(monkeypatch):
    """Return a function that makes stdin a terminal on which *text* is typed."""
    with contextlib.ExitStack() as stack:

        def type_in(text):
            master, slave = pty.openpty()
            stack.callback(os.close, master)
            monkeypatch.setattr(sys, "stdin", stack.enter_context(open(slave, encoding="utf-8")))
            os.write(master, text.encode())

        yield type_in


class TestConfirmation:
    """`restore` and `prune` ask on a terminal, and nowhere else."""

    def test_prune_on_a_terminal_deletes_after_a_yes(self, old_and_new, answer, capsys):
        for typed, expected in (("n\n", 4), ("\n", 4), ("y\n", 2)):
            answer(typed)
            with contextlib.suppress(click.Abort):
                main(["prune", "--older-than-days", "30"], standalone_mode=False)
            assert len(list_events()) == expected
        assert re.match(r"Delete the events older than 30 days from \S+outfeed.db\? \[y/N\]: ", capsys.readouterr().err)

    def test_restore_on_a_terminal_changes_the_database_after_a_yes(self, outfeed, old_and_new, answer, tmp_path):
        outfeed("backup", tmp_path / "copy.db")
        log_event("task.created", "tests", id="after")
        for typed, is_restored in (("n\n", False), ("y\n", True)):
            answer(typed)
            with contextlib.suppress(click.Abort):
                main(["restore", str(tmp_path / "copy.db")], standalone_mode=False)
            assert ("after" not in left()) == is_restored

    @pytest.mark.parametrize("flag", ["--yes", "--dry-run"])
    def test_a_flag_replaces_the_answer(self, old_and_new, answer, flag, capsys):
        answer("")
        main(["prune", "--older-than-days", "30", flag], standalone_mode=False)
        assert capsys.readouterr().err == ""


class TestPrune:
    def test_prune_deletes_older_events_and_prints_their_number(self, outfeed, old_and_new):
        assert outfeed("prune", "--older-than-days", 30).output == "Pruned 3 events older than 30 days.\n"
        assert left() == ["new"]
        (event,) = list_events(event_type="system.pruned")
        assert (event.data["events"], event.data["by"]) == (3, "command line")
        assert look_of(event, {}).text == "Pruned 3 events older than 30 days, by command line"

    def test_a_dry_run_deletes_nothing(self, outfeed, old_and_new):
        output = outfeed("prune", "--older-than-days", 1, "--dry-run").output

        assert output == "Would prune 3 events older than 1 day; nothing was deleted.\n"
        assert len(list_events()) == 4

    def test_json_prints_one_object(self, outfeed, old_and_new):
        for flags, deleted in ((["--dry-run"], 0), ([], 3)):
            facts = json.loads(outfeed("prune", "--older-than-days", 30, "--json", *flags).output)
            assert facts.pop("freed_bytes") >= 0
            assert facts == {
                "matched": 3, "deleted": deleted, "older_than_days": 30, "dry_run": bool(flags), "outbox_rows": 0,
                "archives": [],
            }  # fmt: skip

    def test_the_archive_is_named_and_can_be_imported(self, outfeed, old_and_new, tmp_path):
        output = outfeed("prune", "--older-than-days", 30, "--archive", tmp_path / "kept").output
        assert output == f"Pruned 3 events older than 30 days; the events are in 1 file in {tmp_path / 'kept'}.\n"
        (archive,) = (tmp_path / "kept").glob("*.gz")
        done = outfeed("events", "import", archive, "--into", tmp_path / "old.db")
        assert done.output == f"Imported 3 events from 1 archive into {tmp_path / 'old.db'}.\n"
        again = outfeed("events", "import", archive, "--into", tmp_path / "old.db")
        assert again.exit_code == 1
        assert "exists" in again.output
        db.at(tmp_path / "old.db").close()

    def test_the_script_does_the_same_from_any_folder(self, old_and_new, tmp_path):
        def run(*more):
            return script("prune_events.py", tmp_path, "--older-than-days", 30, *more)

        assert run("--dry-run").stdout == "Would prune 3 events older than 30 days; nothing was deleted.\n"
        assert json.loads(run("--json").stdout)["deleted"] == 3
        assert run().stdout == "Pruned 0 events older than 30 days.\n"
        assert run("--surplus").returncode == 2
        (tmp_path / "outfeed.db").unlink()
        assert (run().returncode, run().stdout) == (1, "")

    def test_a_terminal_shows_a_progress_bar(self, old_and_new, tmp_path):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "outfeed", "prune", "--older-than-days", "30"]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=theirs, text=True)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's error at its end
            while chunk := os.read(ours, 10_000):
                shown += chunk
        os.close(ours)
        assert b"Pruning" in shown
        assert b"100%" in shown
        assert done.stdout == "Pruned 3 events older than 30 days.\n"


class TestPruneNothing:
    def test_a_missing_database_is_reported_and_not_created(self, outfeed, tmp_path):
        done = outfeed("prune", "--older-than-days", "1")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Error: no database at {tmp_path / 'outfeed.db'}")
        assert list(tmp_path.iterdir()) == []


class TestPruneOne:
    def test_prune_removes_the_event_from_log_outbox_and_file(self, outfeed, database):
        raw = sqlite3.connect(database.path)
        raw.execute("INSERT INTO event_log VALUES ('1', 'a.b', 's', NULL, NULL, '\"never to be seen\"', 't')")
        raw.commit()
        raw.close()
        log_event("a.b", "s", id="2")

        assert outfeed("prune", "--id", "1", "--dry-run").output == (
            "Would prune event 1 from the log and the outbox; nothing was deleted.\n"
        )
        assert outfeed("prune", "--id", "1").output == "Pruned event 1 from the log and the outbox.\n"

        assert [event.id for event in list_events(source="s")] == ["2"]
        assert [item.seq for item in Outbox(database, 65_536).read_after(0, 10).items] == [2, 3]
        assert list_events(event_type="system.pruned")[0].data == {
            "message": "Pruned event 1 from the log and the outbox", "events": 1, "id": "1", "by": "command line"
        }  # fmt: skip
        database.close()
        assert not any(b"never to be seen" in file.read_bytes() for file in database.path.parent.glob("outfeed.db*"))

    def test_json_prints_one_object_and_an_unknown_id_fails(self, outfeed, database):
        log_event("a.b", "s", id="1")

        assert json.loads(outfeed("prune", "--id", "1", "--json").output) == {
            "matched": 1, "deleted": 1, "id": "1", "dry_run": False
        }  # fmt: skip
        assert outfeed("prune", "--id", "1").exit_code == 1
        assert outfeed("prune", "--id", "1", "--dry-run").exit_code == 1
        assert outfeed("prune", "--id", "1", "--older-than-days", "1").exit_code == 2
        assert outfeed("prune", "--id", "1", "--archive", "x").exit_code == 2
        assert outfeed("prune").exit_code == 2


class TestBackup:
    def test_backup_prints_the_number_of_events(self, outfeed, old_and_new, tmp_path):
        assert (
            outfeed("backup", tmp_path / "a.db").output
            == f"Backed up 4 events to {tmp_path / 'a.db'}, and verified the copy.\n"
        )
        facts = json.loads(outfeed("backup", tmp_path / "b.db", "--json").output)
        assert facts["bytes"] == (tmp_path / "b.db").stat().st_size
        assert (facts["events"], facts["head"]) == (5, 5), "the first backup is an event"

    def test_the_script_removes_only_older_backups(self, old_and_new, tmp_path):
        folder = tmp_path / "backups"
        folder.mkdir()
        others = [folder / name for name in ("outfeed-20200101.db", "other-20200101T000000Z.db", "notes")]
        older = [folder / f"outfeed-2020010{n}T000000Z.db" for n in (1, 2, 3)]
        for path in [*others, *older]:
            path.touch()
        done = script("backup_feed.py", tmp_path, "--to", folder, "--keep", 2, "--json")
        facts = json.loads(done.stdout)
        assert facts["removed"] == [older[0].name, older[1].name]
        assert sorted(folder.iterdir()) == sorted([*others, older[2], Path(facts["file"])])
        with sqlite3.connect(facts["file"]) as copy:
            assert copy.execute("SELECT count(*) FROM event_log").fetchone() == (4,)
        copy.close()

    def test_a_failed_backup_removes_nothing(self, tmp_path):
        (tmp_path / "outfeed-20200101T000000Z.db").touch()
        done = script("backup_feed.py", tmp_path, "--to", tmp_path, "--keep", 1)
        assert done.returncode == 1
        assert "no database at" in done.stderr
        assert (tmp_path / "outfeed-20200101T000000Z.db").exists()
        assert script("backup_feed.py", tmp_path, "--to", tmp_path, "--keep", 0).returncode == 2


class TestRestore:
    @pytest.fixture
    def saved(self, outfeed, old_and_new, tmp_path):
        outfeed("backup", tmp_path / "saved.db")
        log_event("task.created", "tests", id="newer")
        return tmp_path / "saved.db"

    def test_restore_names_the_previous_database(self, outfeed, saved, tmp_path):
        output = outfeed("restore", saved).output
        (kept,) = tmp_path.glob("*before-restore*")
        assert output == f"Restored {saved}, with 4 events. The previous database is in {kept}.\n"
        assert "newer" not in left()

    def test_a_dry_run_changes_nothing(self, outfeed, saved):
        done = outfeed("restore", saved, "--dry-run")
        assert done.output == f"Would restore {saved}, with 4 events; nothing was changed.\n"
        assert "newer" in left()

    def test_json_prints_one_object(self, outfeed, saved):
        facts = json.loads(outfeed("restore", saved, "--json").output)
        assert facts["events"] == 4
        assert Path(facts["kept"]).exists()

    def test_a_file_that_is_not_a_backup_is_reported(self, outfeed, database, tmp_path):
        (tmp_path / "x").write_text("no database" * 500)
        done = outfeed("restore", tmp_path / "x")
        assert done.exit_code == 1
        assert done.output.endswith("x is not a backup of a feed: it is damaged or not a database\n")


class TestDoctor:
    def test_a_fresh_database_has_no_trigger_problem(self, outfeed, database):
        done = outfeed("doctor")
        assert done.exit_code == 0, done.output
        assert done.output.endswith("and found no problems.\n")

    def test_a_problem_sets_the_exit_code_and_can_be_fixed(self, outfeed, database):
        with database.connection() as connection:
            connection.execute("DROP TRIGGER event_log_outbox")
        done = outfeed("doctor")
        assert done.exit_code == 1
        assert "problem  triggers: trigger event_log_outbox is missing" in done.output
        assert "Fix: outfeed doctor --fix" in done.output
        facts = json.loads(outfeed("doctor", "--json").output)
        assert facts["ok"] is False
        (found,) = [one for one in facts["findings"] if one["rule"] == "triggers"]
        assert found["fixable"]
        done = outfeed("doctor", "--fix")
        assert done.exit_code == 0
        assert "Fixed: trigger event_log_outbox is missing." in done.output
        assert json.loads(outfeed("doctor", "--json").output)["ok"] is True

    def test_quiet_prints_only_problems(self, outfeed, database):
        assert outfeed("doctor", "--quiet").output == ""
        with database.connection() as connection:
            connection.execute("DROP TRIGGER event_log_outbox")
        done = outfeed("doctor", "--quiet")
        assert (done.exit_code, done.output) == (1, outfeed("doctor").output)
        assert "event_log_outbox is missing" in done.output

    def test_a_missing_database_is_named(self, outfeed, tmp_path):
        done = outfeed("doctor")
        assert done.exit_code == 1
        assert str(tmp_path / "outfeed.db") in done.output
