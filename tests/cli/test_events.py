"""log, events, prune, and the script that prunes."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from app.store.event_log import get_event, list_events, log_event
from app.store.outbox import Outbox

ROOT = Path(__file__).parents[2]


class TestLog:
    def test_it_writes_the_event_and_says_its_id(self, outfeed, database):
        data = {"description": "Füße", "n": [1, None]}

        result = outfeed(
            *("log", "task.created", "--source", "tests", "--task-id", "t1", "--agent-id", "a1"),
            *("--data", json.dumps(data), "--id", "one"),
        )

        assert result.output == "Logged task.created as one.\n"
        event = get_event("one")
        assert (event.source, event.task_id, event.agent_id, event.data) == ("tests", "t1", "a1", data)

    def test_the_same_id_again_changes_nothing_and_with_other_content_fails(self, outfeed, database):
        outfeed("log", "task.created", "--source", "tests", "--id", "one")

        assert outfeed("log", "task.created", "--source", "tests", "--id", "one").exit_code == 0
        other = outfeed("log", "task.failed", "--source", "tests", "--id", "one")

        assert other.exit_code == 1
        assert other.stderr.startswith("Error: id 'one'")
        assert len(list_events()) == 1

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("created", "--source", "s"), "event_type"),
            (("task.created", "--source", "s" * 201), "source"),
            (("task.created", "--source", ""), "source"),
            (("task.created", "--source", "s", "--data", json.dumps("x" * 70_000)), "data"),
            (("task.created", "--source", "s", "--data", "NaN"), "data"),
        ],
    )
    def test_what_is_outside_the_limits_fails_and_is_named(self, outfeed, database, arguments, named):
        result = outfeed("log", *arguments)

        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {named}: ")
        assert list_events() == []


class TestEvents:
    @pytest.fixture
    def three(self, database):
        log_event("task.created", "alpha", task_id="t1", data={"description": "Write docs"}, id="1")
        log_event("task.failed", "beta", task_id="t1", agent_id="a1", data={"reason": "no time"}, id="2")
        log_event("agent.joined", "alpha", agent_id="a1", data={"name": "Forge"}, id="3")

    def test_people_get_a_sentence_each_newest_first(self, outfeed, three):
        lines = outfeed("events").output.splitlines()

        assert [line.split("  ", 1)[1] for line in lines[:3]] == [
            "🟢 Agent Forge joined  alpha",
            "❌ Task failed: no time  beta",
            "📝 New task: Write docs  alpha",
        ]
        assert lines[3:] == ["Showed 3 events, newest first."]

    def test_machines_get_an_array_with_one_event_a_line(self, outfeed, three):
        output = outfeed("events", "--json").output

        assert [event["id"] for event in json.loads(output)] == ["3", "2", "1"]
        assert len(output.splitlines()) == 3
        assert json.loads(output)[1]["data"] == {"reason": "no time"}

    @pytest.mark.parametrize(
        ("filters", "ids"),
        [
            (("--type", "task.failed"), ["2"]),
            (("--source", "alpha"), ["3", "1"]),
            (("--task-id", "t1"), ["2", "1"]),
            (("--agent-id", "a1", "--source", "alpha"), ["3"]),
            (("--limit", "1"), ["3"]),
            (("--type", "task.*"), []),
        ],
    )
    def test_filters_are_joined_by_and(self, outfeed, three, filters, ids):
        assert [event["id"] for event in json.loads(outfeed("events", "--json", *filters).output)] == ids

    def test_none_is_said_so_or_an_empty_array(self, outfeed, database):
        assert outfeed("events").output == "No event matches.\n"
        assert json.loads(outfeed("events", "--json").output) == []

    def test_what_others_wrote_can_not_steer_the_terminal(self, outfeed, database):
        log_event("task.created", "so\x1b[31murce", data={"description": "a\x1b[2Jb\u202ec\x07"})

        output = outfeed("events").output

        assert "a\ufffd[2Jb\ufffdc\ufffd" in output
        assert not set(output) & {"\x1b", "\x07", "\u202e"}


class TestPrune:
    @pytest.fixture
    def old_and_new(self, database):
        for number in range(3):
            log_event("task.created", "tests", timestamp=f"2020-01-0{number + 1}T00:00:00Z")
        log_event("task.created", "tests", id="new")

    def test_it_deletes_what_is_older_and_says_how_many(self, outfeed, old_and_new):
        assert outfeed("prune", "--older-than-days", 30).output == "Pruned 3 events older than 30 days.\n"
        assert [event.id for event in list_events(source="tests")] == ["new"]
        assert [event.data for event in list_events(event_type="system.pruned")] == [
            {"events": 3, "older_than_days": 30, "by": "command line"}
        ]

    def test_a_dry_run_deletes_nothing(self, outfeed, old_and_new):
        output = outfeed("prune", "--older-than-days", 1, "--dry-run").output

        assert output == "Would prune 3 events older than 1 day; nothing was deleted.\n"
        assert len(list_events()) == 4

    def test_machines_get_an_object(self, outfeed, old_and_new):
        for flags, deleted in ((["--dry-run"], 0), ([], 3)):
            facts = json.loads(outfeed("prune", "--older-than-days", 30, "--json", *flags).output)
            assert facts == {"matched": 3, "deleted": deleted, "older_than_days": 30, "dry_run": bool(flags)}

    def test_the_script_does_the_same_from_any_folder(self, old_and_new, tmp_path):
        command = [sys.executable, str(ROOT / "scripts" / "prune_events.py"), "--older-than-days", "30"]

        def run(*more):
            return subprocess.run(
                [*command, *more], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
            )

        assert run("--dry-run").stdout == "Would prune 3 events older than 30 days; nothing was deleted.\n"
        assert json.loads(run("--json").stdout)["deleted"] == 3
        assert run().stdout == "Pruned 0 events older than 30 days.\n"
        assert run("--surplus").returncode == 2
        (tmp_path / "outfeed.db").unlink()
        assert (run().returncode, run().stdout) == (1, "")


class TestPruneOne:
    def test_it_takes_the_event_out_of_log_outbox_and_file(self, outfeed, database):
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
        assert list_events(event_type="system.pruned")[0].data == {"events": 1, "id": "1", "by": "command line"}
        database.close()
        assert not any(b"never to be seen" in file.read_bytes() for file in database.path.parent.glob("outfeed.db*"))

    def test_machines_get_an_object_and_an_unknown_id_fails(self, outfeed, database):
        log_event("a.b", "s", id="1")

        assert json.loads(outfeed("prune", "--id", "1", "--json").output) == {
            "matched": 1, "deleted": 1, "id": "1", "dry_run": False
        }  # fmt: skip
        assert outfeed("prune", "--id", "1").exit_code == 1
        assert outfeed("prune", "--id", "1", "--older-than-days", "1").exit_code == 2
