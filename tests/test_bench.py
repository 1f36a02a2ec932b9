"""The bench refuses what is not whole, and reports what it measured."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from outfeed.feed.frames import WEBSOCKET, message
from outfeed.history import Item
from outfeed.store.search import path_of
from scripts.benchmarks import calls, event, plot, producers, report, stock
from scripts.benchmarks.__main__ import FULL, QUICK
from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.alone.table import ALONE
from scripts.benchmarks.client import Client, Target
from scripts.benchmarks.errors import LoadError, SequenceError
from scripts.benchmarks.peers.table import PEERS, Ws
from scripts.benchmarks.readers import Reader
from scripts.benchmarks.rounds import Plan, Results, Sample, make_plan, run
from scripts.benchmarks.servers import Outfeed

ROOT = Path(__file__).parents[1]
BORN_NS = 1_700_000_000_000_000_000


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
    def test_a_batch_that_is_not_what_follows_is_refused(
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


class TestTheVerdict:
    TARGET = Target("", 0, "/", {}, "40", greetings=("0{", "40"))

    def test_greetings_come_before_it(self, wire: tuple[socket.socket, Client]) -> None:
        server, client = wire
        server.sendall(b'\x81\x020{\x81\x0240\x81\x0f42["subscribed"\x81')

        client.await_verdict(self.TARGET)

        assert client.rest == b"\x81"

    def test_another_answer_is_an_error(self, wire: tuple[socket.socket, Client]) -> None:
        server, client = wire
        server.sendall(message("error", {"code": "invalid_field"}))

        with pytest.raises(LoadError, match="invalid_field"):
            client.await_verdict(self.TARGET)


def test_stored_events_are_in_the_outbox_and_numbered(tmp_path: Path, upgraded: Path) -> None:
    database = tmp_path / "stored.db"
    database.write_bytes(upgraded.read_bytes())

    stock.fill(database, 1000)

    with closing(sqlite3.connect(database)) as connection:
        payloads = connection.execute("SELECT payload FROM outbox ORDER BY seq").fetchall()
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(DISTINCT id) FROM event_log").fetchone() == (1000,)
    found = [event.ITEM.search(payload.encode()) for (payload,) in payloads]
    assert [int(item[1]) for item in found if item] == list(range(1, 1001))


def test_stored_events_are_in_the_search_index(tmp_path: Path, upgraded: Path) -> None:
    database = tmp_path / "stored.db"
    database.write_bytes(upgraded.read_bytes())
    stock.fill(database, 10)

    stock.index(database)

    with closing(sqlite3.connect(path_of(database))) as connection:
        assert connection.execute("SELECT count(*) FROM block").fetchone() == (1,)


class TestThePlan:
    def test_what_needs_a_fresh_server_gets_one(self) -> None:
        plan = make_plan(["idle", "latency", "burst"], None, (Outfeed,), 1, QUICK)
        assert [[(count, [case.name for case in cases]) for count, cases in groups] for groups in plan.sittings] == [
            [(1000, ["idle"])],
            [(1, ["latency"]), (100, ["latency"]), (500, ["latency", "burst"]), (1000, ["latency"])],
        ]

    def test_numbers_of_clients_hold_for_all_cases_that_have_clients(self) -> None:
        plan = make_plan([*ALONE, "burst"], (7, 9), (Outfeed,), 1, QUICK)
        assert [[count for count, _ in groups] for groups in plan.sittings] == [[7, 9]]
        assert {count for case, count in plan.alone if case.name != "write"} == {7, 9}
        assert [count for case, count in plan.alone if case.name == "write"] == [0]

    def test_a_quick_run_is_smaller_in_everything(self) -> None:
        assert all(getattr(QUICK, name) <= getattr(FULL, name) for name in QUICK.__dataclass_fields__)


class TestARun:
    def plan(self, measure: Callable[..., dict[str, float]]) -> Plan:
        case = Alone("paced", (5,), measure, {"core_percent": Figure("CPU", "≤ 20")})
        return Plan((Outfeed,), [], [(case, 5)], 2, QUICK, left_out=("ws, for want of node",))

    def results(self, plan: Plan) -> Results:
        *_, results = run(plan)
        assert isinstance(results, Results)
        return results

    def test_it_reports_medians_ranges_and_goals(self) -> None:
        plan = self.plan(lambda stage, clients: {"core_percent": 10.0 * stage.round})
        text = report.markdown(plan, self.results(plan))
        label = ALONE["paced"].figures["core_percent"].label
        assert f"| paced: {label} | 5 | 15 (10–20) | ≤ 20 |" in text
        assert "Load average" in text
        assert "Left out: ws, for want of node." in text

    def test_a_case_whose_sequence_failed_gives_no_figure(self) -> None:
        def fail(stage: object, clients: int) -> dict[str, float]:
            raise SequenceError("event 5 came after event 3")

        plan = self.plan(fail)
        results = self.results(plan)
        assert results.samples == []
        text = report.markdown(plan, results)
        assert "refused: round 2, paced: event 5 came after event 3" in text
        assert "| paced" not in text

    def test_turns_alternate_from_round_to_round(self) -> None:
        orders: list[list[int]] = []

        def note(stage: object, clients: int) -> dict[str, float]:
            orders.append(stage.in_turn(1, 2))  # type: ignore[attr-defined]
            return {}

        self.results(self.plan(note))
        assert orders == [[1, 2], [2, 1]]


class TestThePlot:
    def samples(self) -> Results:
        found = [
            Sample(number, server, "latency", clients, {"p50_ms": value * number}, 0.0)
            for number in (1, 2, 3)
            for server, value in (("outfeed", 1.0), ("<ws>", 30.0))
            for clients in (1, 100)
        ]
        growth = [Sample(1, "outfeed", "growth", n, {"core_percent": n / 100}, 0.0) for n in (100, 2000)]
        return Results(samples=[*found, *growth])

    def test_each_server_has_a_line_of_its_medians(self) -> None:
        assert plot.medians(self.samples(), plot.PANELS[0]) == {
            "outfeed": {1: 2.0, 100: 2.0},
            "<ws>": {1: 60.0, 100: 60.0},
        }
        drawing = ElementTree.fromstring(plot.svg(self.samples()))
        texts = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
        assert [text for text in texts if text in ("outfeed", "<ws>")] == ["outfeed", "<ws>"]
        lines = [path for path in drawing.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none"]
        assert len(lines) == 3

    def test_without_figures_it_is_empty(self) -> None:
        ElementTree.fromstring(plot.svg(Results()))


def test_turns_that_followed_each_other_make_the_ratio() -> None:
    turns = {"log_event_us": [100.0, 300.0, 110.0], "insert_us": [100.0, 200.0, 100.0]}
    assert calls.summary(turns) == {"log_event_us": 110.0, "insert_us": 100.0, "log_event_ratio": 1.1}


def test_producers_leave_id_and_time_to_the_server() -> None:
    single, many = (json.loads(producers.make_body(size)) for size in (1, 100))
    assert len(many) == 100
    assert set(single) == set(many[0]) == {"event_type", "source", "task_id", "agent_id", "data"}


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert Ws.missing() == "node, npm"
    assert PEERS["websockets"].missing() == ""


def test_a_tiny_run_measures_and_writes_its_files(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "bench.json"), "--svg", str(tmp_path / "bench.svg")]
    sizes = ["--quick", "--clients", "3", "--seconds", "1", "--peers", "websockets"]
    command = [sys.executable, "-m", "scripts.benchmarks", "latency", "paced", *sizes, *files]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "bench.json").read_text())
    assert [(sample["case"], sample["server"]) for sample in document["samples"]] == [
        ("latency", "outfeed"),
        ("latency", "websockets"),
        ("paced", "outfeed"),
    ]
    assert all(value >= 0 for sample in document["samples"] for value in sample["figures"].values())
    ElementTree.parse(tmp_path / "bench.svg")
