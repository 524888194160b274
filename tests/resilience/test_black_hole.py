"""A real server from which nothing comes back any more, and no connection breaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.resilience import CircuitBreaker, ConflictFound, ResilientStore, State
from sessionkit.store import Record, Where
from sessionkit.testing.chaos import ChaosProxy, Direction
from tests.resilience.waiting import became

if TYPE_CHECKING:
    from sessionkit.resilience import Event
    from sessionkit.testing.servers import RedisServer

DEADLINE = 0.5
KEYS = [f"key{number}" for number in range(50)]


@pytest.mark.parametrize("direction", [Direction.BOTH, Direction.REPLIES], ids=["both ways", "replies"])
async def test_what_a_black_hole_swallows_is_journaled_and_replayed(
    redis_server: RedisServer, direction: Direction, seed: int
) -> None:
    async with (
        open_driver(redis_server.url()) as primary,
        ChaosProxy("127.0.0.1", redis_server.port, seed=seed) as proxy,
        ResilientStore(
            open_driver(proxy.url(redis_server.url()), timeout=DEADLINE / 2),
            deadline=DEADLINE,
            breaker=CircuitBreaker(first_pause=0.05, longest_pause=0.1),
        ) as store,
    ):
        events: list[Event] = []
        store.subscribe(events.append)
        receipts = {key: await store.put(key, b"before") for key in KEYS}
        proxy.black_hole(direction=direction)

        # Everybody hears within the deadline, of which a busy machine gets ten.
        async with asyncio.timeout(10 * DEADLINE):
            writes = (store.put(key, b"first", if_version=receipts[key].version) for key in KEYS)
            receipts = dict(zip(KEYS, await asyncio.gather(*writes), strict=True))
        assert {receipt.where for receipt in receipts.values()} == {Where.JOURNALED}

        # From now on nobody asks the server, but for the probe.
        tried = store.retries.retries
        for key in KEYS:
            assert await store.get(key) == Record(b"first", receipts[key].version, stale=True)
            receipts[key] = await store.put(key, b"second", if_version=receipts[key].version)
            assert receipts[key].where is Where.JOURNALED
        with pytest.raises(StoreUnavailable):
            await store.get("never seen")
        assert store.retries.retries == tried
        assert store.state in {State.OPEN, State.PROBING}

        proxy.heal()
        await became(store, State.HEALTHY)
        assert store.journal.depth == 0
        found = await primary.get_many(KEYS)
        assert found == {key: Record(b"second", receipts[key].version) for key in KEYS}
        assert await store.get_many(KEYS) == found
        assert store.counts.replayed == len(KEYS)
        assert not [event for event in events if isinstance(event, ConflictFound)]
