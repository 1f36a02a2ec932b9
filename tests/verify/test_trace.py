"""The trace of a server: what it decided is compared with the model."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from outfeed.feed import trace as trace_module
from outfeed.feed.trace import Trace
from outfeed.verify.trace import Line, TraceResult, check_traces
from tests.database_file import write_events
from tests.server import ROOT, Server
from tests.simulation.schedule import run, schedule_of
from tests.waits import wait_until

# Faults of the hub, the cohorts and a subscriber, each of which skips an event or sends one twice.
FAULTS = [
    ("feed/hub.py", "self._cohorts.advance(items, position)", "self._cohorts.advance(items[1:], position)"),
    ("feed/cohort.py", "self.subscription.encode(chunk, self.prev", "self.subscription.encode(chunk[1:], self.prev"),
    ("feed/subscriber.py", "self._page = self._page[len(chunk) :]", "self._page = self._page[len(chunk) + 1 :]"),
]


def lines_of(file: Path) -> list[Line]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def check_folder(folder: Path) -> TraceResult:
    return check_traces(sorted(folder.iterdir()))


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """The trace of one process that pushes events to a client."""
    file = tmp_path / "trace"
    client: Line = {"client": 1, "epoch": "a"}
    verdict = {"start": [0, None], "consumer": None, "verdict": "resumed", "after": 0, "head": 2}
    found: list[Line] = [
        {"kind": "begin", "epoch": "a", "position": 2, "reason": "", "is_copy": False},
        {"kind": "verdict", **client, **verdict, "filter": {"types": ["a.*"], "audit": False}},
        {"kind": "send", **client, "prev": 0, "seqs": [1, 2]},
        {"kind": "join", **client, "cursor": 2},
        {"kind": "publish", "epoch": "a", "after": 2, "position": 5, "events": [event(3), event(4, "b"), event(5)]},
        {"kind": "push", "clients": [1], "epoch": "a", "prev": 2, "seqs": [3, 5]},
        {"kind": "cursor", "clients": [1], "epoch": "a", "cursor": 5},
    ]
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in found))
    return file


def event(seq: int, event_type: str = "a.b") -> list[object]:
    return [seq, f"id-{seq}", event_type, "s", None, None]


def breach_of(file: Path, change: Callable[[list[Line]], object]) -> str:
    """Return the breach after *change*."""
    lines = lines_of(file)
    change(lines)
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    breach = check_traces([file]).breach
    return breach.breach if breach else ""


def test_a_trace_of_a_right_server_keeps_the_protocol(traced: Path) -> None:
    assert check_traces([traced]) == TraceResult(lines=7, pushes=2, clients=1, breach=None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: lines[5].update(seqs=[5]), "E1"),
        (lambda lines: lines[5].update(seqs=[3]), "E4"),
        (lambda lines: lines.append(lines[5]), "E1"),
        (lambda lines: lines[5].update(prev=3), "E2"),
        (lambda lines: lines[5].update(seqs=[3, 4, 5]), "F1"),
        (lambda lines: lines[5].update(epoch="b"), "E10"),
        (lambda lines: lines.pop(1), "V1"),
        (lambda lines: lines[1].update(verdict="live"), "V5"),
        (lambda lines: lines[4].update(after=3), "S3"),
        (lambda lines: lines.append({**lines[4], "after": 5, "position": 6, "events": [event(9)]}), "S3"),
        (lambda lines: lines.insert(5, {"kind": "unsubscribe", "client": 1}), "V1"),
        (lambda lines: lines[6].update(cursor=2), "E4"),
    ],
)
def test_a_wrong_decision_is_a_breach(traced: Path, change: Callable[[list[Line]], object], sentence: str) -> None:
    assert breach_of(traced, change).partition(":")[0] == sentence


def test_another_event_under_a_seq_of_another_process_is_a_breach(traced: Path) -> None:
    other = traced.with_name("other")
    shutil.copy(traced, other)
    assert breach_of(other, lambda lines: lines[4]["events"][0].__setitem__(1, "other")) == ""
    found = check_traces([traced, other]).breach
    assert found is not None
    assert (found.file, found.line, found.breach.partition(":")[0]) == (str(other), 5, "S2")


def test_a_last_line_that_a_kill_has_cut_is_left_out(traced: Path) -> None:
    with traced.open("ab") as file:
        file.write(b'{"kind":"push","clie')
    assert check_traces([traced]).breach is None


@pytest.mark.parametrize("text", ["# Outfeed\n", "[]\n", '{"epoch": 1}\n'])
def test_a_file_that_is_no_trace_is_named_with_its_line(outfeed: Any, traced: Path, text: str) -> None:
    with traced.open("a") as file:
        file.write(text)
    done = outfeed("verify", "--trace", traced)
    assert (done.exit_code, f"{traced}:8: not a line of a trace" in done.stderr) == (1, True)


def test_simulated_processes_write_traces_that_keep_the_protocol(tmp_path: Path) -> None:
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert run(schedule_of(seed), traces=folder) is None
        assert check_folder(folder).breach is None, seed


@pytest.mark.parametrize(("module", "old", "new"), FAULTS)
def test_the_trace_of_a_server_with_a_fault_names_the_line(tmp_path: Path, module: str, old: str, new: str) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", "static"))
    path = tmp_path / "app/outfeed" / module
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    subprocess.run(
        [sys.executable, "-m", "tests.verify.planted_fault", str(tmp_path / "traces")],
        check=True, cwd=ROOT, capture_output=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "app"), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    breaches = [check_folder(folder).breach for folder in (tmp_path / "traces").iterdir()]
    assert {each.breach.partition(":")[0] for each in breaches if each} & {"E1", "E2"}


def test_a_trace_ends_at_its_size_with_a_line_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "MAX_BYTES", 500)
    trace = Trace(tmp_path / "trace")
    for position in range(100):
        trace.note("begin", epoch="a", position=position, reason="", is_copy=False)
        trace.write()
    trace.close()
    [file] = tmp_path.iterdir()
    assert file.stat().st_size < 1000
    assert check_traces([file]).note == "the file exceeds 500 bytes"


def test_the_workers_of_a_server_write_traces_until_a_kill(tmp_path: Path) -> None:
    settings = {"workers": 2, "trace_file": str(tmp_path / "feed.trace"), "heartbeat_secs": 0.2}
    with Server(tmp_path, **settings) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        for client in clients:
            client.subscribe(after=0)
        for _ in range(5):
            write_events(server.database)
            for client in clients:
                client.next_event()
        wait_until(lambda: _pushes(tmp_path) >= 20, "the traces have every write")
        server.kill()
    files = [*map(str, tmp_path.glob("feed.trace.*"))]
    done = subprocess.run(
        [sys.executable, "-m", "outfeed", "verify", "--trace", *files], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "keep the protocol" in done.stdout
    _spoil(Path(files[0]))
    done = subprocess.run(
        [sys.executable, "-m", "outfeed", "verify", "--trace", *files], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"{files[0]}:1: " in done.stdout


def _pushes(folder: Path) -> int:
    return check_traces(folder.glob("feed.trace.*")).pushes


def _spoil(file: Path) -> None:
    """Put a message to an unknown client before the first line."""
    line = {"kind": "cursor", "clients": [99], "epoch": "a", "cursor": 1}
    file.write_bytes(orjson.dumps(line) + b"\n" + file.read_bytes())
