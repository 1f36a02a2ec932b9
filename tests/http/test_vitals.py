"""The vital figures of a process: series, lines and missing values."""

from __future__ import annotations

import pytest

from outfeed.errors import DatabaseBusy
from outfeed.http import vitals
from outfeed.http.status import number, span
from outfeed.http.vitals import Vitals, VitalsHistory, largest_lag, points


def history(*samples):
    left = list(samples)
    found = VitalsHistory(lambda: left.pop(0))
    for _ in samples:
        found.take()
    return found


def test_the_rate_is_that_between_two_samples_and_never_negative():
    found = history(
        Vitals(0.0, 100, None, 1, 0), Vitals(10.0, 150, 0.002, 2, 5), Vitals(20.0, 0, 0.004, 2, None)
    ).series()

    assert found == {"rate": [5.0, 0.0], "p99": [None, 0.002, 0.004], "clients": [1.0, 2.0, 2.0], "lag": [0, 5, None]}


def test_only_the_samples_of_the_last_minutes_are_kept():
    found = history(*(Vitals(float(n), n, None, n, 0) for n in range(vitals.KEPT + 10)))

    assert found.series()["clients"] == [float(n) for n in range(10, vitals.KEPT + 10)]


def test_the_newest_value_is_at_the_right_end_and_the_largest_at_the_top():
    line = [tuple(map(float, point.split(","))) for point in points([0.0, 4.0, None, 2.0]).split()]

    assert line[-1][0] == vitals.WIDTH
    assert [y for _, y in line] == [vitals.HEIGHT - vitals.MARGIN, vitals.MARGIN, vitals.HEIGHT / 2]
    assert line == sorted(line)


@pytest.mark.parametrize("values", [[], [None, None], [3.0], [None, 3.0]])
def test_fewer_than_two_values_have_no_line(values):
    assert points(values) == ""


def test_the_largest_lag_is_that_of_all_readers():
    found = {"webhook_lag": [(["a"], 3), (["b"], None)], "edge_lag": [(["c"], 9)], "webhook_failures": [(["a"], 50)]}

    assert largest_lag(lambda: found) == 9
    assert largest_lag(dict) == 0


def test_the_lag_of_a_busy_database_is_unknown():
    def busy():
        raise DatabaseBusy("a writer keeps the lock")

    assert largest_lag(busy) is None


def test_memory_and_free_space_are_plausible(tmp_path):
    assert 10 * 2**20 < vitals.memory_bytes() < 2**35
    assert vitals.free_bytes(tmp_path / "outfeed.db") > 0
    assert vitals.free_bytes(tmp_path / "no" / "outfeed.db") is None


@pytest.mark.parametrize(("secs", "text"), [(5, "5 s"), (90, "1 min"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")])
def test_an_uptime_has_its_two_largest_units(secs, text):
    assert span(secs) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.25, "0.2"), (12.5, "12"), (5157.0, "5,157")])
def test_a_number_has_a_decimal_if_it_is_small(value, text):
    assert number(value) == text
