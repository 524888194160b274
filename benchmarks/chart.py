"""Rows as an SVG chart: the ratio to redis-py's throughput by the number of callers, both logarithmic."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from benchmarks.entrants import BARE, OURS, POOL
from benchmarks.rows import POOL_BARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.rows import Row

_WIDTH, _HEIGHT = 430, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 30, 30, 40
_LEGEND_LINE: Final = 18
_LEGEND_COLUMN: Final = 215

# Told apart also by those who do not see red and green: Paul Tol's "bright" and "muted" schemes.
_OUR_COLOUR: Final = "#cc3311"
_REFERENCE_COLOURS: Final = {BARE: "#000000", OURS: _OUR_COLOUR, POOL: "#777777"}
_COLOURS: Final = (
    "#332288",
    "#bbbbbb",
    "#999933",
    "#ee7733",
    "#228833",
    "#aa3377",
    "#66ccee",
    "#4477aa",
)

_HEAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    'font-family="sans-serif" font-size="12">'
)


def draw(rows: Sequence[Row]) -> str:
    """Return the chart as SVG text: a panel for each work and event loop, and a legend.

    A hollow point had errors, or values that were not those of their keys. Rows without a ratio are left out.
    """
    shown = [row for row in rows if row.to_pool]
    loops = list(dict.fromkeys(row.loop for row in shown))
    works = list(dict.fromkeys(row.work for row in shown))
    names = list(dict.fromkeys(row.entrant for row in shown))
    others = [name for name in names if name not in _REFERENCE_COLOURS]
    colours = _REFERENCE_COLOURS | {
        name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(others)
    }
    width = max(len(loops), 1) * _WIDTH
    columns = max(width // _LEGEND_COLUMN, 1)
    legend_top = len(works) * _HEIGHT
    height = legend_top + _LEGEND_LINE * (math.ceil((len(names) + 1) / columns) + 1)
    lines = [_HEAD.format(width=width, height=height), '<rect width="100%" height="100%" fill="white"/>']
    if shown:
        scale = _Scale(shown)
        for line, work in enumerate(works):
            for column, loop in enumerate(loops):
                panel = [row for row in shown if (row.work, row.loop) == (work, loop)]
                lines.append(f'<g transform="translate({column * _WIDTH},{line * _HEIGHT})">')
                lines += _panel(f"{work}, {loop}: throughput ÷ redis-py's", panel, scale, colours)
                lines.append("</g>")
    for number, name in enumerate([*names, "asked of sessionkit"]):
        x = _LEFT + number % columns * _LEGEND_COLUMN
        y = legend_top + _LEGEND_LINE * (number // columns + 1)
        lines += _legend(x, y, name, colours.get(name))
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Scale:
    """From figures to places in a panel, the same for all panels."""

    def __init__(self, rows: Iterable[Row]) -> None:
        ratios = [row.to_pool for row in rows if row.to_pool]
        self.callers = sorted({row.callers for row in rows})
        self.ratios = _ticks(min(ratios), max(ratios))
        self._low, self._high = math.log10(self.ratios[0]), math.log10(self.ratios[-1])
        self._first = math.log10(self.callers[0])
        self._last = max(math.log10(self.callers[-1]), self._first + 1)

    def x(self, callers: int) -> float:
        part = (math.log10(callers) - self._first) / (self._last - self._first)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, ratio: float) -> float:
        part = (math.log10(ratio) - self._low) / (self._high - self._low)
        return round(_HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM), 1)


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10 and so on, from below the lowest to above the highest."""
    steps = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]
    first = max((number for number, step in enumerate(steps) if step <= low), default=0)
    last = next((number for number, step in enumerate(steps) if step >= high), len(steps) - 1)
    return steps[first : max(last, first + 1) + 1]


def _panel(title: str, rows: Sequence[Row], scale: _Scale, colours: dict[str, str]) -> Iterator[str]:
    yield f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    for ratio in scale.ratios:
        y = scale.y(ratio)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{ratio:g}</text>'
    for callers in scale.callers:
        y = _HEIGHT - _BOTTOM + 18
        yield f'<text x="{scale.x(callers)}" y="{y}" text-anchor="middle">{callers:,}</text>'
    yield f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">concurrent callers</text>'
    for callers, bar in POOL_BARS.items():
        if callers in scale.callers and scale.ratios[0] <= bar <= scale.ratios[-1]:
            yield _bar_mark(scale.x(callers), scale.y(bar))
    # The references last, on top.
    ordered = sorted(rows, key=lambda row: (row.entrant in _REFERENCE_COLOURS, row.entrant, row.callers))
    for name, group in groupby(ordered, lambda row: row.entrant):
        yield from _line(list(group), scale, colours[name])


def _line(rows: Sequence[Row], scale: _Scale, colour: str) -> Iterator[str]:
    places = [(scale.x(row.callers), scale.y(row.to_pool)) for row in rows if row.to_pool]
    points = " ".join(f"{x},{y}" for x, y in places)
    thickness = 2.5 if rows[0].entrant == OURS else 1.5
    yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{thickness}"/>'
    for row, (x, y) in zip(rows, places, strict=True):
        fill = "white" if row.errors or row.mismatches else colour
        tip = escape(f"{row.entrant}, {row.callers:,} callers: {row.to_pool:.2f}")
        yield f'<circle cx="{x}" cy="{y}" r="3" fill="{fill}" stroke="{colour}"><title>{tip}</title></circle>'


def _legend(x: float, y: float, name: str, colour: str | None) -> Iterator[str]:
    if colour is None:
        yield _bar_mark(x + 10, y - 4)
    else:
        yield f'<line x1="{x}" x2="{x + 20}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2.5"/>'
    yield f'<text x="{x + 26}" y="{y}">{escape(name)}</text>'


def _bar_mark(x: float, y: float) -> str:
    return f'<path d="M{x - 9},{y} h18" stroke="{_OUR_COLOUR}" stroke-width="2" stroke-dasharray="4 2"/>'
