"""A client that reads nothing costs only its own connection."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from pathlib import Path
from statistics import median

import pytest

from tests.clients import FeedClient, RawClient
from tests.database_file import head_of, write_events
from tests.server import Server
from tests.waits import wait_until

ROW_BYTES = 16_000
ROWS = 1_100  # 16 MB and more: a loopback socket buffers over 2 MB before it stalls


def write_bulk(path: Path, rows: int) -> None:
    """Write *rows* events of ROW_BYTES each, ten a commit, with plain sqlite3."""
    for start in range(0, rows, 10):
        write_events(path, min(10, rows - start), data=json.dumps("x" * ROW_BYTES))


def rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def event_seqs(client: RawClient, until: int) -> list[int]:
    """Read up to the event with the seq *until*. Every frame must be complete."""
    seqs: list[int] = []
    while not seqs or seqs[-1] < until:
        opcode, body = client.take_frame()
        if opcode == 1 and (frame := json.loads(body))["type"] == "event":
            seqs.append(frame["seq"])
    return seqs


def test_a_stalled_client_that_reads_again_gets_all_events_in_constant_memory(server: Server) -> None:
    with RawClient(server) as stalled, server.connect() as reader:
        reader.subscribe(after=0)
        write_bulk(server.database, ROWS)
        stalled.subscribe(after=0)
        assert b"subscribed" in stalled.take_frame()[1]
        reader.follow(ROWS, timeout=60)
        wait_until(lambda: stalled.has_more(1), "the first page is sent")
        before = rss_bytes(server.workers()[0])
        head = 3 * ROWS
        for end in range(ROWS + 100, head + 1, 100):  # otherwise the relay may read all rows as one large page
            write_bulk(server.database, 100)
            reader.follow(end, timeout=60)
        grown = rss_bytes(server.workers()[0]) - before
        assert grown < (head - ROWS) * ROW_BYTES / 2, f"{grown / 2**20:.0f} MiB"
        assert event_seqs(stalled, until=head) == list(range(1, head + 1))
        server.log_event("a.b", "live")
        assert event_seqs(stalled, until=head + 1) == [head + 1]


def test_a_stalled_client_that_pings_gets_no_corrupt_frame(server: Server) -> None:
    with RawClient(server) as stalled, server.connect() as reader:
        reader.subscribe()
        stalled.subscribe(after=0)
        stop = threading.Event()
        pinger = threading.Thread(target=ping_on, args=(stalled, stop))
        pinger.start()
        write_bulk(server.database, ROWS)
        reader.follow(ROWS, timeout=60)
        assert event_seqs(stalled, until=ROWS) == list(range(1, ROWS + 1))
        stop.set()
        pinger.join()


def ping_on(client: RawClient, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        client.send_frame(b"are you there", opcode=9)


def test_other_clients_are_not_delayed(server: Server) -> None:
    """Compares pairs, with and without eight stalled clients.

    The median waits may differ only by noise.
    """
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(server.connect())
        reader.subscribe()
        with_stalled, without = [], []
        for round_ in range(5):
            without.append(wait_for_events(server, reader, f"without-{round_}"))
            with contextlib.ExitStack() as stalling:
                for _ in range(8):
                    stalled = stalling.enter_context(RawClient(server, receive_buffer_bytes=4096))
                    stalled.subscribe()
                    assert b"subscribed" in stalled.take_frame()[1]
                write_bulk(server.database, 300)
                reader.follow(head_of(server.database), timeout=60)
                with_stalled.append(wait_for_events(server, reader, f"with-{round_}"))
        assert median(with_stalled) < 2 * median(without) + 0.005, (with_stalled, without)


def wait_for_events(server: Server, reader: FeedClient, prefix: str) -> float:
    """Return the median seconds from a commit to its arrival, over 40 commits."""
    waits = []
    with contextlib.closing(sqlite3.connect(server.database, isolation_level=None, timeout=30)) as raw:
        for n in range(40):
            began = time.monotonic()
            raw.execute(
                "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', 't')",
                (f"{prefix}-{n}",),
            )
            reader.next_event()
            waits.append(time.monotonic() - began)
    return median(waits)


@pytest.mark.parametrize("pruned_up_to", [700, ROWS])
def test_a_stalled_client_that_pruning_overtakes_gets_4008_and_then_a_gap(server: Server, pruned_up_to: int) -> None:
    with RawClient(server, receive_buffer_bytes=4096) as stalled, server.connect() as reader:
        reader.subscribe()
        stalled.subscribe(after=0)
        _, body = stalled.take_frame()
        epoch = json.loads(body)["payload"]["epoch"]
        wait_until(lambda: sum(server.counted("outfeed_clients", state="live").values()) == 2, "both are live")
        write_bulk(server.database, ROWS)
        reader.follow(ROWS, timeout=60)
        write_bulk(server.database, 5_000 // 10)  # so that the tail can't serve it either
        reader.follow(ROWS + 500, timeout=60)
        with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
            raw.execute("DELETE FROM outbox WHERE seq <= ?", (pruned_up_to,))
        seqs, code = read_to_the_end(stalled)
    assert code == 4008
    assert seqs == list(range(1, len(seqs) + 1)), "a client has skipped events without a gap"
    assert len(seqs) < pruned_up_to
    with server.connect() as again:
        verdict = again.subscribe(after=seqs[-1], epoch=epoch)
        assert (verdict["verdict"], verdict["missing"]) == ("gap", {"from": seqs[-1] + 1, "to": pruned_up_to})


def read_to_the_end(client: RawClient) -> tuple[list[int], int | None]:
    seqs: list[int] = []
    while True:
        opcode, body = client.take_frame()
        if opcode == 8:
            return seqs, int.from_bytes(body[:2])
        if opcode == 1 and (frame := json.loads(body))["type"] == "event":
            seqs.append(frame["seq"])
