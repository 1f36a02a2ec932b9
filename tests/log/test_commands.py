"""The commands log and events."""

import json
import threading
from unittest.mock import Mock

import pytest

from outfeed.log.store.follow import PAGE_EVENTS, LogFollower
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.reading import get_event, list_events
from outfeed.principal import EVERYTHING
from outfeed.store.event_log import log_event


class TestLog:
    def test_log_writes_the_event_and_prints_its_id(self, outfeed, database):
        data = {"description": "Füße", "n": [1, None]}

        result = outfeed(
            *("log", "task.created", "--source", "tests", "--task-id", "t1", "--agent-id", "a1"),
            *("--data", json.dumps(data), "--id", "one"),
        )

        assert result.output == "Logged task.created as one.\n"
        event = get_event("one")
        assert (event.source, event.task_id, event.agent_id, event.data) == ("tests", "t1", "a1", data)

    def test_a_repeated_id_changes_nothing_and_fails_with_other_content(self, outfeed, database):
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
            (("access.signed_in", "--source", "me"), "event_type"),
            (("system.pruned", "--source", "me"), "event_type"),
        ],
    )
    def test_an_invalid_value_fails_with_its_name(self, outfeed, database, arguments, named):
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

    def test_text_output_has_one_sentence_per_event_newest_first(self, outfeed, three):
        lines = outfeed("events").output.splitlines()

        assert [" ".join(line.split()[2:]) for line in lines[:3]] == [
            "agent.joined a1 🟢 Agent Forge joined alpha",
            "task.failed t1 ❌ Task failed: no time beta",
            "task.created t1 📝 New task: Write docs alpha",
        ]
        assert lines[3:] == ["Showed 3 events, newest first."]

    def test_an_event_reads_by_the_display_of_its_type(self, outfeed, database):
        log_event("shop.paid", "till", data={"amount": 5})
        assert outfeed("events").output.splitlines()[0].endswith("  •  amount=5  till")

        outfeed("type", "set", "shop.paid", "--icon", "⚡", "--label", "Paid {amount}")
        shown = outfeed("events", "--type", "shop.paid").output
        assert shown.splitlines()[0].endswith("  ⚡ Paid 5  till")

    def test_json_output_is_an_array_with_one_event_a_line(self, outfeed, three):
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
            (("--type", "task.*"), ["2", "1"]),
            (("--type", "agent.*,task.failed"), ["3", "2"]),
            (("--text", "nothing-of-this"), []),
            (("--from", "2999-01-01T00:00:00Z"), []),
            (("--since", "15m"), ["3", "2", "1"]),
            (("--until", "15m"), []),
        ],
    )
    def test_all_filters_must_match(self, outfeed, three, filters, ids):
        assert [event["id"] for event in json.loads(outfeed("events", "--json", *filters).output)] == ids

    @pytest.mark.parametrize("when", ["soon", "15", "m", "0h", "-5m", "999999d", "2026-13-01T00:00Z"])
    def test_an_invalid_time_is_a_usage_error(self, outfeed, database, when):
        assert outfeed("events", f"--since={when}").exit_code == 2

    def test_an_empty_result_is_a_sentence_or_an_empty_array(self, outfeed, database):
        assert outfeed("events").output == "No events match.\n"
        assert json.loads(outfeed("events", "--json").output) == []

    def test_control_characters_in_events_are_escaped(self, outfeed, database):
        log_event("task.created", "so\x1b[31murce", data={"description": "a\x1b[2Jb\u202ec\x07"})

        output = outfeed("events").output

        assert r"a\x1b[2Jb\u202ec\x07" in output
        assert not set(output) & {"\x1b", "\x07", "\u202e"}


class TestEvent:
    def test_one_event_is_shown_with_all_its_fields_and_data(self, outfeed, database):
        log_event("task.created", "ci", task_id="t1", data={"description": "Füße\x1b", "n": [1]}, id="one")

        lines = outfeed("event", "one").output.splitlines()

        assert lines[0].endswith(r"📝 New task: Füße\x1b  ci")
        assert {"id          one", "source      ci", "task_id     t1"} < set(lines)
        assert json.loads("\n".join(lines[lines.index("{") :])) == {"description": "Füße\x1b", "n": [1]}
        assert json.loads(outfeed("event", "one", "--json").output)["data"]["n"] == [1]

    def test_an_unknown_id_fails(self, outfeed, database):
        result = outfeed("event", "nothing")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: event 'nothing' not found")


class TestFollow:
    def test_new_events_follow_the_newest_ones_oldest_first_and_none_twice(self, database):
        wanted = LogFilter(EVERYTHING, types=("a.*",), text="pear", since="2020-01-01T00:00:00.000Z")
        for number in range(3):
            log_event("a.b", "s", data="pear", id=f"old-{number}")
        log_event("a.b", "s", data="apple")
        follower = LogFollower(database, wanted)
        log_event("a.b", "s", data="pear", id="new-0")
        log_event("x.y", "s", data="pear")
        log_event("a.b", "s", data="pear", id="new-1", timestamp="2019-01-01T00:00:00Z")

        assert [event.id for event in follower.read_before(2)] == ["old-2", "old-1"]
        assert [event.id for event in follower.read_new()] == ["new-0", "new-1"]
        assert follower.read_new() == []

    def test_more_events_than_a_page_are_read_in_pages(self, database):
        follower = LogFollower(database, LogFilter(EVERYTHING))
        with database.transaction() as connection:
            for number in range(PAGE_EVENTS + 1):
                log_event("a.b", "s", id=str(number), connection=connection)

        found = [event.id for event in (*follower.read_new(), *follower.read_new())]

        assert found == [str(number) for number in range(PAGE_EVENTS + 1)]
        assert follower.read_new() == []

    def test_the_command_ends_with_a_line_when_interrupted(self, outfeed, database, monkeypatch):
        log_event("a.b", "s", id="one")
        log_event("a.b", "s", id="two")
        monkeypatch.setattr(threading.Event, "wait", Mock(side_effect=KeyboardInterrupt))

        result = outfeed("events", "--follow", "--json")

        assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["one", "two"]
        assert result.stderr == "Stopped.\n"

    def test_follow_and_until_exclude_each_other(self, outfeed, database):
        assert outfeed("events", "--follow", "--until", "1h").exit_code == 2
