"""Results as rows of figures, with their ratios and the bars."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.entrants import BARE, OURS, POOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.load import Load
    from benchmarks.race import Result

POOL_BARS: Final = {1: 1.0, 16: 4.0, 128: 10.0, 1_000: 12.0}
"""How many times the throughput of redis-py's pool is asked of sessionkit, by the number of callers."""

BARE_BAR: Final = 0.7
"""The same of the bare multiplexer, for those numbers of callers."""

NO_ERROR_CALLERS: Final = 10_000
"""How many concurrent callers must meet no error."""


@dataclass(frozen=True)
class Row:
    """One entrant's figures for one work and number of callers; each is the median over the rounds.

    Attributes:
        loop: The event loop.
        work: ``"put"`` or ``"get"``.
        callers: How many there were.
        entrant: Its name.
        rate: Successful operations per second.
        to_pool: The ratio of that to redis-py's pool, taken round by round; None without one.
        to_bare: The same to the bare multiplexer.
        p50_ms: The median latency.
        p99_ms: Its 99th percentile.
        cpu_us: Microseconds of processor time of the client's process per successful operation.
        errors: How many callers met which error, in all rounds together.
        mismatches: Values read that were not those of their keys, likewise.
        rates: The rate of each round.
    """

    loop: str
    work: str
    callers: int
    entrant: str
    rate: float
    to_pool: float | None
    to_bare: float | None
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: float | None
    errors: dict[str, int]
    mismatches: int
    rates: list[int]


@dataclass(frozen=True)
class Bar:
    """What is asked of sessionkit, and what was seen.

    Attributes:
        loop: The event loop.
        work: ``"put"`` or ``"get"``.
        callers: How many there were.
        asked: In words.
        seen: What was measured.
        met: Whether that is enough.
    """

    loop: str
    work: str
    callers: int
    asked: str
    seen: str
    met: bool


def make_rows(loop: str, results: Iterable[Result]) -> list[Row]:
    """Return the rows of one event loop's results."""
    by_key = {(result.work, result.callers, result.entrant): result for result in results}

    def ratio(result: Result, reference: str) -> float | None:
        other = by_key.get((result.work, result.callers, reference))
        return None if other is None else ratio_of(result, other)

    def row(result: Result) -> Row:
        loads = result.loads
        errors = sum((load.errors for load in loads), Counter[str]())
        return Row(
            loop=loop,
            work=result.work,
            callers=result.callers,
            entrant=result.entrant,
            rate=round(statistics.median(load.rate for load in loads), 1),
            to_pool=ratio(result, POOL),
            to_bare=ratio(result, BARE),
            p50_ms=_median_of(loads, lambda load: load.p50 and load.p50 * 1e3),
            p99_ms=_median_of(loads, lambda load: load.p99 and load.p99 * 1e3),
            cpu_us=cpu_us_of(result),
            errors=dict(errors),
            mismatches=sum(load.mismatches for load in loads),
            rates=[round(load.rate) for load in loads],
        )

    return [row(result) for result in by_key.values()]


def ratio_of(result: Result, reference: Result) -> float | None:
    """Return the median of the ratios between the rates of two entrants, round by round."""
    return _median(
        mine.rate / theirs.rate
        for mine, theirs in zip(result.loads, reference.loads, strict=True)
        if theirs.done
    )


def cpu_us_of(result: Result) -> float | None:
    """Return the microseconds of processor time per successful operation, as the median over the rounds."""
    return _median_of(result.loads, _cpu_us)


def cpu_ratio_of(result: Result, reference: Result) -> float | None:
    """Return the median of the ratios between the operations of two for the same processor time."""
    pairs = (
        (_cpu_us(mine), _cpu_us(theirs)) for mine, theirs in zip(result.loads, reference.loads, strict=True)
    )
    return _median(theirs / mine for mine, theirs in pairs if mine and theirs)


def hold_to_bars(rows: Sequence[Row]) -> list[Bar]:
    """Return how sessionkit's rows stand to what is asked of them."""
    bars: list[Bar] = []
    for row in rows:
        if row.entrant != OURS:
            continue
        asked = POOL_BARS.get(row.callers)
        if asked is not None:
            bars += _ratio_bar(row, row.to_pool, asked, POOL)
            bars += _ratio_bar(row, row.to_bare, BARE_BAR, BARE)
        wrong = sum(row.errors.values()) + row.mismatches
        if row.callers >= NO_ERROR_CALLERS or wrong:
            bars.append(Bar(row.loop, row.work, row.callers, "no error", f"{wrong:,}", not wrong))
    return bars


def _ratio_bar(row: Row, ratio: float | None, asked: float, reference: str) -> list[Bar]:
    if ratio is None:
        return []
    words = f"at least {asked:g} times {reference}"
    return [Bar(row.loop, row.work, row.callers, words, f"{ratio:.2f}", ratio >= asked)]


def _cpu_us(load: Load) -> float | None:
    return load.cpu / load.done * 1e6 if load.done else None


def _median_of(loads: Iterable[Load], figure: Callable[[Load], float | None]) -> float | None:
    return _median(value for value in map(figure, loads) if value is not None)


def _median(values: Iterable[float]) -> float | None:
    values = list(values)
    return round(statistics.median(values), 3) if values else None
