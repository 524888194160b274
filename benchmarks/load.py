"""A closed loop of concurrent callers over a fixed set of keys, and what became of it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measure import Operation

KEYS: Final = 1_000
"""How many keys the callers go round; an operation is given the number of one."""

PATIENCE: Final = 30.0
"""Seconds the last caller may take once the time is over, before it counts as unanswered."""

# Prime to KEYS, so that neighbours start at keys far apart.
_STRIDE: Final = 619
_KIND_LENGTH: Final = 70


@dataclass(frozen=True)
class Load:
    """What the callers of one round did.

    Attributes:
        done: Operations that succeeded.
        seconds: From the first operation's start to the last one's end.
        cpu: Seconds of processor time, user and system, of this process with all its threads.
        p50: The median latency in seconds; None where nothing succeeded.
        p99: Its 99th percentile.
        errors: How many callers met which error.
        mismatches: Values read that were not the one of their key.
    """

    done: int
    seconds: float
    cpu: float
    p50: float | None
    p99: float | None
    errors: Counter[str]
    mismatches: int

    @property
    def rate(self) -> float:
        """Successful operations per second."""
        return self.done / self.seconds


async def run_load(
    operation: Operation,
    callers: int,
    seconds: float,
    stored: Sequence[object] | None = None,
    *,
    over: Callable[[], bool] | None = None,
) -> Load:
    """Let each caller repeat the operation until the time is over, at least once.

    A caller that meets an error stops, so its error counts once.

    Args:
        operation: What is repeated, for one key after another.
        callers: How many do so at the same time.
        seconds: How long they go on once all have begun.
        stored: What the operation must return for each key; None where it returns nothing of interest.
        over: Whether they stop before that; asked by each caller after each operation.
    """
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    mismatches = 0
    clock = time.perf_counter
    stop_at = 0.0
    start = asyncio.Event()

    def set_stop() -> None:
        nonlocal stop_at
        stop_at = clock() + seconds

    async def call(number: int) -> None:
        nonlocal mismatches
        index = number * _STRIDE % KEYS
        await start.wait()
        while True:
            started = clock()
            try:
                got = await operation(index)
            except Exception as error:
                errors[kind_of(error)] += 1
                return
            ended = clock()
            latencies.append(ended - started)
            if stored is not None and got != stored[index]:
                mismatches += 1
            if ended >= stop_at or (over is not None and over()):
                return
            index = (index + 1) % KEYS

    tasks = [asyncio.create_task(call(number)) for number in range(callers)]
    await asyncio.sleep(0)
    # Nobody is to pay for what another contender left behind.
    gc.collect()
    cpu_before, started = time.process_time(), clock()
    stop_at = started + seconds
    start.set()
    # Runs once every caller has begun, so that those that are refused take no time from the others.
    asyncio.get_running_loop().call_soon(set_stop)
    _, unanswered = await asyncio.wait(tasks, timeout=seconds + PATIENCE)
    elapsed, cpu = clock() - started, time.process_time() - cpu_before
    if unanswered:
        errors[f"no answer in {PATIENCE:.0f} s"] += len(unanswered)
        for task in unanswered:
            task.cancel()
        await asyncio.wait(unanswered)
    latencies.sort()
    return Load(
        done=len(latencies),
        seconds=elapsed,
        cpu=cpu,
        p50=_percentile(latencies, 50),
        p99=_percentile(latencies, 99),
        errors=errors,
        mismatches=mismatches,
    )


def kind_of(error: Exception) -> str:
    """Return the error's class and the start of what it says."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")[:_KIND_LENGTH]


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    return ordered[(len(ordered) - 1) * percent // 100] if ordered else None
