"""Two workers on one database: cursors of one are valid at the other."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from tests.clients import FeedClient
from tests.database_file import head_of, write_events
from tests.server import Server, writer
from tests.transports import Follower
from tests.waits import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, workers=2) as running:
        wait_until(lambda: len(running.workers()) == 2, "two workers")
        yield running


def worker_of(server: Server, client: FeedClient) -> int | None:
    """Return the process that has the server's end of the client's connection.

    The kernel lists it.
    """
    return worker_at(server, client.socket.socket.getsockname()[1])


def worker_at(server: Server, client_port: int) -> int | None:
    """Return the process that has the other end of a connection.

    The client's end is at *client_port*.
    """
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if _port(fields[1]) == server.port and _port(fields[2]) == client_port:
            return next((pid for pid in server.workers() if f"socket:[{fields[9]}]" in _descriptors(pid)), None)
    return None


def _port(address: str) -> int:
    return int(address.split(":")[1], 16)


def _descriptors(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))
    return found


@contextlib.contextmanager
def clients_of_both(server: Server, count: int) -> Iterator[tuple[list[FeedClient], list[FeedClient]]]:
    """Connect clients until each worker has *count*. Yield those of each."""
    with contextlib.ExitStack() as stack:
        groups: dict[int | None, list[FeedClient]] = {pid: [] for pid in server.workers()}

        def has_both() -> bool:
            client = server.connect()
            group = groups.get(worker_of(server, client))
            if group is None or len(group) == count:
                client.__exit__()
            else:
                group.append(stack.enter_context(client))
            return all(len(group) == count for group in groups.values())

        wait_until(has_both, "each worker has clients: one may start late")
        first, second = groups.values()
        yield first, second


def test_clients_of_both_workers_get_all_events(server: Server) -> None:
    with clients_of_both(server, 3) as (first, second), server.http() as http:
        for client in (*first, *second):
            client.subscribe()
        with writer(server.database, rate=300):
            wait_until(lambda: head_of(server.database) > 150, "events")
            posted = http.post("/api/events", json={"event_type": "posted.one", "source": "http"}).json()["seq"]
        end = head_of(server.database)
        for client in (*first, *second):
            client.follow(end)
            assert client.seen == list(range(1, end + 1))
        assert posted in first[0].seen


def test_a_cursor_of_one_worker_is_valid_at_the_other(server: Server) -> None:
    """The other worker may not have polled yet: the cursor is still valid."""
    with clients_of_both(server, 1) as ((here,), (there,)):
        here.subscribe()
        there.subscribe()
        for n in range(40):
            first, second = (here, there) if n % 2 else (there, here)
            write_events(server.database)
            first.follow(head_of(server.database))
            verdict = second.subscribe(after=first.cursor, epoch=first.epoch)
            assert (verdict["verdict"], verdict["after"]) == ("resumed", first.cursor)
        write_events(server.database, 3)
        for client in (here, there):
            client.follow(head_of(server.database))
            assert client.seen[-3:] == [
                head_of(server.database) - 2,
                head_of(server.database) - 1,
                head_of(server.database),
            ]


def test_a_client_that_moves_between_workers_misses_and_repeats_nothing(server: Server) -> None:
    with clients_of_both(server, 1) as ((here,), (there,)):
        seen: list[int] = []
        epoch = here.subscribe(after=0)["epoch"]
        cursor = 0
        with writer(server.database, rate=300):
            for n in range(30):
                client = there if n % 2 else here
                client.subscribe(after=cursor, epoch=epoch)
                before = len(client.seen)
                client.next_event()
                seen += client.seen[before:]
                cursor = client.cursor
        end = head_of(server.database)
        here.subscribe(after=cursor, epoch=epoch)
        before = len(here.seen)
        here.follow(end)
        assert [*seen, *here.seen[before:]] == list(range(1, end + 1))


def test_only_the_clients_of_a_killed_worker_reconnect(server: Server) -> None:
    with clients_of_both(server, 2) as (first, second):
        victim = worker_of(server, first[0])
        assert victim is not None
        for client in (*first, *second):
            client.subscribe(after=0)
        with writer(server.database, rate=200):
            wait_until(lambda: head_of(server.database) > 100, "events")
            os.kill(victim, signal.SIGKILL)
            for client in first:
                with pytest.raises(ConnectionClosed):
                    client.follow(10**9)
            wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2, "another worker")
            wait_until(lambda: head_of(server.database) > 300, "more events")
        end = head_of(server.database)
        # The clients of the other worker stay connected.
        for client in second:
            client.follow(end)
            assert client.seen == list(range(1, end + 1))
        # Those of the killed worker reconnect with their cursor and miss no event.
        for client in first:
            follower = Follower(server, after=client.cursor, epoch=client.epoch)
            follower.run(lambda follower: follower.cursor >= end)
            assert set(follower.verdicts) == {"resumed"}
            assert len(client.seen) + len(follower.events) == end


def test_metrics_show_only_the_running_workers(server: Server) -> None:
    wait_until(lambda: server.counted("outfeed_position") == {"0": 0, "1": 0}, "both workers run")
    write_events(server.database, 3)
    wait_until(lambda: server.counted("outfeed_position") == {"0": 3, "1": 3}, "both workers are shown")
    wait_until(lambda: sum(server.counted("outfeed_events_total").values()) >= 6, "the metrics have all pushed events")
    assert server.counted("outfeed_events_total") == {"0": 3, "1": 3}
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2, "another worker")
    wait_until(lambda: server.counted("outfeed_position") == {"0": 3, "1": 3}, "the new worker has the old one's place")
    assert sum(server.counted("outfeed_events_total").values()) == 6, "a new worker continues the counters"
    write_events(server.database)
    wait_until(lambda: sum(server.counted("outfeed_events_total").values()) == 8, "the counters have the new events")


def test_a_stopped_worker_has_no_gauges_but_keeps_its_counters(server: Server) -> None:
    wait_until(lambda: server.counted("outfeed_position") == {"0": 0, "1": 0}, "both workers run")
    write_events(server.database, 3)
    wait_until(lambda: sum(server.counted("outfeed_events_total").values()) == 6, "the metrics of both workers")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGTTOU)  # makes gunicorn run one worker less
    wait_until(lambda: len(server.workers()) == 1, "one has ended")
    wait_until(lambda: len(server.counted("outfeed_ready")) == 1, "one is shown")
    assert sum(server.counted("outfeed_events_total").values()) == 6


def counters_of(scraped: str) -> dict[str, float]:
    """Return the counters, by name and labels."""
    families = [each for each in text_string_to_metric_families(scraped) if each.type in ("counter", "histogram")]
    return {f"{each.name} {each.labels}": each.value for family in families for each in family.samples}


@contextlib.contextmanager
def connections_to_both(server: Server) -> Iterator[list[HTTPConnection]]:
    with contextlib.ExitStack() as stack:
        found: dict[int | None, HTTPConnection] = {}

        def has_both() -> bool:
            connection = stack.enter_context(contextlib.closing(HTTPConnection("127.0.0.1", server.port)))
            connection.connect()
            found.setdefault(worker_at(server, connection.sock.getsockname()[1]), connection)
            return found.keys() >= set(server.workers())

        wait_until(has_both, "each worker has a connection")
        yield [found[pid] for pid in server.workers()]


def test_no_counter_decreases_at_any_worker(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    with clients_of_both(server, 1) as groups, connections_to_both(server) as connections:
        for (client,) in groups:
            client.subscribe()
        before: dict[str, float] = {}
        with writer(server.database, rate=500):
            for connection in connections * 20:
                last = head_of(server.database)
                wait_until(lambda last=last: head_of(server.database) > last + 2, "events between two answers")
                connection.request("GET", "/metrics", headers=headers)
                found = counters_of(connection.getresponse().read().decode())
                assert {name: value for name, value in before.items() if found.get(name, 0) < value} == {}
                before = found
        pushed = [value for name, value in before.items() if name.startswith("outfeed_events_total")]
        assert len(pushed) == 2
        assert min(pushed) > 40


def folder_of(server: Server) -> Path:
    """Return the folder in which the workers count, as the kernel lists it.

    A worker maps its file with its first count.
    """

    def mapped() -> list[Path]:
        maps = Path(f"/proc/{server.workers()[0]}/maps").read_text()
        return [Path(line.split()[-1]).parent for line in maps.splitlines() if "outfeed-metrics-" in line]

    found: list[Path] = wait_until(mapped, "the file is mapped")
    return found[0]


def test_the_metrics_folder_is_private_and_removed_at_the_end_or_next_start(server: Server) -> None:
    killed = folder_of(server)
    assert killed.stat().st_mode & 0o777 == 0o700
    server.kill()
    server.start()
    assert not killed.exists()
    stopped = folder_of(server)
    server.stop()
    assert not stopped.exists()
