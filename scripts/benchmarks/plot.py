"""The plot: latency, deliveries and the server's CPU against the number of viewers, as SVG."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from scripts.benchmarks.rounds import Results

WIDTH, HEIGHT = 380, 300
TICKS = 5
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 40
_COLOURS = ("#0b6e4f", "#b23a48", "#3a6ea5", "#c77d0a", "#6a4c93", "#5b5b5b")

Series = dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """What one panel shows: a figure of a case. Both axes are logarithmic, or both straight."""

    title: str
    case: str
    figure: str
    is_log: bool = True


PANELS = (
    Panel("latency at 100 events/s, p50 ms", "latency", "p50_ms"),
    Panel("deliveries/s, single commits", "burst", "deliveries_per_s"),
    Panel("batched viewers, server % of a core", "growth", "core_percent", is_log=False),
)


def svg(results: Results) -> str:
    """Return the panels that have figures, side by side."""
    found = [(panel, series) for panel in PANELS if (series := medians(results, panel))]
    names = list(dict.fromkeys(name for _, series in found for name in series))
    colours = dict(zip(names, _COLOURS * len(names), strict=False))
    drawn = [
        f'<g transform="translate({place * WIDTH} 0)">{"".join(_panel(panel, series, colours))}</g>'
        for place, (panel, series) in enumerate(found)
    ]
    width, height = max(1, len(found)) * WIDTH, HEIGHT + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(drawn)}{''.join(_legend(colours))}</svg>\n"
    )


def medians(results: Results, panel: Panel) -> Series:
    """Return for each server its median over the rounds at each number of viewers."""
    values: dict[str, dict[int, list[float]]] = {}
    for sample in results.samples:
        if sample.case == panel.case and sample.figures[panel.figure] > 0:
            counts = values.setdefault(sample.server, {})
            counts.setdefault(sample.clients, []).append(sample.figures[panel.figure])
    return {
        name: {count: statistics.median(some) for count, some in sorted(counts.items())}
        for name, counts in values.items()
    }


def _panel(panel: Panel, series: Series, colours: dict[str, str]) -> Iterable[str]:
    counts = sorted({count for points in series.values() for count in points})
    values = [value for points in series.values() for value in points.values()]
    scale = _LogScale if panel.is_log else _Scale
    across, up = scale(counts, _LEFT, WIDTH - _RIGHT), scale(values, HEIGHT - _BOTTOM, _TOP)
    yield f'<text x="{_LEFT}" y="18" font-weight="600">{escape(panel.title)}</text>'
    for value in up.ticks():
        y = up.at(value)
        yield f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.10g}</text>'
    for count in counts:
        yield f'<text x="{across.at(count):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{count:,}</text>'
    yield f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">viewers</text>'
    for name, points in series.items():
        yield from _line([(across.at(count), up.at(value)) for count, value in points.items()], colours[name])


def _line(points: list[tuple[float, float]], colour: str) -> Iterable[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _legend(colours: dict[str, str]) -> Iterable[str]:
    x = _LEFT
    for name, colour in colours.items():
        yield f'<circle cx="{x}" cy="{HEIGHT + 10}" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 8}" y="{HEIGHT + 14}">{escape(name)}</text>'
        x += 30 + 7 * len(name)


class _Scale:
    """A straight scale of pixels from *start*, which is zero, to *stop*, a round number that no value exceeds."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        self._step = next(step for step in _round_numbers() if max(values) <= TICKS * step)
        self._start = start
        self._stop = stop

    def at(self, value: float) -> float:
        """Return the pixel of *value*."""
        return self._start + value / (TICKS * self._step) * (self._stop - self._start)

    def ticks(self) -> list[float]:
        """Return the values that get a line."""
        return [number * self._step for number in range(TICKS + 1)]


class _LogScale(_Scale):
    """A logarithmic scale over whole decades that hold *values*, all above zero."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        super().__init__(values, start, stop)
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)

    def at(self, value: float) -> float:
        """Return the pixel of *value*."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._stop - self._start)

    def ticks(self) -> list[float]:
        """Return the powers of ten from end to end."""
        return [10.0**exponent for exponent in range(self._low, self._high + 1)]


def _round_numbers() -> Iterator[float]:
    for exponent in itertools.count(-3):
        yield from (digit * 10.0**exponent for digit in (1, 2, 5))
