"""A real server is killed again and again under writers at full speed: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from sessionkit.registry import open_driver
from sessionkit.resilience import CircuitBreaker, ResilientStore, State
from tests.resilience.ledger import History, Ledger, figures
from tests.resilience.waiting import became

if TYPE_CHECKING:
    from sessionkit.testing.servers import RedisServer

WRITERS = 20


def open_store(url: str) -> ResilientStore:
    return ResilientStore(
        open_driver(url, timeout=1.0), breaker=CircuitBreaker(first_pause=0.05, longest_pause=0.2)
    )


async def kill_again_and_again(server: RedisServer, instances: int, kills: int, seed: int) -> list[Ledger]:
    """Kill the server while the writers of some instances are at work; return what they have noted."""
    chance = random.Random(seed)
    history = History()
    states: Counter[str] = Counter()
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(open_store(server.url())) for _ in range(instances)]
        ledgers = [
            Ledger(store, f"{name}-", history, seed, WRITERS // instances)
            for name, store in zip("ab", stores, strict=False)
        ]
        async with asyncio.TaskGroup() as group:
            for ledger in ledgers:
                group.create_task(ledger.run())
            for kill in range(kills):
                # In good health, in the middle of a replay, and whenever it comes.
                moment = [(State.HEALTHY,), (State.REPLAYING, State.HEALTHY), tuple(State)][kill % 3]
                await became(chance.choice(stores), *moment)
                await chance.choice(ledgers).acknowledges(chance.choice([1, 10, 100, 500]))
                states.update(store.state.value for store in stores)
                server.kill()
                await chance.choice(ledgers).acknowledges(chance.choice([1, 10, 100, 500]))
                server.start()
            await asyncio.gather(*(became(store, State.HEALTHY) for store in stores))
            for ledger in ledgers:
                ledger.stop()
        await asyncio.gather(*(became(store, State.HEALTHY) for store in stores))
        assert [store.journal.depth for store in stores] == [0] * instances
        async with open_driver(server.url()) as primary:
            for ledger in ledgers:
                await ledger.check(primary)
    print(f"{server.binary.name}: kills {kills} (met {dict(states)}), {figures(ledgers)}")  # noqa: T201 - its figures, with -rP
    return ledgers


async def test_one_instance_loses_nothing(durable_server: RedisServer, heavy: bool, seed: int) -> None:
    (ledger,) = await kill_again_and_again(durable_server, 1, 30 if heavy else 5, seed)
    assert ledger.lost == []
    assert ledger.store.counts.replayed > 0
    # Nobody else writes: whatever stands there is this instance's own.
    assert ledger.conflicts == {}


async def test_two_instances_lose_nothing_that_was_not_reported(
    durable_server: RedisServer, heavy: bool, seed: int
) -> None:
    ledgers = await kill_again_and_again(durable_server, 2, 30 if heavy else 5, seed)
    for ledger in ledgers:
        assert ledger.lost == []
        assert ledger.store.counts.replayed > 0
        # What one instance alone writes meets nobody else.
        assert not [key for key in ledger.conflicts if key.count(":") > 1 or "-" in key]
