"""Many callers at once, some of them gone before their answer: no answer reaches the wrong one."""

from __future__ import annotations

import asyncio
import random

from sessionkit.store import Put, SessionStore
from sessionkit.testing.conformance.base import StoreTests, give_some_up


class ConcurrencyTests(StoreTests):
    """Concurrent and cancelled calls."""

    async def test_each_of_many_callers_gets_its_own_record(self, store: SessionStore, prefix: str) -> None:
        async def call(number: int) -> bool:
            key = f"{prefix}{number}"
            await store.put(key, key.encode())
            record = await store.get(key)
            return record is not None and record.value == key.encode()

        assert all(await asyncio.gather(*(call(number) for number in range(300))))

    async def test_cancelled_calls_cross_no_answers(self, store: SessionStore, prefix: str) -> None:
        """Half are cancelled at a random turn of the loop; the others must get their own answer."""
        chance = random.Random(20_240_611)
        keys = [f"{prefix}{number}" for number in range(100)]
        await store.put_many(Put(key, key.encode()) for key in keys)

        async def single(key: str) -> None:
            record = await store.get(key)
            assert record is not None
            assert record.value == key.encode()

        async def several(key: str) -> None:
            wanted = [key, chance.choice(keys)]
            found = await store.get_many(wanted)
            assert {name: record.value for name, record in found.items()} == {
                name: name.encode() for name in wanted
            }

        async def write(key: str) -> None:
            await store.put(key, key.encode())

        async def locked(key: str) -> None:
            async with store.lock(key, wait=None):
                await single(key)

        for _ in range(20):
            tasks = [
                asyncio.create_task(chance.choice((single, several, write, locked))(chance.choice(keys)))
                for _ in range(50)
            ]
            await give_some_up(tasks, 25, chance)
        for key in keys:
            await single(key)
            async with store.lock(key, wait=5):
                pass
