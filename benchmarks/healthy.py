"""What a resilient store costs while all is well: ``open_store`` beside ``open_driver``, of the same URL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.entrants import TTL, VALUES, Entrant, keys_of, store_client
from benchmarks.race import race
from benchmarks.rows import Bar, cpu_ratio_of, cpu_us_of, ratio_of
from sessionkit import open_driver, open_store
from sessionkit.store import Put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from benchmarks.entrants import Client, OpenClient
    from benchmarks.race import Plan, Result
    from sessionkit.store import SessionStore

RATIO_BAR: Final = 0.85
"""How much of its driver's throughput a resilient store must have on Redis, with ``BAR_CALLERS``."""

BAR_CALLERS: Final = 128

_DRIVER: Final = "driver"
_RESILIENT: Final = "resilient"


@dataclass(frozen=True)
class Cost:
    """A resilient store beside its driver; each figure is the median over the rounds.

    Attributes:
        store: The scheme of the URL.
        work: ``"put"`` or ``"get"``.
        callers: How many there were.
        driver_rate: The driver's successful operations per second.
        rate: The resilient store's.
        ratio: The ratio of the two, taken round by round; None where the driver did nothing.
        cpu_ratio: The same for equal processor time of the client, which other processes disturb less.
        driver_cpu_us: Microseconds of the client's processor time per operation of the driver.
        cpu_us: The same of the resilient store.
        wrong: Callers of either that met an error, and values that were not those of their keys.
        driver_rates: The driver's rate in each round.
        rates: The resilient store's.
    """

    store: str
    work: str
    callers: int
    driver_rate: float
    rate: float
    ratio: float | None
    cpu_ratio: float | None
    driver_cpu_us: float | None
    cpu_us: float | None
    wrong: int
    driver_rates: list[int]
    rates: list[int]


async def measure_cost(url: str, plan: Plan, tell: Callable[[str], None]) -> list[Cost]:
    """Let the two take turns.

    Args:
        url: The store.
        plan: What is measured.
        tell: Told of progress.
    """
    entrants = [
        Entrant(_DRIVER, "sessionkit", "sessionkit", _client_of(open_driver)),
        Entrant(_RESILIENT, "sessionkit", "sessionkit", _client_of(open_store)),
    ]
    results = {
        (result.work, result.callers, result.entrant): result
        for result in await race(entrants, url, plan, tell)
    }
    scheme = url.partition(":")[0]
    return [
        _cost(scheme, results[work, callers, _DRIVER], results[work, callers, _RESILIENT])
        for work in plan.works
        for callers in plan.callers
    ]


def hold_costs_to_bars(loop: str, costs: Sequence[Cost]) -> list[Bar]:
    """Return how the costs stand to what is asked."""
    bars: list[Bar] = []
    for cost in costs:
        work = f"{cost.work}, {cost.store}"
        if cost.store == "redis" and cost.callers == BAR_CALLERS and cost.ratio is not None:
            asked, met = f"at least {RATIO_BAR:g} times the driver", cost.ratio >= RATIO_BAR
            bars.append(Bar(loop, work, cost.callers, asked, f"{cost.ratio:.2f}", met))
        if cost.wrong:
            bars.append(Bar(loop, work, cost.callers, "no error", f"{cost.wrong:,}", met=False))
    return bars


def _client_of(open_it: Callable[[str], SessionStore]) -> OpenClient:
    @asynccontextmanager
    async def open_client(url: str) -> AsyncIterator[Client]:
        keys = keys_of("resilience")
        async with open_it(url) as store:
            # A store in memory is empty each time it is opened, and a resilient one knows nothing yet.
            await store.put_many(Put(key, value, TTL) for key, value in zip(keys, VALUES, strict=True))
            yield store_client(store, keys)

    return open_client


def _cost(store: str, driver: Result, resilient: Result) -> Cost:
    rates, driver_rates = ([round(load.rate) for load in result.loads] for result in (resilient, driver))
    return Cost(
        store=store,
        work=driver.work,
        callers=driver.callers,
        driver_rate=sorted(driver_rates)[len(driver_rates) // 2],
        rate=sorted(rates)[len(rates) // 2],
        ratio=ratio_of(resilient, driver),
        cpu_ratio=cpu_ratio_of(resilient, driver),
        driver_cpu_us=cpu_us_of(driver),
        cpu_us=cpu_us_of(resilient),
        wrong=sum(sum(load.errors.values()) + load.mismatches for load in (*driver.loads, *resilient.loads)),
        driver_rates=driver_rates,
        rates=rates,
    )
