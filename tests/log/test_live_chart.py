"""The chart and the figures of the live page."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from outfeed.display import Display, Level
from outfeed.log.live_chart import Share, count, draw, root_ticks_of, ticks_of
from outfeed.log.store.activity import HOUR, RANGES, Activity, Written
from outfeed.principal import EVERYTHING, EventScope

BEGIN = datetime(2026, 1, 31, 11, 31, tzinfo=UTC)


def activity(bars: dict[int, dict[str, int]]) -> Activity:
    counts = [
        Counter({Written(name, "s", None): number for name, number in bars.get(index, {}).items()})
        for index in range(HOUR.bars)
    ]
    return Activity("epoch", 9, HOUR, BEGIN, counts)


@pytest.mark.parametrize(
    ("peak", "ticks"),
    [
        (0, [2, 1, 0]),
        (3, [3, 2, 1, 0]),
        (10, [15, 10, 5, 0][1:]),
        (12, [15, 10, 5, 0]),
        (80, [80, 60, 40, 20, 0]),
        (81, [100, 50, 0]),
        (5157, [6000, 4000, 2000, 0]),
    ],
)
def test_the_axis_has_few_round_ticks_and_fits_the_peak(peak: int, ticks: list[int]) -> None:
    assert ticks_of(peak) == ticks


@pytest.mark.parametrize("peak", [*range(10, 400), 5157, 123_456])
def test_the_peak_fills_most_of_the_axis(peak: int) -> None:
    assert peak <= ticks_of(peak)[0] <= peak * 5 / 3


@pytest.mark.parametrize(
    ("peak", "ticks"), [(0, [4, 1, 0]), (5, [9, 4, 1, 0]), (81, [90, 40, 10, 0]), (5157, [8000, 4500, 2000, 500, 0])]
)
def test_the_ticks_of_a_square_root_axis_have_equal_distances_and_fit_the_peak(peak: int, ticks: list[int]) -> None:
    assert root_ticks_of(peak) == ticks


def test_a_rare_event_shows_beside_a_peak_on_the_square_root_scale() -> None:
    found = activity({0: {"task.created": 144}, 1: {"task.created": 1}, 2: {"task.created": 16, "x.y": 20}})
    plain, root = draw(found, EVERYTHING), draw(found, EVERYTHING, is_root=True)
    assert plain.bands[0].path.startswith("M0 4.00h8v96.00h-8zM10 99.33h8v0.67h-8z")
    assert (root.ticks, root.is_root) == ([160, 90, 40, 10, 0], True)
    assert root.bands[0].path == "M0 5.13h8v94.87h-8zM10 92.09h8v7.91h-8zM20 68.38h8v31.62h-8z"
    assert root.bands[1].path == "M20 52.57h8v15.81h-8z"  # on top of the other kind, so that the sum has its height


@pytest.mark.parametrize("range_", RANGES.values(), ids=RANGES)
def test_the_table_and_the_times_divide_every_range(range_) -> None:
    chart = draw(Activity("epoch", 9, range_, BEGIN, [Counter() for _ in range(range_.bars)]), EVERYTHING)
    rows = list(chart.rows)
    assert (len(rows), rows[-1][0], rows[0][1]) == (12, BEGIN, chart.end)
    assert [label - BEGIN for label in chart.labels] == [(chart.end - BEGIN) / 4 * index for index in range(4)]


def test_kinds_are_stacked_in_one_order() -> None:
    chart = draw(activity({0: {"agent.joined": 5, "task.failed": 2, "task.created": 3}, 59: {"x.y": 1}}), EVERYTHING)
    assert [band.kind for band in chart.bands] == ["task", "agent", "x"]
    assert {band.kind: band.path for band in chart.bands if band.path} == {
        "task": "M0 50.00h8v50.00h-8z",
        "agent": "M0 0.00h8v50.00h-8z",
        "x": "M590 90.00h8v10.00h-8z",
    }
    assert (chart.ticks, chart.peak, chart.total) == ([10, 5, 0], 10, 11)


def test_the_table_has_the_chart_data_newest_first() -> None:
    rows = list(
        draw(activity({0: {"task.created": 1}, 4: {"task.created": 2}, 5: {"tool.called": 4}}), EVERYTHING).rows
    )
    assert len(rows) == 12
    middle = BEGIN + timedelta(minutes=5)
    assert rows[-1] == (BEGIN, middle, [3, 0])
    assert rows[-2] == (middle, middle + timedelta(minutes=5), [0, 4])


def test_kinds_of_the_chart_are_those_that_occur_and_rare_ones_count_as_other() -> None:
    own = {f"kind_{number:02}.x": 100 - number for number in range(15)}
    chart = draw(activity({0: {**own, "system.info": 1, "Odd one": 7}, 1: {"kind_14.x": 1}}), EVERYTHING)
    assert [band.kind for band in chart.bands] == ["system", *(f"kind_{number:02}" for number in range(12)), "other"]
    assert chart.bands[-1].total == 88 + 87 + 86 + 7 + 1
    assert chart.total == sum(own.values()) + 1 + 7 + 1


def test_a_chart_without_events_has_no_kinds() -> None:
    chart = draw(activity({}), EVERYTHING)
    assert (chart.bands, chart.ticks, chart.total) == ([], [2, 1, 0], 0)


def test_types_without_permission_are_not_counted() -> None:
    found = activity({0: {"access.signed_in": 1, "system.pruned": 1, "system.info": 1, "task.created": 1}})
    assert draw(found, EventScope()).total == 2
    assert draw(found, EventScope(types=("task.*",))).total == 1


def test_figures_count_levels_types_and_sources() -> None:
    bars = [Counter({Written("shop.sold", "till", None): 3, Written("shop.sold", "web", "warning"): 2})]
    bars += [Counter({Written("card.failed", "web", None): 1, Written("access.signed_in", "web", None): 9})]
    bars += [Counter({Written("a.b", "till", None): 1})]
    found = count(Activity("epoch", 9, HOUR, BEGIN, bars), EventScope(), {"a.b": Display(level=Level.ERROR)})
    assert dict(found.by_level) == {Level.INFO: 3, Level.WARNING: 2, Level.ERROR: 2}
    assert found.types == [
        Share("shop.sold", 5, Level.WARNING), Share("a.b", 1, Level.ERROR), Share("card.failed", 1, Level.ERROR),
    ]  # fmt: skip
    assert found.sources == [Share("till", 4, Level.ERROR), Share("web", 3, Level.ERROR)]
    assert (found.total, found.types_of(Level.ERROR)) == (7, "a.b,card.failed")


def test_the_types_of_a_level_are_named_only_if_they_are_few() -> None:
    found = count(activity({0: {f"kind_{number}.failed": 1 for number in range(9)}}), EVERYTHING, {})
    assert found.types_of(Level.ERROR) is None
