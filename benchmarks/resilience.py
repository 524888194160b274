"""``python -m benchmarks resilience``: what ``ResilientStore`` costs, and what it gives in an outage."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.against_redis import find_server, loop_factory
from benchmarks.healthy import hold_costs_to_bars, measure_cost
from benchmarks.outage import (
    hold_black_hole_to_bar,
    hold_open_circuit_to_bars,
    time_black_hole,
    time_open_circuit,
)
from benchmarks.replay import hold_replay_to_bars, time_replay
from benchmarks.report import WIDTH, bars_table, number, surroundings
from benchmarks.stack import compare_stacks, hold_stack_to_bar
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from benchmarks.healthy import Cost
    from benchmarks.measure import Result
    from benchmarks.outage import BlackHole, Timed
    from benchmarks.race import Plan
    from benchmarks.replay import Replay
    from benchmarks.rows import Bar
    from sessionkit.testing.servers import ServerBinary

PARTS: Final = ("healthy", "circuit-open", "black-hole", "replay", "stack")

_OPEN_CALLERS: Final = (1, 16)


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        plan: Of the healthy store; its rounds and seconds hold for all parts.
        timeout: Seconds that the driver waits for an answer from a black hole.
        writes: How many writes a replay is of.
        keys: On how many keys.
    """

    plan: Plan
    timeout: float
    writes: int
    keys: int


@dataclass
class Figures:
    """What was measured; empty or None: that part was left out."""

    costs: list[Cost] = field(default_factory=list)
    circuit_open: list[Timed] = field(default_factory=list)
    black_hole: BlackHole | None = None
    replay: Replay | None = None
    stack: list[Result] = field(default_factory=list)

    def bars(self, loop: str) -> list[Bar]:
        """Return how they stand to what is asked."""
        bars = hold_costs_to_bars(loop, self.costs) + hold_open_circuit_to_bars(loop, self.circuit_open)
        if self.black_hole is not None:
            bars.append(hold_black_hole_to_bar(loop, self.black_hole))
        if self.replay is not None:
            bars += hold_replay_to_bars(loop, self.replay)
        if self.stack:
            bars.append(hold_stack_to_bar(loop, self.stack))
        return bars


def measure_resilience(
    scale: Scale, *, server: str, loop: str, parts: Collection[str], save_to: Path | None
) -> None:
    """Measure, print the tables, and save what is asked for.

    Args:
        scale: How much is measured.
        server: The name of a server, see ``find_server``.
        loop: The event loop, one of ``LOOPS``.
        parts: Which of ``PARTS``.
        save_to: Where to save all figures.
    """
    # It says at each outage what is on purpose here.
    logging.getLogger("sessionkit").setLevel(logging.CRITICAL)
    binary = find_server(server)
    _tell(f"seed {scale.plan.seed}")
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        figures = runner.run(_measure(binary, scale, parts))
    bars = figures.bars(loop)
    console = Console(width=WIDTH, highlight=False)
    for table in _tables(figures):
        console.print(table)
    console.print(bars_table(bars))
    if save_to is not None:
        made = {
            **surroundings(binary),
            "loop": loop,
            "scale": asdict(scale),
            "bars": [asdict(bar) for bar in bars],
            **asdict(figures),
        }
        save_to.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


async def _measure(binary: ServerBinary, scale: Scale, parts: Collection[str]) -> Figures:
    plan, figures = scale.plan, Figures()
    if "healthy" in parts:
        with RedisServer(binary) as server:
            for url in (server.url(), "memory://"):
                figures.costs += await measure_cost(url, plan, _tell)
    if "circuit-open" in parts:
        _tell("circuit open")
        figures.circuit_open = await time_open_circuit(binary, _OPEN_CALLERS, plan.seconds * plan.rounds)
    if "black-hole" in parts:
        _tell("black hole")
        figures.black_hole = await time_black_hole(binary, scale.timeout, plan.seconds * plan.rounds)
    if "replay" in parts:
        _tell(f"replay of {scale.writes:,} writes")
        figures.replay = await time_replay(binary, scale.writes, scale.keys, plan.seconds * plan.rounds)
    if "stack" in parts:
        _tell("stack")
        with RedisServer(binary) as server:
            figures.stack = await compare_stacks(server.url(), plan.rounds, plan.seconds)
    return figures


def _tables(figures: Figures) -> list[Table]:
    tables = [_costs(figures.costs)] if figures.costs else []
    timed = list(figures.circuit_open)
    if figures.black_hole is not None:
        timed += figures.black_hole.then
    if figures.replay is not None:
        timed += [figures.replay.before, figures.replay.during]
    if timed:
        tables.append(_latencies(timed))
    if figures.black_hole is not None:
        tables.append(_facts("black hole", figures.black_hole, leave_out={"then"}))
    if figures.replay is not None:
        tables.append(_facts("replay", figures.replay, leave_out={"before", "during"}))
    if figures.stack:
        tables.append(_stack(figures.stack))
    return tables


def _costs(costs: list[Cost]) -> Table:
    table = Table("store", "work", title="resilient store beside its driver", title_justify="left")
    names = ("callers", "driver op/s", "op/s", "ratio", "CPU ratio", "driver CPU µs/op", "CPU µs/op", "wrong")
    for name in names:
        table.add_column(name, justify="right")
    for cost in costs:
        table.add_row(
            cost.store,
            cost.work,
            f"{cost.callers:,}",
            f"{cost.driver_rate:,.0f}",
            f"{cost.rate:,.0f}",
            number(cost.ratio, 2),
            number(cost.cpu_ratio, 2),
            number(cost.driver_cpu_us, 1),
            number(cost.cpu_us, 1),
            f"{cost.wrong:,}",
        )
    return table


def _latencies(timed: list[Timed]) -> Table:
    table = Table("situation", "work", title="latencies", title_justify="left")
    for name in ("callers", "operations", "p50 ms", "p99 ms", "wrong"):
        table.add_column(name, justify="right")
    for each in timed:
        table.add_row(
            each.situation,
            each.work,
            f"{each.callers:,}",
            f"{each.done:,}",
            number(each.p50_ms, 3),
            number(each.p99_ms, 3),
            f"{each.wrong:,}",
        )
    return table


def _facts(title: str, seen: BlackHole | Replay, leave_out: Collection[str]) -> Table:
    facts: dict[str, Any] = {name: value for name, value in vars(seen).items() if name not in leave_out}
    table = Table(*facts, title=title, title_justify="left")
    table.add_row(*(number(value, 2 if isinstance(value, float) else 0) for value in facts.values()))
    return table


def _stack(results: list[Result]) -> Table:
    table = Table("contender", "op/s", "ratio", title="session saved and loaded", title_justify="left")
    for result in results:
        rate = f"{statistics.median(result.rates):,.0f}"
        table.add_row(result.name, rate, f"{result.ratio_to(results[0]):.2f}")
    return table


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
