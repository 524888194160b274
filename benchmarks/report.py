"""A run of ``python -m benchmarks redis`` as tables and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.rows import hold_to_bars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.race import Plan
    from benchmarks.rows import Bar, Row
    from sessionkit.testing.servers import ServerBinary

WIDTH: Final = 130
"""How many columns the tables may take."""


@dataclass(frozen=True)
class Report:
    """What was run, and what came of it.

    Attributes:
        server: What all were measured against.
        plan: What was measured.
        loops: The event loops.
        versions: The version of each package that took part.
        missing: The entrants that did not, each with the reason.
        rows: The figures.
    """

    server: ServerBinary
    plan: Plan
    loops: Sequence[str]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    rows: Sequence[Row]

    def print(self) -> None:
        """Print the tables, the bars and who is missing."""
        console = Console(width=WIDTH, highlight=False)
        for (loop, work), rows in groupby(self.rows, lambda row: (row.loop, row.work)):
            console.print(_figures(f"{work}, {loop}, {self.server.name} {self.server.version}", list(rows)))
        if bars := hold_to_bars(self.rows):
            console.print(bars_table(bars))
        for name, reason in self.missing.items():
            console.print(f"left out: {name}: {reason}")
        console.print(f"seed {self.plan.seed}")

    def write_json(self, path: Path) -> None:
        """Save everything."""
        made = {
            **surroundings(self.server),
            "arguments": {**asdict(self.plan), "loops": list(self.loops)},
            "seed": self.plan.seed,
            "versions": dict(self.versions),
            "missing": dict(self.missing),
            "bars": [asdict(bar) for bar in hold_to_bars(self.rows)],
        }
        # One line for each row: a later run is then compared line by line.
        rows = ",\n  ".join(json.dumps(asdict(row)) for row in self.rows)
        text = json.dumps(made, indent=1).removesuffix("\n}")
        path.write_text(f'{text},\n "rows": [\n  {rows}\n ]\n}}\n', encoding="utf-8")


def _figures(title: str, rows: Sequence[Row]) -> Table:
    table = Table("callers", "contender", title=title, title_justify="left")
    for name in ("op/s", "to redis-py", "to bare", "p50 ms", "p99 ms", "CPU µs/op"):
        table.add_column(name, justify="right")
    table.add_column("errors")
    for callers, group in groupby(rows, lambda row: row.callers):
        for row in group:
            table.add_row(
                f"{callers:,}",
                row.entrant,
                f"{row.rate:,.0f}",
                number(row.to_pool, 2),
                number(row.to_bare, 2),
                number(row.p50_ms, 2),
                number(row.p99_ms, 2),
                number(row.cpu_us, 1),
                _errors(row),
            )
        table.add_section()
    return table


def surroundings(server: ServerBinary) -> dict[str, Any]:
    """Return where a run took place, for its JSON."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "server": {"name": server.name, "version": server.version},
    }


def bars_table(bars: Sequence[Bar]) -> Table:
    """Return the table of what was asked and what was seen."""
    table = Table("loop", "work", "callers", "asked", "seen", "", title="sessionkit", title_justify="left")
    for bar in bars:
        met = "met" if bar.met else "MISSED"
        table.add_row(bar.loop, bar.work, f"{bar.callers:,}", bar.asked, bar.seen, met)
    return table


def number(value: float | None, digits: int) -> str:
    """Return a figure as it stands in a table."""
    return "-" if value is None else f"{value:,.{digits}f}"


def _errors(row: Row) -> str:
    classes: Counter[str] = Counter()
    for kind, count in row.errors.items():
        classes[kind.partition(":")[0]] += count
    if row.mismatches:
        classes["wrong value"] = row.mismatches
    return "\n".join(f"{count:,} {name}" for name, count in classes.items())
