"""Rounds in turn, and the ratios between contenders round by round."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

Operation: TypeAlias = Callable[[int], Awaitable[object]]
"""One operation; the number tells callers and repetitions apart."""


@dataclass(frozen=True)
class Contender:
    """Something to measure.

    Attributes:
        name: What the table calls it.
        operation: What is repeated.
    """

    name: str
    operation: Operation


@dataclass(frozen=True)
class Result:
    """What one contender did.

    Attributes:
        name: The contender's name.
        rates: Operations per second, one for each round.
    """

    name: str
    rates: list[float]

    def ratio_to(self, reference: Result) -> float:
        """Return the median of the ratios between the two, round by round."""
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.rates, reference.rates, strict=True)
        )


async def rate(operation: Operation, callers: int, seconds: float) -> float:
    """Return how many operations a second so many concurrent callers complete."""
    stop_at = time.perf_counter() + seconds
    done = 0

    async def call(number: int) -> None:
        nonlocal done
        while time.perf_counter() < stop_at:
            await operation(number)
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(callers)))
    return done / (time.perf_counter() - started)


async def compare(
    contenders: list[Contender], callers: int, rounds: int, seconds: float = 0.4
) -> list[Result]:
    """Measure the contenders in turn, round by round, after a warm-up; each round meets the same machine."""
    results = [Result(contender.name, []) for contender in contenders]
    for number in range(rounds + 1):
        for contender, result in zip(contenders, results, strict=True):
            measured = await rate(contender.operation, callers, seconds)
            if number:
                result.rates.append(measured)
    return results
