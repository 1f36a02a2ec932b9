"""The folder of the workers' metrics, with running and killed workers."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outfeed.http.server.metrics_folder import MetricsFolder
from outfeed.metrics import PREFIX, Metrics
from tests.waits import wait_until

WORKER = """
import sys
from pathlib import Path
from outfeed.metrics import Metrics
metrics = Metrics.shared(Path(sys.argv[1]), int(sys.argv[2]))
print("begun", flush=True)
"""
COUNT_THREE = "metrics.position.set(7); metrics.refusals.labels('connections').inc(3)"
COUNT_FOR_EVER = """
while True:
    metrics.fallbacks.inc()
    metrics.poll_seconds.observe(0.2)
"""
COUNT_MANY = """
for n in range(2000):
    metrics.errors.labels(f"place {n}").inc()
"""
HOLD = """
import sys
from pathlib import Path
from outfeed.http.server.metrics_folder import MetricsFolder
folder = MetricsFolder(Path(sys.argv[1]))
print("begun", folder.path, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[MetricsFolder]:
    made = MetricsFolder(tmp_path)
    yield made
    made.remove()


@contextlib.contextmanager
def started_process(code: str, *arguments: object) -> Iterator[str]:
    """Run *code* until its first output, which is yielded, then kill it.

    The signal is SIGKILL.
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield running.stdout.readline().strip()
        finally:
            running.kill()


@contextlib.contextmanager
def worker(folder: MetricsFolder, number: int, code: str) -> Iterator[None]:
    with started_process(
        f"{WORKER}{code}\nprint('counted', flush=True)\nsys.stdin.read()", folder.path, number
    ) as said:
        assert said == "begun"
        yield


def totals(folder: MetricsFolder, name: str) -> dict[str, float]:
    """Return the sum of the metric's samples by worker."""
    found: dict[str, float] = {}
    for number, families in Metrics(folder.path).by_worker():
        for sample in (each for family in families for each in family.samples if each.name == PREFIX + name):
            found[number] = found.get(number, 0) + sample.value
    return found


def test_a_worker_shows_the_others_counters_and_no_gauges_of_ended_ones(folder: MetricsFolder) -> None:
    with worker(folder, 0, COUNT_THREE), worker(folder, 11, COUNT_THREE):
        wait_until(lambda: totals(folder, "refusals_total") == {"0": 3, "11": 3}, "both have counted")
        assert totals(folder, "position") == {"0": 7, "11": 7}
    folder.forget(11)
    assert totals(folder, "position") == {"0": 7}
    assert totals(folder, "refusals_total") == {"0": 3, "11": 3}


def test_a_worker_without_measurements_has_no_position(folder: MetricsFolder) -> None:
    with worker(folder, 0, ""):
        wait_until(lambda: totals(folder, "ready") == {"0": 0}, "the gauge is exported")
        assert math.isnan(totals(folder, "position")["0"])
        assert math.isnan(totals(folder, "poll_age_seconds")["0"])


def test_no_counter_decreases_when_workers_are_killed(folder: MetricsFolder) -> None:
    before = {"fallbacks_total": 0.0, "poll_seconds_count": 0.0, "poll_seconds_sum": 0.0}
    for _ in range(5):
        with worker(folder, 0, COUNT_FOR_EVER):
            started_at = before["fallbacks_total"]
            wait_until(lambda at=started_at: totals(folder, "fallbacks_total").get("0", 0) > at + 1000, "it counts")
            for name, least in before.items():
                before[name] = totals(folder, name)["0"]
                assert before[name] >= least
        folder.forget(0)
        for name, least in before.items():
            assert totals(folder, name)["0"] >= least


def test_a_large_number_of_counters_is_complete(folder: MetricsFolder) -> None:
    with worker(folder, 0, COUNT_MANY):
        wait_until(lambda: totals(folder, "errors_total") == {"0": 2000}, "all are exported")


def test_a_worker_that_has_just_started_is_skipped(folder: MetricsFolder) -> None:
    (folder.path / "counter_1.db").touch()
    with worker(folder, 0, COUNT_THREE):
        wait_until(lambda: totals(folder, "refusals_total") == {"0": 3}, "the other is exported")


def test_the_folder_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    folder = MetricsFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_next_server_removes_folders_of_killed_servers_only(tmp_path: Path) -> None:
    with started_process(f"{HOLD}sys.stdin.read()", tmp_path) as living:
        with started_process(f"{HOLD}sys.stdin.read()", tmp_path) as killed:
            assert len(list(tmp_path.iterdir())) == 2
        folder = MetricsFolder(tmp_path)
        assert sorted(map(str, tmp_path.iterdir())) == sorted([str(folder.path), living.removeprefix("begun ")])
        assert not Path(killed.removeprefix("begun ")).exists()
        folder.remove()
