"""All entrants over the same ground in turn: for each number of callers, in each round, in shuffled order."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.load import KEYS, Load, kind_of, run_load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.entrants import Entrant

WORKS: Final = ("put", "get")

_WARM_UP_CALLERS: Final = 1_000
_FILLERS: Final = 16


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        works: Which of ``WORKS``.
        callers: Numbers of concurrent callers.
        rounds: How often each entrant has its turn at each number.
        seconds: How long one measurement goes on.
        seed: Decides the order of turns.
    """

    works: tuple[str, ...]
    callers: tuple[int, ...]
    rounds: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class Result:
    """What one entrant did with one work and number of callers.

    Attributes:
        work: One of ``WORKS``.
        callers: How many there were.
        entrant: The entrant's name.
        loads: One for each round.
    """

    work: str
    callers: int
    entrant: str
    loads: list[Load]


async def race(
    entrants: Sequence[Entrant], url: str, plan: Plan, tell: Callable[[str], None]
) -> list[Result]:
    """Measure them all; only the entrant whose turn it is has connections open.

    Args:
        entrants: Who takes part; each must be installed.
        url: The server.
        plan: What is measured.
        tell: Told of progress.
    """
    order = list(entrants)
    results: dict[tuple[str, int, str], Result] = {}
    shuffle = random.Random(plan.seed).shuffle
    for entrant in entrants:
        await _fill(entrant, url)
    # What is loaded by now lives to the end, and no collection need walk through all peers' modules.
    gc.freeze()
    for callers in plan.callers:
        for number in range(1, plan.rounds + 1):
            tell(f"{callers:,} callers, round {number} of {plan.rounds}")
            shuffle(order)
            for entrant in order:
                for work, load in (await _turn(entrant, url, callers, plan)).items():
                    key = (work, callers, entrant.name)
                    results.setdefault(key, Result(*key, [])).loads.append(load)
    gc.unfreeze()
    return [
        results[key]
        for work in plan.works
        for callers in plan.callers
        for entrant in entrants
        if (key := (work, callers, entrant.name)) in results
    ]


async def _fill(entrant: Entrant, url: str) -> None:
    """Put every key once."""
    numbers = iter(range(KEYS))

    async def fill() -> None:
        for number in numbers:
            await client.put(number)

    # What goes wrong here will do so again where it is measured.
    with suppress(Exception):
        async with entrant.open_client(url) as client:
            await asyncio.gather(*(fill() for _ in range(_FILLERS)))


async def _turn(entrant: Entrant, url: str, callers: int, plan: Plan) -> dict[str, Load]:
    loads: dict[str, Load] = {}
    try:
        async with entrant.open_client(url) as client:
            # Opens the connections that so many callers need.
            await run_load(client.put, min(callers, _WARM_UP_CALLERS), 0)
            for work in plan.works:
                if work == "put":
                    loads[work] = await run_load(client.put, callers, plan.seconds)
                elif client.get is not None:
                    loads[work] = await run_load(client.get, callers, plan.seconds, client.stored)
    except Exception as error:
        for work in plan.works:
            loads.setdefault(work, Load(0, 1.0, 0.0, None, None, Counter({kind_of(error): callers}), 0))
    return loads
