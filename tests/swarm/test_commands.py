"""The simulated swarm: its use of feed and API, and its end."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from outfeed.client import Client
from outfeed.events import EventType
from outfeed.swarm import simulator
from outfeed.swarm.commands import stop_on_signals
from outfeed.swarm.simulator import NAMES, TASKS, ApiClient, Scenario, Simulator
from tests import forked
from tests.server import Server
from tests.swarm.log_replay import disagreements
from tests.waits import PATIENCE_SECS, wait_until

ROOT = Path(__file__).parents[2]
AT_ONCE = {"auction_secs": 0.4, "requests_per_minute": 0}
# On a busy machine the agents need longer to leave.
SLOW_SHUTDOWN = f"""
from outfeed.cli import main
from outfeed.swarm import simulator
simulator.SHUTDOWN_SECS = {PATIENCE_SECS}
main(prog_name="outfeed")
"""


SIMULATION = ("simulate", "--agents", "8", "--rate", "300")


def simulate(*arguments):
    return [sys.executable, "-c", SLOW_SHUTDOWN, *SIMULATION, *arguments]


def run_slowly(arguments):
    simulator.SHUTDOWN_SECS = PATIENCE_SECS
    forked.run_outfeed(arguments)


def finished(environment, *arguments):
    """Run the simulation until it ends."""
    return forked.run([*SIMULATION, *arguments], environment, timeout=60, command=run_slowly)


@contextlib.contextmanager
def started(server, *arguments, **variables):
    environment = server.environment | {"OUTFEED_TOKEN": server.token} | variables
    process = forked.Forked([*SIMULATION, *arguments], environment, errors_of(server), command=run_slowly)
    try:
        yield process
        process.wait(timeout=60)
    finally:
        process.kill()


def errors_of(server):
    return server.database.with_name("simulation.err")


def query(server, sql):
    with closing(sqlite3.connect(server.database)) as connection:
        return [row[0] for row in connection.execute(sql)]


def types(server):
    return set(query(server, "SELECT DISTINCT event_type FROM event_log"))


def completed(server):
    return query(server, "SELECT count(*) FROM outfeed_task WHERE state = 'completed'")[0]


def present(server):
    return query(server, "SELECT name FROM outfeed_agent WHERE state <> 'left'")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_signal_handler_waits_for_no_lock_of_the_interrupted_thread():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = stop_on_signals()
        handler = signal.getsignal(signal.SIGTERM)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    called = []
    sys.setprofile(lambda frame, *_: called.append(frame.f_code.co_filename))
    handler(signal.SIGTERM, None)
    sys.setprofile(None)
    assert threading.__file__ not in called
    assert stop.wait(PATIENCE_SECS)


class TestSimulate:
    def test_the_simulation_writes_every_event_type_and_its_agents_leave(self, tmp_path):
        with Server(tmp_path, **AT_ONCE) as server, started(server) as process:
            wait_until(lambda: types(server) >= set(EventType), "an event of every type", timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
            assert re.fullmatch(r"The simulated swarm stopped after \d+ tasks\.\n", errors_of(server).read_text())
            assert present(server) == []
            assert disagreements(server.database) == []

    def test_the_simulation_continues_after_a_kill_of_the_server(self, tmp_path):
        with Server(tmp_path, **AT_ONCE) as server, started(server, "--url", server.url) as process:
            wait_until(lambda: completed(server), "a task completed", timeout=60)
            server.kill()
            before = completed(server)
            server.start()
            wait_until(lambda: completed(server) > before, "another task completed", timeout=60)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
            assert disagreements(server.database) == []

    def test_a_refused_token_is_an_error(self, server):
        for token in (None, "outfeed_wrong"):
            environment = server.environment | ({"OUTFEED_TOKEN": token} if token else {})
            done = finished(environment)
            assert done.returncode == 1
            assert "(401)" in done.stderr
            assert "Traceback" not in done.stderr

    def test_a_server_without_a_swarm_is_an_error(self, server):
        environment = server.environment | {"OUTFEED_TOKEN": server.token}
        done = finished(environment, "--url", f"{server.url}/static")
        assert done.returncode == 1
        assert "is it an Outfeed server?" in done.stderr

    def test_no_proxy_of_the_environment_is_used_for_this_machine(self, server):
        with started(server, HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9") as process:
            wait_until(lambda: len(present(server)) == len(NAMES), "all joined")
            process.send_signal(signal.SIGTERM)


class TestUrl:
    @pytest.mark.parametrize("url", ["nonsense", "127.0.0.1:8000", "ws://127.0.0.1:8000", "http://", "http://a:b"])
    def test_an_invalid_address_is_an_error_at_once(self, url):
        done = finished(os.environ, "--url", url)
        assert done.returncode == 2
        assert "must be an address like https://feed.example" in done.stderr

    def test_a_failed_connection_is_reported(self):
        with subprocess.Popen(
            simulate("--url", "http://127.0.0.1:1"), cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as process:
            line = process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        assert re.fullmatch(r"Can't reach http://127\.0\.0\.1:1: .+; trying again in \d+\.\d s\n", line)


class TestProcess:
    def test_the_simulation_ends_with_its_parent_process(self, server):
        code = f"import subprocess; p = subprocess.Popen({simulate()!r}); print(p.pid, flush=True); p.wait()"
        environment = server.environment | {"OUTFEED_TOKEN": server.token}
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as parent:
            pid = int(parent.stdout.readline())
            wait_until(lambda: present(server), "an agent")
            parent.kill()

        wait_until(lambda: not is_running(pid), "the orphan ended")

    def test_the_simulation_does_not_start_without_its_parent(self):
        done = subprocess.run(
            simulate("--parent", "1"), cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (1, "")


class TestDemo:
    def test_the_demo_runs_the_swarm_with_a_temporary_token(self, tmp_path):
        server = Server(tmp_path)
        with contextlib.ExitStack() as running:
            running.push(server)
            server.start("--demo")
            wait_until(lambda: present(server), "an agent")
            (first,) = query(server, "SELECT hash FROM outfeed_token")
            server.kill()
            server.start("--demo")
            wait_until(lambda: query(server, "SELECT hash FROM outfeed_token") != [first], "another token")
            wait_until(lambda: query(server, "SELECT number FROM outfeed_bid"), "a bid")
            server.stop()
            assert query(server, "SELECT name FROM outfeed_token") == []
            assert "outfeed_" not in server.output


def test_each_agent_has_a_name_of_its_own():
    client = Client("http://127.0.0.1:1")
    api = ApiClient(client.url, None, threading.Event(), print)
    many = [agent.name for agent in Simulator(api, client, agents=40, rate=2, seed=1).agents]
    assert many[:9] == [*NAMES, "Forge-2"]
    assert len(set(many)) == 40


def test_a_scenario_is_the_same_for_the_same_seed():
    one, same, other = ([scenario.one_of(TASKS) for _ in range(20)] for scenario in map(Scenario, (1, 1, 2)))
    assert one == same != other
