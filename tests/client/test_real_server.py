"""The client on a real server, also across `kill -9`."""

import subprocess
import sys
from pathlib import Path

import pytest

from outfeed.client import Client
from outfeed.errors import Refused
from outfeed.events import make_event
from tests.client.inbox import EVENT

ROOT = Path(__file__).parents[2]
BOT = """
import sys
from outfeed.client import Client
url, token, folder = sys.argv[1:]
with open(folder + "/handled", "a", buffering=1) as handled:
    for event in Client(url, token).follow(after=0, cursor_file=folder + "/bot.cursor"):
        handled.write(event.id + "\\n")
        print(event.id, flush=True)
"""


class TestRealServer:
    def test_a_bot_gets_events_that_another_program_publishes(self, server):
        with Client(server.url, server.token) as client, client.follow(types=["build.*"], after=0) as follow:
            first = client.publish({"event_type": "build.done", "source": "ci", "data": {"ok": True}, "id": "build-1"})
            again = client.publish({"event_type": "build.done", "source": "ci", "data": {"ok": True}, "id": "build-1"})
            client.publish(
                [{"event_type": "task.created", "source": "ci"}, {"event_type": "build.done", "source": "ci"}]
            )
            seen = [next(follow), next(follow)]
            known = client.publish(make_event("a.b", "s", data=[1], max_event_bytes=100)[0])
            with Client(server.url, "outfeed_wrong") as stranger, pytest.raises(Refused, match="401"):
                stranger.publish(EVENT)

        assert (first, known.seq) == (again, 4)
        assert [one.seq for one in seen] == [first.seq, 3]
        assert (seen[0].id, seen[0].data, seen[0].task_id) == ("build-1", {"ok": True}, None)

    def test_a_consumer_continues_after_its_acknowledged_event(self, server):
        with Client(server.url, server.token) as client:
            events = [{**EVENT, "data": n} for n in range(3)]
            with client.follow(consumer="ops-bot", on_connection=lambda _: client.publish(events)) as follow:
                seen = [next(follow) for _ in range(3)]
                follow.ack(seen[1])
            with client.follow(consumer="ops-bot") as follow:
                server.kill()
                server.start()
                again = next(follow)
                follow.ack()
                receipt = client.publish(EVENT)
                assert next(follow).id == receipt.id

        assert [one.data for one in seen] == [0, 1, 2]
        assert again == seen[2]

    def test_a_killed_bot_continues_at_the_position_in_its_file(self, server, tmp_path):
        command = [sys.executable, "-c", BOT, server.url, server.token, str(tmp_path)]
        for life in range(3):
            with Client(server.url, server.token) as client:  # it may handle all events before it is killed
                client.publish([{**EVENT, "id": f"e{n:03}"} for n in range(100 * life, 100 * life + 100)])
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bot:
                seen = [bot.stdout.readline() for _ in range(40)]
                bot.kill()
            assert all(seen)

        ids = (tmp_path / "handled").read_text().split()
        assert list(dict.fromkeys(ids)) == sorted(set(ids))  # none missing, in order
        assert sorted(set(ids)) == [f"e{n:03}" for n in range(len(set(ids)))]
        assert len(ids) - len(set(ids)) <= 3  # one a kill: handled, and not yet in the file
