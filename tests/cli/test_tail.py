"""`outfeed tail` against a real server.

tests/client tests the client beneath it.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from outfeed.client import Client, link
from tests import forked
from tests.waits import wait_until

ROOT = Path(__file__).parents[2]


def run_impatiently(arguments):
    """Run `outfeed`, which notices a frozen server after two short pings."""
    link.PING_SECS = 2.0
    forked.run_outfeed(arguments)


class AnyTime(str):
    """A line that may begin with any time."""

    __slots__ = ()

    def __eq__(self, other):
        return re.fullmatch(rf"\d\d:\d\d:\d\d {re.escape(self)}", other) is not None

    __hash__ = str.__hash__


class Tail:
    """`outfeed tail` in a process of its own."""

    def __init__(self, server, folder, *arguments):
        self.output, self.remarks = folder / "tail.out", folder / "tail.err"
        environment = {**server.environment, "OUTFEED_TOKEN": server.token}
        self.process = forked.Forked(
            ["tail", *arguments], environment, self.output, self.remarks, command=run_impatiently
        )
        wait_until(self.output.exists, "the process started")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def lines(self):
        return self.output.read_text().splitlines()

    def events(self):
        return [json.loads(line) for line in self.lines()]


class TestRealServer:
    def test_tail_shows_every_event_once_across_a_killed_server(self, server, tmp_path):
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
        assert "Stopped at seq 3. To continue: outfeed tail --after 3 --epoch " in tail.remarks.read_text()

    def test_text_output_has_sentences_and_obeys_filters(self, server, tmp_path):
        with Tail(server, tmp_path, "--types", "agent.*, system.error, claude_code.*", "--after", "0") as tail:
            server.log_event("task.created", "coordinator", {"description": "not this"})
            server.log_event("agent.joined", "registry", {"name": "Forge"})
            server.log_event("system.error", "monitor", {"message": "disk full"})
            server.log_event("claude_code.tool_result", "claude", {"tool_name": "Bash", "command": "ls"})
            wait_until(lambda: len(tail.lines()) == 3, "three lines")

        assert [re.sub(" +", " ", line) for line in tail.lines()] == [
            AnyTime("agent.joined 🟢 Agent Forge joined registry"),
            AnyTime("system.error ⚠ Error: disk full monitor"),
            AnyTime("claude_code.tool_result 🔧 Bash: ls claude"),
        ]

    def test_source_task_agent_and_text_narrow_the_feed(self, server, tmp_path):
        wanted = {"event_type": "a.b", "source": "ci", "task_id": "t1", "agent_id": "a1", "data": {"said": "Füße UP"}}
        variants = [{**wanted, name: "other"} for name in ("source", "task_id", "agent_id", "data")]
        with Client(server.url, server.token) as client:
            client.publish([wanted, *variants, wanted])
        options = ("--source", "ci", "--task-id", "t1", "--agent-id", "a1", "--text", "füße up")
        with Tail(server, tmp_path, "--after", "0", "--json", *options) as tail:
            wait_until(lambda: len(tail.lines()) >= 2, "two events")

            assert [event["seq"] for event in tail.events()] == [1, 6]

    def test_a_line_with_the_date_precedes_events_of_another_day(self, server, tmp_path):
        with contextlib.closing(sqlite3.connect(server.database, timeout=10)) as raw, raw:
            raw.execute(
                "INSERT INTO event_log (id, event_type, source, timestamp)"
                " VALUES ('old', 'a.b', 's', '2024-01-15T12:00Z')"
            )
        with Tail(server, tmp_path, "--after", "0") as tail:
            wait_until(lambda: len(tail.lines()) == 2, "the day and the event")

            assert tail.lines()[0] == "2024-01-15"

    def test_events_read_by_the_servers_displays_also_after_a_change(self, server, tmp_path):
        def is_shown(text):
            server.log_event("shop.paid", "till", {"amount": 5})
            return any(text in line for line in tail.lines())

        server.run("type", "set", "shop.paid", "--icon", "⚡", "--label", "Paid {amount}")
        with Tail(server, tmp_path, "--types", "shop.paid") as tail:
            wait_until(lambda: is_shown("⚡ Paid 5  till"), "a line by the display")
            server.run("type", "set", "shop.paid", "--label", "Got {amount}")
            wait_until(lambda: is_shown("•  Got 5  till"), "a line by the new display")

    def test_a_frozen_server_is_reported_once(self, server, tmp_path):
        server.log_event("task.created", "before")
        with Tail(server, tmp_path, "--json") as tail:
            wait_until(lambda: len(tail.lines()) == 1, "the event from before")
            os.killpg(server.process.pid, signal.SIGSTOP)
            try:
                wait_until(lambda: "Connection lost" in tail.remarks.read_text(), "the lost connection")
            finally:
                os.killpg(server.process.pid, signal.SIGCONT)
            server.log_event("task.created", "afterwards")
            wait_until(lambda: len(tail.lines()) == 2, "the event from afterwards")
            remarks = tail.remarks.read_text()

        assert [one["source"] for one in tail.events()] == ["before", "afterwards"]
        assert re.search(r"^Connection lost; trying again in \d\.\d s$", remarks, re.MULTILINE)
        assert all(
            line.startswith(("Connection lost", "Following", "Can't reach", "The ")) for line in remarks.splitlines()
        )

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_a_row_nested_990_deep_is_shown_and_the_feed_continues(self, server, tmp_path, options):
        with contextlib.closing(sqlite3.connect(server.database, timeout=10)) as raw, raw:
            raw.execute(
                "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES ('deep', 'a.b', 'raw', ?, '')",
                ("[" * 990 + "]" * 990,),
            )
        server.log_event("task.created", "afterwards")
        with Tail(server, tmp_path, "--after", "0", *options) as tail:
            wait_until(lambda: len(tail.lines()) == 2, "both")

        assert "Traceback" not in tail.remarks.read_text()
        if options:
            assert (tail.events()[0]["data"], tail.events()[0]["flattened"]) == ("[" * 990 + "]" * 990, True)

    def test_control_characters_from_the_server_are_escaped(self):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
                self.wfile.write(
                    b"HTTP/1.1 101 ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
                )
                self.wfile.write(b"\x88\x0a" + (4000).to_bytes(2, "big") + b"a\x1b[2Jbc\x07")
                self.close_connection = True

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            command = [sys.executable, "-m", "outfeed", "tail", "--url", f"http://127.0.0.1:{listening.server_port}"]
            with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
                line = process.stderr.readline()
                process.kill()
                process.communicate()
            listening.shutdown()
            thread.join()

        assert line.startswith(r"The connection ended (4000: a\x1b[2Jbc\x07); trying again in ")

    def test_an_invalid_token_is_reported(self, server):
        for token in ({}, {"OUTFEED_TOKEN": "outfeed_wrong"}):
            refused = forked.run(["tail"], {**os.environ, **server.environment, **token}, timeout=60)

            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr.startswith(f"Error: {server.url} refuses ")
            assert "OUTFEED_TOKEN" in refused.stderr
            assert "outfeed_wrong" not in refused.stderr

    def test_tail_ends_when_its_output_is_closed(self, server):
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
