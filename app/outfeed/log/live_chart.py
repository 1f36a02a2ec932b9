"""The chart of the live page, and its figures: events by time and kind."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from outfeed.display import KINDS, OTHER, Display, Level, colour_of, kind_of, level_of
from outfeed.log.store.activity import Activity, Range, Written
from outfeed.principal import EventScope

MAX_KINDS = 12  # in the chart; the others count as other
MAX_TICKS = 4
MAX_TABLE_ROWS = 12
LABELS = 4  # of the time axis; the number of bars is a multiple
BAR, GAP, HEIGHT = 10, 2, 100  # units of the drawing, which is stretched to the page's width
MAX_TOP = 50
MAX_LINKED_TYPES = 8  # in an address


class Band(NamedTuple):
    """One kind in the chart.

    *counts* begins with the oldest bar. *path* draws the bars, as an SVG path.
    """

    kind: str
    counts: list[int]
    path: str
    is_shown: bool

    @property
    def total(self) -> int:
        """Return the number of events of the kind."""
        return sum(self.counts)

    @property
    def colour(self) -> str:
        """The name of the kind's colour."""
        return colour_of(self.kind)


@dataclass(frozen=True, slots=True)
class LiveChart:
    """Events by time, stacked by kind. *ticks* begins with the top.

    With *is_root*, the height of a bar is the square root of its number, so that rare events show beside a peak.
    """

    epoch: str
    seq: int
    range: Range
    begin: datetime
    ticks: list[int]
    peak: int
    total: int
    bands: list[Band]
    is_root: bool = False

    @property
    def end(self) -> datetime:
        """Return the end of the newest bar."""
        return self.begin + self.range.step * self.range.bars

    @property
    def width(self) -> int:
        """Return the width of the drawing."""
        return self.range.bars * BAR - GAP

    @property
    def grid(self) -> str:
        """The SVG path of the lines at the ticks."""
        last = len(self.ticks) - 1
        places = [min(max(0.5, HEIGHT * index / last), HEIGHT - 0.5) for index in range(last + 1)]
        return "".join(f"M0 {place:.1f}h{self.width}" for place in places)

    @property
    def labels(self) -> list[datetime]:
        """The times at equal distances, from the begin on."""
        step = self.range.step * (self.range.bars // LABELS)
        return [self.begin + step * index for index in range(LABELS)]

    @property
    def rows(self) -> Iterator[tuple[datetime, datetime, list[int]]]:
        """Yield the table of the chart: begin, end, a count for each band.

        The newest comes first.
        """
        bars = self.range.bars // MAX_TABLE_ROWS
        for start in range(self.range.bars - bars, -1, -bars):
            counts = [sum(band.counts[start : start + bars]) for band in self.bands]
            begin = self.begin + self.range.step * start
            yield begin, begin + self.range.step * bars, counts


def draw(activity: Activity, visible: EventScope, shown: Collection[str] = (), *, is_root: bool = False) -> LiveChart:
    """Return the chart of the *visible* types in *activity*.

    All kinds are counted. If there are *shown* kinds, only these are drawn.
    """
    counts = _counts_by_kind(activity, visible)
    drawn = [each for kind, each in counts.items() if not shown or kind in shown]
    sums = [sum(column) for column in zip(*drawn, strict=True)] or [0]
    ticks = (root_ticks_of if is_root else ticks_of)(max(sums))
    floors = [0] * activity.range.bars
    bands = []
    for kind in counts:
        is_shown = not shown or kind in shown
        path = _path(floors, counts[kind], ticks[0], is_root) if is_shown else ""
        bands.append(Band(kind, counts[kind], path, is_shown))
        if is_shown:
            floors = [floor + count for floor, count in zip(floors, counts[kind], strict=True)]
    return LiveChart(
        activity.epoch, activity.seq, activity.range, activity.begin, ticks, max(sums), sum(sums), bands, is_root
    )  # fmt: skip


def _counts_by_kind(activity: Activity, visible: EventScope) -> dict[str, list[int]]:
    """Return the events of each bar, by kind.

    The known kinds come first, then the most frequent ones.
    """
    bars = activity.range.bars
    found: dict[str, list[int]] = {}
    for index, bar in enumerate(activity.counts):
        for written, count in bar.items():
            if visible.covers(written.event_type):
                found.setdefault(kind_of(written.event_type), [0] * bars)[index] += count
    others = sorted(found.keys() - set(KINDS), key=lambda kind: (-sum(found[kind]), kind))
    for kind in others[MAX_KINDS:]:
        sums = zip(found.pop(kind), found.get(OTHER, [0] * bars), strict=True)
        found[OTHER] = [one + another for one, another in sums]
    order = [*KINDS[:-1], *others[:MAX_KINDS], OTHER]
    return {kind: found[kind] for kind in order if kind in found}


def ticks_of(peak: int) -> list[int]:
    """Return the ticks of an axis for *peak*, from the top down to 0.

    There are at most MAX_TICKS above 0, at steps of 1, 2, 5, 10 and so on.
    """
    step = _step(peak, MAX_TICKS)
    return [step * index for index in range(max(2, -(-peak // step)), -1, -1)]


def root_ticks_of(peak: int) -> list[int]:
    """Return the ticks of a square-root axis for *peak*, from the top.

    They are multiples of a round step by 16, 9, 4, 1 and 0, so their distances on the axis are equal.
    """
    step = _step(peak, MAX_TICKS**2)
    return [step * index**2 for index in range(max(2, math.isqrt(max(0, -(-peak // step) - 1)) + 1), -1, -1)]


def _step(peak: int, most: int) -> int:
    """Return the first of 1, 2, 5, 10 and so on with *peak* in *most* steps."""
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    return next(step for step in steps if step * most >= peak)


def _path(floors: list[int], counts: list[int], top: int, is_root: bool) -> str:
    """Return the SVG path of a bar for each count, each on its floor."""

    def height_of(number: int) -> float:
        return HEIGHT * (math.sqrt(number / top) if is_root else number / top)

    bars = []
    for index, (floor, count) in enumerate(zip(floors, counts, strict=True)):
        if count:
            y = HEIGHT - height_of(floor + count)
            height = height_of(floor + count) - height_of(floor)
            bars.append(f"M{index * BAR} {y:.2f}h{BAR - GAP}v{height:.2f}h{GAP - BAR}z")
    return "".join(bars)


# --- figures ----------------------------------------------------------------------------------------------------------


class Share(NamedTuple):
    """A type or source, and its number of events. *level* is the highest."""

    name: str
    number: int
    level: Level


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of the events in a range: by level, type and source.

    The most frequent types and sources come first. *noisy* has the types of each level that counts.
    """

    by_level: Mapping[Level, int]
    types: list[Share]
    sources: list[Share]
    noisy: Mapping[Level, list[str]]

    @property
    def total(self) -> int:
        """Return the number of events."""
        return sum(self.by_level.values())

    def types_of(self, level: Level) -> str | None:
        """Return the types with events of *level*, for an address.

        Returns None if they are too many.
        """
        found = self.noisy.get(level, [])
        return ",".join(found) if len(found) <= MAX_LINKED_TYPES else None


def count(activity: Activity, visible: EventScope, displays: Mapping[str, Display]) -> Figures:
    """Return the figures of the *visible* events in *activity*."""
    written = Counter[Written]()
    for bar in activity.counts:
        written.update(bar)
    by_level, types, sources, levels = Counter[Level](), Counter[str](), Counter[str](), set[tuple[Written, Level]]()
    for each, number in written.items():
        if visible.covers(each.event_type):
            level = level_of(each.event_type, each.said_level, displays)
            by_level[level] += number
            types[each.event_type] += number
            sources[each.source] += number
            levels.add((each, level))
    return Figures(
        by_level,
        _shares(types, ((each.event_type, level) for each, level in levels)),
        _shares(sources, ((each.source, level) for each, level in levels)),
        {each: sorted({written.event_type for written, level in levels if level is each}) for each in by_level},
    )


def _shares(counts: Counter[str], levels: Iterator[tuple[str, Level]]) -> list[Share]:
    order, highest = list(Level), dict[str, Level]()
    for name, level in levels:
        highest[name] = max(highest.get(name, Level.INFO), level, key=order.index)
    found = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return [Share(name, number, highest[name]) for name, number in found]
