"""``python -m benchmarks redis``: the Redis driver beside a ceiling, redis-py and its peers."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from benchmarks.chart import draw
from benchmarks.entrants import REFERENCES
from benchmarks.peers import PEERS
from benchmarks.race import Plan, race
from benchmarks.report import Report
from benchmarks.rows import Row, make_rows
from sessionkit.testing.servers import RedisServer, ServerBinary, find_servers, missing_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ENTRANTS: Final = (*REFERENCES, *PEERS)
LOOPS: Final = ("asyncio", "uvloop")


def installed_loops() -> tuple[str, ...]:
    """Return those of ``LOOPS`` that are here."""
    return tuple(name for name in LOOPS if importlib.util.find_spec(name) is not None)


def find_server(name: str) -> ServerBinary:
    """Return the server of that name.

    Raises:
        SystemExit: It is not installed here; says what to install.
    """
    for binary in find_servers():
        if binary.name == name:
            return binary
    reason = next(missing.reason for missing in missing_servers() if missing.name == name)
    raise SystemExit(f"no server {name}: {reason}")


def compare_redis(
    plan: Plan,
    *,
    server: str,
    loops: Sequence[str],
    contenders: Sequence[str] | None = None,
    json: Path | None = None,
    svg: Path | None = None,
) -> None:
    """Measure, print the tables, and save what is asked for.

    Args:
        plan: What is measured.
        server: The name of a server, see ``find_server``.
        loops: Which of ``LOOPS``.
        contenders: The names of those that take part; None for all.
        json: Where to save all figures.
        svg: Where to draw them.
    """
    chosen = [entrant for entrant in ENTRANTS if contenders is None or entrant.name in contenders]
    missing = {entrant.name: reason for entrant in chosen if (reason := entrant.missing())}
    present = [entrant for entrant in chosen if entrant.name not in missing]
    versions = {entrant.distribution: entrant.version() for entrant in present}
    binary = find_server(server)
    print(f"seed {plan.seed}", file=sys.stderr)
    rows: list[Row] = []
    for loop in loops:
        if loop != "asyncio":
            versions[loop] = version(loop)
        with RedisServer(binary) as running, asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            tell = _teller(loop)
            rows += make_rows(loop, runner.run(race(present, running.url(), plan, tell)))
    report = Report(binary, plan, loops, versions, missing, rows)
    report.print()
    if json is not None:
        report.write_json(json)
    if svg is not None:
        svg.write_text(draw(rows), encoding="utf-8")


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop of that name, one of ``LOOPS``."""
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def _teller(loop: str) -> Callable[[str], None]:
    return lambda text: print(f"{loop}: {text}", file=sys.stderr, flush=True)
