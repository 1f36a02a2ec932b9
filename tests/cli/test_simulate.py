"""The simulated swarm: its stories make sense, and its process ends with the one that started it."""

import random
import re
import signal
import subprocess
import sys
from collections import defaultdict
from itertools import islice
from pathlib import Path

import pytest

from app.cli.simulate import Swarm
from app.events import EventType, make_event, sentence
from app.store.event_log import list_events
from tests.harness import wait_until

ROOT = Path(__file__).parents[2]
TASK = re.compile(
    r"created bidding (bid )+auction_closed assigned agent_status started"
    r"( tool_called tool_(completed|failed))+ (completed|failed) agent_status"
)
WORD = {
    EventType.BID_SUBMITTED: "bid",
    EventType.AUCTION_CLOSED: "auction_closed",
    EventType.AGENT_STATUS_CHANGED: "agent_status",
    EventType.TOOL_CALLED: "tool_called",
    EventType.TOOL_COMPLETED: "tool_completed",
    EventType.TOOL_FAILED: "tool_failed",
}


def told(seed, count):
    return list(islice(Swarm(random.Random(seed)).events(), count))


@pytest.mark.parametrize("seed", range(20))
class TestStories:
    def test_every_type_is_seen_soon(self, seed):
        assert {fields["event_type"] for fields in told(seed, 400)} == set(EventType)

    def test_every_event_is_valid_and_its_sentence_has_no_gap(self, seed):
        for fields in told(seed, 500):
            event, _ = make_event(**fields, max_event_bytes=65_536)
            assert not re.search(r"unknown|unnamed|\bno (reason|message|description)|an agent|\?", sentence(event))

    def test_each_task_goes_its_way_in_order(self, seed):
        stories = defaultdict(list)
        for fields in told(seed, 2000):
            if "task_id" in fields:
                event_type = fields["event_type"]
                stories[fields["task_id"]].append(WORD.get(event_type) or event_type.partition(".")[2])

        finished = [" ".join(words) for words in stories.values() if {"completed", "failed"} & set(words[:-1])]
        assert len(finished) > 50
        assert all(TASK.fullmatch(story) for story in finished), finished

    def test_only_who_is_there_does_something_and_one_thing_at_a_time(self, seed):
        present, at_work = set(), {}
        for fields in told(seed, 5000):
            event_type, agent = fields["event_type"], fields.get("agent_id")
            if event_type == EventType.AGENT_JOINED:
                assert agent not in present
                present.add(agent)
            assert agent is None or agent in present
            if event_type == EventType.AGENT_LEFT:
                assert agent not in at_work
                present.remove(agent)
            elif event_type == EventType.TASK_ASSIGNED:
                assert at_work.setdefault(agent, fields["task_id"]) == fields["task_id"]
            elif agent in at_work and "task_id" in fields:
                assert at_work[agent] == fields["task_id"]
                if event_type in (EventType.TASK_COMPLETED, EventType.TASK_FAILED):
                    del at_work[agent]

    def test_the_same_chance_tells_the_same_stories(self, seed):
        assert told(seed, 200) == told(seed, 200)


def simulate(*arguments):
    return [sys.executable, "-m", "app", "simulate", "--rate", "1000", *arguments]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_writes_until_it_is_told_to_stop(self, database, number):
        with subprocess.Popen(simulate(), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: len(list_events()) >= 10, "ten events")
            process.send_signal(number)
            output = process.stderr.read()

        assert process.returncode == 0
        assert re.fullmatch(r"The simulated swarm stopped after \d+ events\.\n", output)

    @pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
    def test_it_ends_with_the_process_that_started_it(self, database):
        code = f"import subprocess; p = subprocess.Popen({simulate()!r}); print(p.pid, flush=True); p.wait()"
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
            pid = int(parent.stdout.readline())
            wait_until(list_events, "an event")
            parent.kill()

        wait_until(lambda: not is_running(pid), "the orphan ended")

    def test_it_writes_nothing_for_a_parent_that_is_gone(self, database):
        done = subprocess.run(
            simulate("--parent", "1"), cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
        )

        assert done.returncode == 1
        assert list_events() == []
