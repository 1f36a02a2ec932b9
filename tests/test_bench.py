"""The benchmark: incomplete sequences are refused, figures reported."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from outfeed.feed.frames import WEBSOCKET, message
from outfeed.history import Item
from scripts.benchmarks import __main__ as command
from scripts.benchmarks import calls, event, producers, report
from scripts.benchmarks.cases import SHORT, Case, Figures, Stage
from scripts.benchmarks.client import Client
from scripts.benchmarks.errors import LoadError, SequenceError
from scripts.benchmarks.peers import __main__ as peers
from scripts.benchmarks.peers import nats
from scripts.benchmarks.readers import Reader
from scripts.benchmarks.runs import Plan, Results, run
from scripts.benchmarks.servers import THIS, Checkout, fill

ROOT = Path(__file__).parents[1]
BORN_NS = 1_700_000_000_000_000_000
BASE = Checkout("base", Path("/nowhere"))


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, Client]]:
    server, client = socket.socketpair()
    with server, client:
        yield server, Client(client)


def batch(*numbers: int) -> bytes:
    """Return the frame in which a batched viewer gets these events."""
    rows = [json.dumps(event.make(number, BORN_NS), separators=(",", ":")).encode() for number in numbers]
    items = [
        Item(number, row, None, "tool.called", None, None, None, None)
        for number, row in zip(numbers, rows, strict=True)
    ]
    return WEBSOCKET.groups(items, 0, "e").data


def take(reader: Reader, client: Client) -> None:
    reader.read(client)
    reader.parse()


@pytest.mark.parametrize("is_careful", [True, False])
class TestReadingBatches:
    def test_every_event_of_a_batch_counts(self, wire: tuple[socket.socket, Client], is_careful: bool) -> None:
        server, client = wire
        client.is_careful = is_careful
        reader = Reader(20)

        for frame in (batch(1, 2, 3), batch(4), batch(*range(5, 21))):
            server.sendall(frame)
            take(reader, client)

        assert (client.seen, reader.finished) == (20, 1)
        assert len(reader.latencies_ns) == (20 if is_careful else 0)

    @pytest.mark.parametrize("second", [(5, 6), (3, 4), (4, 6), (4, 4), (5, 4)], ids=str)
    def test_a_batch_with_a_missing_or_repeated_event_is_refused(
        self, wire: tuple[socket.socket, Client], is_careful: bool, second: tuple[int, ...]
    ) -> None:
        server, client = wire
        client.is_careful = is_careful
        reader = Reader(20)
        server.sendall(batch(1, 2, 3))
        take(reader, client)
        server.sendall(batch(*second))
        with pytest.raises(SequenceError):
            take(reader, client)


def message_of_nats(number: int) -> bytes:
    body = json.dumps(event.make(number, BORN_NS), separators=(",", ":")).encode()
    return b"MSG events 2 %d\r\n%s\r\n" % (len(body), body)


class TestReadingBytes:
    """The events of a peer, between the bytes of any protocol."""

    @pytest.fixture
    def peer(self) -> Iterator[tuple[socket.socket, nats.Client]]:
        server, client = socket.socketpair()
        with server, client:
            yield server, nats.Client(client)

    @pytest.mark.parametrize("size", [1, 7, 38, 300, 5000])
    def test_events_count_once_wherever_a_chunk_ends(self, peer: tuple[socket.socket, nats.Client], size: int) -> None:
        server, client = peer
        reader = Reader(20)
        data = b"".join(message_of_nats(number) for number in range(1, 21)) + b"PING\r\n"

        for start in range(0, len(data), size):
            server.sendall(data[start : start + size])
            take(reader, client)

        assert (client.seen, reader.finished, len(reader.latencies_ns)) == (20, 1, 20)

    def test_a_missing_event_is_refused(self, peer: tuple[socket.socket, nats.Client]) -> None:
        server, client = peer
        server.sendall(message_of_nats(1) + message_of_nats(3))
        with pytest.raises(SequenceError, match="event 3 came after event 1"):
            take(Reader(20), client)


class TestPeers:
    @pytest.mark.parametrize("name", ["jetstream-fsync", "nats", "pocketbase"])
    def test_a_peer_pushes_each_written_event_to_every_client(self, name: str, tmp_path: Path) -> None:
        found = peers.measure(name, tmp_path, clients=2, events=20, per_second=100)
        if isinstance(found, str):
            assert name == "pocketbase"  # it keeps no order between two writes
            assert "came after" in found
        else:
            assert 0 < found["p50_ms"] <= found["p99_ms"]
            assert found["write_p50_ms"] > 0

    def test_the_table_has_medians_and_tells_why_a_figure_is_missing(self) -> None:
        latency = [
            {"p50_ms": 1.0, "p99_ms": 2.0, "write_p50_ms": 0.5},
            {"p50_ms": 3.0, "p99_ms": 8.0, "write_p50_ms": 0.7},
            "event 3 came after event 1",
        ]
        burst = [{"deliveries_per_s": 50_000.0, "cpu_us": 2.5}]
        cells = {
            ("nats", "1"): latency,
            ("nats", "burst"): burst,
            ("outfeed", "1"): ["closed"],
            ("outfeed", "burst"): burst,
        }

        lines = peers.table(["outfeed", "nats"], [1], 500, cells).splitlines()

        assert lines[2] == "| Outfeed | yes | – | closed | 50,000 | 2.50 |"
        told = "2.00 / 5.0 (1 of 3 rounds: event 3 came after event 1)"
        assert lines[3] == f"| NATS core | no | 0.60 | {told} | 50,000 | 2.50 |"


def test_a_refused_subscription_is_an_error(wire: tuple[socket.socket, Client]) -> None:
    server, client = wire
    server.sendall(message("error", {"code": "invalid_field"}))

    with pytest.raises(LoadError, match="invalid_field"):
        client.await_verdict()


def test_stored_events_are_in_the_outbox_and_numbered(tmp_path: Path, upgraded: Path) -> None:
    database = tmp_path / "stored.db"
    database.write_bytes(upgraded.read_bytes())

    fill(database, 1000)

    with closing(sqlite3.connect(database)) as connection:
        payloads = connection.execute("SELECT payload FROM outbox ORDER BY seq").fetchall()
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(DISTINCT id) FROM event_log").fetchone() == (1000,)
    found = [event.ITEM.search(payload.encode()) for (payload,) in payloads]
    assert [int(item[1]) for item in found if item] == list(range(1, 1001))


def figures_of(*rounds: dict[str, float | None]) -> Case:
    """Return a case that gives these figures.

    It measures the p50 of each checkout in each round. None is an incomplete sequence.
    """
    left = {name: [each[name] for each in rounds] for name in rounds[0]}

    def measure(stage: Stage, clients: int) -> Figures:
        value = left[stage.checkout.name].pop(0)
        if value is None:
            raise SequenceError("event 5 came after event 3")
        return {"p50_ms": value, "load_core_percent": 3.0}

    return Case("latency", (7,), (7,), measure)


def results_of(case: Case, checkouts: tuple[Checkout, ...], rounds: int) -> tuple[Plan, Results, list[str]]:
    plan, steps = Plan(checkouts, [(case, 7)], rounds, SHORT), list[str]()
    return plan, run(plan, steps.append), steps


class TestRun:
    def test_a_run_reports_medians_and_ranges(self) -> None:
        plan, results, _ = results_of(figures_of({"this": 10.0}, {"this": 40.0}, {"this": 20.0}), (THIS,), 3)

        text = report.markdown(plan, results)

        assert "| latency | 7 | p50 ms | 20 (10–40) |" in text
        assert "Load average" in text

    def test_a_case_whose_sequence_failed_gives_no_figure(self) -> None:
        plan, results, _ = results_of(figures_of({"this": None}), (THIS,), 1)

        text = report.markdown(plan, results)

        assert results.samples == []
        assert "refused: round 1, this: latency, 7 clients: event 5 came after event 3" in text
        assert "| latency" not in text

    def test_a_pair_gives_both_medians_and_the_median_of_the_ratios_within_its_rounds(self) -> None:
        case = figures_of({"base": 10.0, "this": 5.0}, {"base": 40.0, "this": 60.0}, {"base": 20.0, "this": 20.0})

        plan, results, _ = results_of(case, (BASE, THIS), 3)

        assert "| latency | 7 | p50 ms | 20 | 20 | 1 (0.5–1.5) |" in report.markdown(plan, results)

    def test_a_round_that_failed_on_one_side_gives_no_ratio(self) -> None:
        case = figures_of({"base": None, "this": 5.0}, {"base": 40.0, "this": 60.0})

        plan, results, _ = results_of(case, (BASE, THIS), 2)

        assert "| latency | 7 | p50 ms | 40 | 32.5 | 1.5 |" in report.markdown(plan, results)

    def test_the_checkouts_alternate(self) -> None:
        case = figures_of(*[{"base": 1.0, "this": 1.0}] * 3)

        _, _, steps = results_of(case, (BASE, THIS), 3)

        assert [step.split()[2] for step in steps] == ["base:", "this:", "this:", "base:", "base:", "this:"]


def test_consecutive_turns_form_the_ratio() -> None:
    turns = [(100.0, 100.0), (300.0, 200.0), (110.0, 100.0)]
    assert calls.summary(turns) == {"log_event_us": 110.0, "insert_us": 100.0, "log_event_ratio": 1.1}


def test_producers_leave_id_and_time_to_the_server() -> None:
    single, many = (json.loads(producers.make_body(size)) for size in (1, 100))
    assert len(many) == 100
    assert set(single) == set(many[0]) == {"event_type", "source", "task_id", "agent_id", "data"}


class TestCommand:
    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "scripts.benchmarks", *arguments]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)

    def base(self, folder: Path, program: str) -> Path:
        """Return a base checkout whose command is *program*."""
        (folder / ".venv" / "bin").mkdir(parents=True)
        outfeed = folder / ".venv" / "bin" / "outfeed"
        outfeed.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        outfeed.chmod(0o755)
        return folder

    def test_a_tiny_run_measures_every_case(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "SHORT", replace(SHORT, turns=1, posted_events=400, watched_rows=100))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # in memory
        sizes = ["--quick", "--clients", "3", "--seconds", "0.3", "--behind", "500"]

        done = CliRunner().invoke(command.main, [*sizes, "--out", str(tmp_path / "bench.json")])

        assert done.exit_code == 0, done.output
        samples = json.loads((tmp_path / "bench.json").read_text())["samples"]
        cases = ["idle", "latency", "burst", "commits", "paced", "resume", "write", "incoming", "watch"]
        assert [sample["case"] for sample in samples] == cases
        assert all(f"| {case} |" in done.stdout for case in cases)

    def test_a_tiny_pair_gives_ratios(self, tmp_path: Path) -> None:
        base = self.base(tmp_path / "base", f"{sys.executable} -m outfeed")
        sizes = ("--pairs", "1", "--clients", "3", "--seconds", "0.3", "--out", str(tmp_path / "bench.json"))

        done = self.bench("latency", "--base", str(base), *sizes)

        assert done.returncode == 0, done.stdout + done.stderr
        document = json.loads((tmp_path / "bench.json").read_text())
        (p50,) = [row for row in document["rows"] if row["figure"] == "p50_ms"]
        assert len(p50["ratios"]) == 1
        assert [sample["checkout"] for sample in document["samples"]] == ["base", "this"]

    def test_a_base_that_does_not_start_is_reported(self, tmp_path: Path) -> None:
        base = self.base(tmp_path / "base", "false")

        done = self.bench("latency", "--base", str(base), "--pairs", "1", "--clients", "1", "--seconds", "0.3")

        assert done.returncode == 0, done.stdout + done.stderr
        assert "refused: round 1, base: latency, 1 clients" in done.stdout
        assert "| latency | 1 | p50 ms |  |" in done.stdout

    def test_a_base_without_a_virtual_environment_is_an_error(self, tmp_path: Path) -> None:
        done = self.bench("latency", "--base", str(tmp_path))

        assert done.returncode == 1
        assert f"{tmp_path}/.venv/bin/outfeed is missing" in done.stderr
