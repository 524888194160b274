"""``python -m benchmarks resilience``: what the resilient store costs when all is well, and when not."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from benchmarks.load import KEYS, run_load
from sessionkit.registry import open_driver, open_journal
from sessionkit.resilience import CircuitBreaker, Journal, ResilientStore, State
from sessionkit.store import Put
from sessionkit.testing.chaos import ChaosProxy
from sessionkit.testing.servers import RedisServer, find_servers

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measure import Operation
    from sessionkit.store import SessionStore

VALUE: Final = b"v" * 275
TTL: Final = 3_600.0
_TIMEOUT: Final = 1.0


@dataclass(frozen=True)
class Figure:
    """One thing that was measured.

    Attributes:
        what: In words.
        value: The figure.
        unit: Its unit.
        bar: What it is held against, such as ``>= 0.85``; empty where nothing is asked.
        met: Whether that was reached; None where nothing is asked.
    """

    what: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        callers: Numbers of concurrent callers of the healthy comparison.
        rounds: Its rounds.
        seconds: How long one measurement goes on.
        writes: How many writes are journaled before the replay.
        keys: On how many keys.
    """

    callers: tuple[int, ...] = (1, 16, 128, 1_000)
    rounds: int = 7
    seconds: float = 0.3
    writes: int = 100_000
    keys: int = 10_000


QUICK: Final = Plan(callers=(1, 128), rounds=1, seconds=0.02, writes=2_000, keys=200)


def measure_resilience(plan: Plan, save: Path | None) -> None:
    """Measure all, print it, and save it as JSON if told to."""
    # Its outages are on purpose, and each would print a line.
    logging.getLogger("sessionkit").setLevel(logging.ERROR)
    figures = asyncio.run(_measure(plan))
    table = Table("what", "figure", "asked", "")
    for figure in figures:
        verdict = "" if figure.met is None else "met" if figure.met else "MISSED"
        table.add_row(figure.what, f"{figure.value:,.3g} {figure.unit}", figure.bar, verdict)
    Console(width=120).print(table)
    if save is not None:
        save.write_text(json.dumps([asdict(figure) for figure in figures], indent=1), encoding="utf-8")


async def _measure(plan: Plan) -> list[Figure]:
    binaries = {binary.name: binary for binary in find_servers()}
    binary = binaries.get("redis-system") or next(iter(binaries.values()))
    figures: list[Figure] = []
    for measure in (_healthy, _open_circuit, _black_hole, _replay):
        print(measure.__name__.strip("_").replace("_", " "), file=sys.stderr, flush=True)
        # A server that forgot what it had acknowledged would make a conflict of every write.
        config = {"appendonly": "yes", "appendfsync": "always"} if measure is _open_circuit else None
        with RedisServer(binary, config=config) as server:
            figures += await measure(server, plan)
    return figures


async def _healthy(server: RedisServer, plan: Plan) -> list[Figure]:
    """The wrapper beside its driver, in turn, round by round."""
    figures: list[Figure] = []
    for kind, url in (("redis", server.url()), ("memory", "memory://")):
        async with open_driver(url) as driver:
            wrapper = ResilientStore(driver)
            await driver.put_many([_put(number) for number in range(KEYS)])
            for callers in plan.callers:
                for work in ("get", "put"):
                    ratios = []
                    for number in range(plan.rounds + 1):
                        # Who comes first changes, as the second finds warmer caches.
                        order = (driver, wrapper) if number % 2 else (wrapper, driver)
                        rates = {
                            id(store): (await run_load(_work(store, work), callers, plan.seconds)).rate
                            for store in order
                        }
                        if number:
                            ratios.append(rates[id(wrapper)] / rates[id(driver)])
                    asked = kind == "redis" and callers == 128
                    ratio = statistics.median(ratios)
                    figures.append(
                        Figure(
                            f"healthy {kind} {work}, {callers:,} callers: wrapper / driver",
                            ratio,
                            "x",
                            ">= 0.85" if asked else "",
                            ratio >= 0.85 if asked else None,
                        )
                    )
            await wrapper.aclose()
    return figures


