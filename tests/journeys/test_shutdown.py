"""SIGTERM and Ctrl-C close all clients at once, with a time to reconnect."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from outfeed.http.server.worker import Worker
from tests.feed.socket_harness import Feed
from tests.server import Server
from tests.waits import wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_closes_every_client_with_1012_within_five_seconds(server: Server, number: signal.Signals) -> None:
    clients = [server.connect() for _ in range(50)]
    try:
        for client in clients:
            client.subscribe()
        assert server.process is not None
        server.process.send_signal(number)
        endings = [client.closed_with(timeout=5) for client in clients]
        assert server.process.wait(timeout=5) == 0
    finally:
        for client in clients:
            client.__exit__()
    assert {code for code, _ in endings} == {1012}
    hints = {int(re.fullmatch(r"retry_ms=(\d+)", reason)[1]) for _, reason in endings}  # type: ignore[index]
    assert len(hints) > 25, "all clients would reconnect at once"
    assert "SIGKILL" not in server.output


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker without a process."""
    made = Worker(1, os.getpid(), [], None, 30, Config(), logging.getLogger())
    made.method_queue.init()
    yield made
    made.method_queue.close()
    made.tmp.close()


@pytest.mark.parametrize("name", ["handle_exit", "handle_quit"])
def test_a_worker_that_is_stopped_while_it_boots_has_no_clients_to_close(worker: Worker, name: str) -> None:
    getattr(worker, name)(0, None)
    assert not worker.alive


@pytest.mark.parametrize("name", ["handle_exit", "handle_quit"])
def test_a_signal_handler_leaves_calls_that_take_a_lock_to_the_main_loop(worker: Worker, name: str) -> None:
    hub = Feed().hub
    worker.booted, worker.wsgi = True, SimpleNamespace(extensions={"outfeed": SimpleNamespace(hub=hub)})
    getattr(worker, name)(0, None)
    assert not hub.closing.is_set()
    worker.method_queue.run_callbacks(None)
    assert hub.closing.is_set()


def test_a_stop_takes_under_five_seconds_with_a_client_that_reads_nothing(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        client.socket.socket.close()  # without a close frame: the server must not wait for one
        assert server.stop() < 5


def test_workers_exit_when_their_master_is_killed(server: Server) -> None:
    workers = server.workers()
    server.kill_master()

    def is_gone(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().split()[2] == "Z"
        except (FileNotFoundError, ProcessLookupError):  # the process ended before the file was opened or read
            return True

    wait_until(lambda: all(map(is_gone, workers)), "workers ended")
