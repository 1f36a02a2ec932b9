"""`outfeed tail`, against a real server; what the client beneath it can do is in tests/test_client.py."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.waits import wait_until

ROOT = Path(__file__).parents[2]


class Tail:
    """`outfeed tail` in a process of its own."""

    def __init__(self, server, folder, *arguments):
        self.output, self.remarks = folder / "tail.out", folder / "tail.err"
        environment = {**server.environment, "OUTFEED_TOKEN": server.token}
        with self.output.open("wb") as out, self.remarks.open("wb") as err:
            command = [sys.executable, "-m", "outfeed", "tail", *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def lines(self):
        return self.output.read_text().splitlines()

    def events(self):
        return [json.loads(line) for line in self.lines()]


class TestOnARealServer:
    def test_it_shows_every_event_once_over_a_killed_server(self, server, tmp_path):
        server.log_event("task.created", "before", {"description": "one"})
        with Tail(server, tmp_path, "--json") as tail:
            wait_until(lambda: len(tail.lines()) == 1, "the event from before")
            server.kill()
            server.log_event("task.created", "meanwhile")
            server.start()
            server.log_event("task.created", "afterwards")
            wait_until(lambda: len(tail.lines()) >= 3, "the events of the outage")
            tail.process.send_signal(signal.SIGINT)

            assert tail.process.wait(timeout=15) == 0

        assert [(one["seq"], one["source"]) for one in tail.events()] == [
            (1, "before"),
            (2, "meanwhile"),
            (3, "afterwards"),
        ]
        assert tail.events()[0]["data"] == {"description": "one"}
        assert "Stopped at seq 3. To go on from here: outfeed tail --after 3 --epoch " in tail.remarks.read_text()

    def test_people_get_sentences_and_filters_hold(self, server, tmp_path):
        with Tail(server, tmp_path, "--types", "agent.*, system.error", "--after", "0") as tail:
            server.log_event("task.created", "coordinator", {"description": "not this"})
            server.log_event("agent.joined", "registry", {"name": "Forge"})
            server.log_event("system.error", "monitor", {"message": "disk full"})
            wait_until(lambda: len(tail.lines()) == 2, "two lines")

        assert [line.split("  ", 1)[1] for line in tail.lines()] == [
            "🟢 Agent Forge joined  registry",
            "⚠️ Error: disk full  monitor",
        ]

    def test_without_a_good_token_it_says_so(self, server):
        for token in ({}, {"OUTFEED_TOKEN": "outfeed_wrong"}):
            command = [sys.executable, "-m", "outfeed", "tail"]
            environment = {**os.environ, **server.environment, **token}
            refused = subprocess.run(
                command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=60
            )

            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr.startswith(f"Error: {server.url} refuses ")
            assert "OUTFEED_TOKEN" in refused.stderr
            assert "outfeed_wrong" not in refused.stderr

    def test_it_ends_when_its_reader_has_seen_enough(self, server):
        command = [sys.executable, "-m", "outfeed", "tail", "--json"]
        environment = {**server.environment, "OUTFEED_TOKEN": server.token}
        server.log_event("task.created", "tests")
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert json.loads(process.stdout.readline())["seq"] == 1
            process.stdout.close()
            server.log_event("task.created", "tests")

            assert process.wait(timeout=15) == 0
            assert "Traceback" not in process.stderr.read()
