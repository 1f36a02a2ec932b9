"""The drawing of a histogram.

Its bars are in units of an SVG that is stretched to the page's width. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from outfeed.log.store.survey import Bar

BAR, GAP, HEIGHT = 10, 2, 100
MIN_HEIGHT = 2  # of a bar with a single match beside a high one


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """A bar with its place in the drawing.

    The address is that of the log for its time.
    """

    bar: Bar
    x: int
    height: int
    failed_height: int
    address: str

    @property
    def y(self) -> int:
        """The top of the bar."""
        return HEIGHT - self.height


@dataclass(frozen=True, slots=True)
class DrawnChart:
    """The bars of a period. *top* is the greatest number in one of them."""

    bars: list[DrawnBar]
    top: int
    start: datetime
    end: datetime

    @property
    def width(self) -> int:
        """The width of the drawing."""
        return len(self.bars) * BAR - GAP

    @property
    def form(self) -> str:
        """The form of its times: `short` without seconds, or `long`."""
        return "short" if (self.bars[0].bar.end - self.bars[0].bar.start).total_seconds() >= 60 else "long"

    @property
    def step(self) -> str:
        """The width of a bar in words."""
        secs = round((self.bars[0].bar.end - self.bars[0].bar.start).total_seconds())
        units = ((86_400, "day", "d"), (3600, "hour", "h"), (60, "minute", "min"), (1, "second", "s"))
        size, name, short = next(unit for unit in units if secs % unit[0] == 0)
        return name if secs == size else f"{secs // size} {short}"


def chart_of(bars: list[Bar], address: Callable[[datetime, datetime], str]) -> DrawnChart | None:
    """Return the chart of *bars*, or None without a match."""
    top = max((bar.count for bar in bars), default=0)
    if not top:
        return None
    drawn = [
        DrawnBar(bar, place * BAR, _height(bar.count, top), _height(bar.failed, top), address(bar.start, bar.end))
        for place, bar in enumerate(bars)
    ]
    return DrawnChart(drawn, top, bars[0].start, bars[-1].end)


def _height(count: int, top: int) -> int:
    return max(MIN_HEIGHT, round(count / top * HEIGHT)) if count else 0