async def _open_circuit(server: RedisServer, plan: Plan) -> list[Figure]:
    """How fast answers are while the server is dead and that is known."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        journals = {"memory": Journal(), "file": open_journal(f"sqlite:///{folder}/outage.db")}
        for kind, journal in journals.items():
            store = ResilientStore(open_driver(server.url(), timeout=_TIMEOUT), journal=journal)
            await store.put_many([_put(number) for number in range(KEYS)])
            server.kill()
            await store.put("notices", VALUE)
            assert store.state is not State.HEALTHY

            async def lock(number: int, store: ResilientStore = store) -> object:
                async with store.lock(_key(number)):
                    return None

            for work, operation in (
                ("get", _work(store, "get")),
                ("put", _work(store, "put")),
                ("lock", lock),
            ):
                load = await run_load(operation, 16, plan.seconds)
                asked = kind == "memory" and work != "lock"
                p99 = _ms(load.p99)
                name = f"circuit open, journal in {kind}, {work}, 16 callers"
                figures.append(Figure(f"{name}: p50", _ms(load.p50), "ms"))
                figures.append(
                    Figure(f"{name}: p99", p99, "ms", "<= 1" if asked else "", p99 <= 1.0 if asked else None)
                )
            server.restart()
            await _until_healthy(store)
            await store.aclose()
    return figures


async def _black_hole(server: RedisServer, plan: Plan) -> list[Figure]:
    """How long callers wait for a server that has stopped answering, and how long once that is known."""
    async with ChaosProxy("127.0.0.1", server.port, seed=1) as proxy:
        store = ResilientStore(open_driver(proxy.url(server.url()), timeout=_TIMEOUT))
        await store.put_many([_put(number) for number in range(KEYS)])
        proxy.black_hole()
        started = time.perf_counter()
        await asyncio.gather(*(store.put(_key(number), VALUE, expires_in=TTL) for number in range(128)))
        first = time.perf_counter() - started
        after = await run_load(_work(store, "put"), 128, plan.seconds)
        proxy.heal()
        await _until_healthy(store)
        await store.aclose()
    deadline = 10.0
    return [
        Figure(
            f"black hole, 128 callers, driver's timeout {_TIMEOUT} s: all are answered after",
            first,
            "s",
            f"<= {deadline:g}",
            first <= deadline,
        ),
        Figure("black hole, from then on: p99", _ms(after.p99), "ms"),
    ]


async def _replay(server: RedisServer, plan: Plan) -> list[Figure]:
    """Live traffic while a long journal is written to the server."""
    store = ResilientStore(
        open_driver(server.url(), timeout=_TIMEOUT),
        breaker=CircuitBreaker(first_pause=0.05, longest_pause=0.1),
    )
    await store.put_many([_put(number) for number in range(KEYS)])

    async def live(number: int) -> object:
        if number % 2:
            return await store.get(_key(number))
        return await store.put(_key(number), VALUE, expires_in=TTL)

    healthy = await run_load(live, 16, max(plan.seconds, 0.2))
    server.kill()
    for number in range(plan.writes):
        await store.put(f"journaled:{number % plan.keys}", VALUE, expires_in=TTL)
    depth = store.journal.depth
    replaying = asyncio.Event()
    store.subscribe(lambda _: replaying.set() if store.state is State.REPLAYING else None)
    server.restart()
    await replaying.wait()
    started = time.perf_counter()
    latencies: list[float] = []

    async def go_on(number: int) -> None:
        while store.state is State.REPLAYING:
            asked = time.perf_counter()
            await live(number % KEYS)
            latencies.append(time.perf_counter() - asked)
            number += 1

    await asyncio.gather(*(go_on(number * 37) for number in range(16)))
    took = time.perf_counter() - started
    latencies.sort()
    counts = store.counts
    await store.aclose()
    return [
        Figure(f"replay of {plan.writes:,} writes on {depth:,} keys under 16 live callers", took, "s"),
        Figure("replay: keys written", counts.replayed, "", f"== {depth}", counts.replayed >= depth),
        Figure("replay: conflicts", counts.conflicts, "", "== 0", counts.conflicts == 0),
        Figure("live p50 before", _ms(healthy.p50), "ms"),
        Figure("live p99 before", _ms(healthy.p99), "ms"),
        Figure("live p50 during the replay", latencies[len(latencies) // 2] * 1000, "ms"),
        Figure("live p99 during the replay", latencies[len(latencies) * 99 // 100] * 1000, "ms"),
        Figure("live operations during the replay", len(latencies) / took, "op/s"),
        Figure("live operations before", healthy.rate, "op/s"),
    ]


def _work(store: SessionStore, work: str) -> Operation:
    async def get(number: int) -> object:
        return await store.get(_key(number))

    async def put(number: int) -> object:
        return await store.put(_key(number), VALUE, expires_in=TTL)

    return get if work == "get" else put


async def _until_healthy(store: ResilientStore) -> None:
    healthy = asyncio.Event()
    unsubscribe = store.subscribe(lambda _: healthy.set() if store.state is State.HEALTHY else None)
    if store.state is not State.HEALTHY:
        await healthy.wait()
    unsubscribe()


def _key(number: int) -> str:
    return f"telegram_bot:session:{number}"


def _put(number: int) -> Put:
    return Put(_key(number), VALUE, TTL)


def _ms(seconds: float | None) -> float:
    return float("nan") if seconds is None else seconds * 1000
