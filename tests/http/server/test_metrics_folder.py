"""The folder in which workers count: what each shows of the others, and what a killed one leaves behind."""

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
def process(code: str, *arguments: object) -> Iterator[str]:
    """Run *code* until it has said something, which is yielded; then SIGKILL it."""
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
    with process(f"{WORKER}{code}\nprint('counted', flush=True)\nsys.stdin.read()", folder.path, number) as said:
        assert said == "begun"
        yield


def shown(folder: MetricsFolder, name: str) -> dict[str, float]:
    """Return the sum of the metric's samples by worker."""
    found: dict[str, float] = {}
    for number, families in Metrics(folder.path).by_worker():
        for sample in (each for family in families for each in family.samples if each.name == PREFIX + name):
            found[number] = found.get(number, 0) + sample.value
    return found


def test_a_worker_shows_what_the_others_count_and_gauges_of_none_that_is_dead(folder: MetricsFolder) -> None:
    with worker(folder, 0, COUNT_THREE), worker(folder, 11, COUNT_THREE):
        wait_until(lambda: shown(folder, "refusals_total") == {"0": 3, "11": 3}, "both have counted")
        assert shown(folder, "position") == {"0": 7, "11": 7}
    folder.forget(11)
    assert shown(folder, "position") == {"0": 7}
    assert shown(folder, "refusals_total") == {"0": 3, "11": 3}


def test_a_worker_that_has_measured_nothing_is_at_no_position(folder: MetricsFolder) -> None:
    with worker(folder, 0, ""):
        wait_until(lambda: shown(folder, "ready") == {"0": 0}, "it is shown")
        assert math.isnan(shown(folder, "position")["0"])
        assert math.isnan(shown(folder, "poll_age_seconds")["0"])


def test_no_counter_goes_back_where_workers_are_killed_as_they_count(folder: MetricsFolder) -> None:
    before = {"fallbacks_total": 0.0, "poll_seconds_count": 0.0, "poll_seconds_sum": 0.0}
    for _ in range(5):
        with worker(folder, 0, COUNT_FOR_EVER):
            started_at = before["fallbacks_total"]
            wait_until(lambda at=started_at: shown(folder, "fallbacks_total").get("0", 0) > at + 1000, "it counts")
            for name, least in before.items():
                before[name] = shown(folder, name)["0"]
                assert before[name] >= least
        folder.forget(0)
        for name, least in before.items():
            assert shown(folder, name)["0"] >= least


def test_however_much_there_is_to_count_nothing_is_left_out(folder: MetricsFolder) -> None:
    with worker(folder, 0, COUNT_MANY):
        wait_until(lambda: shown(folder, "errors_total") == {"0": 2000}, "all are shown")


def test_a_worker_that_has_just_begun_is_left_out(folder: MetricsFolder) -> None:
    (folder.path / "counter_1.db").touch()
    with worker(folder, 0, COUNT_THREE):
        wait_until(lambda: shown(folder, "refusals_total") == {"0": 3}, "the other is shown")


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    folder = MetricsFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_the_next_one_removes_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    with process(f"{HOLD}sys.stdin.read()", tmp_path) as living:
        with process(f"{HOLD}sys.stdin.read()", tmp_path) as killed:
            assert len(list(tmp_path.iterdir())) == 2
        folder = MetricsFolder(tmp_path)
        assert sorted(map(str, tmp_path.iterdir())) == sorted([str(folder.path), living.removeprefix("begun ")])
        assert not Path(killed.removeprefix("begun ")).exists()
        folder.remove()
