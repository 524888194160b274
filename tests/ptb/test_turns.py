from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import LeaseLost, LockNotAcquired, StoreUnavailable
from sessionkit.ptb.locking import StoreLocks
from sessionkit.ptb.turns import Turns
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_who_shares_a_name_goes_in_the_order_they_came() -> None:
    turns, order, running = Turns(), list[int](), set[str]()

    async def go(number: int, *names: str) -> None:
        async with turns.take(names):
            assert running.isdisjoint(names)
            running.update(names)
            order.append(number)
            await asyncio.sleep(0)
            running.difference_update(names)

    wants = [("a", "b"), ("b",), ("c",), ("b", "a"), ("a",), ("c", "a")]
    await asyncio.gather(*(go(number, *names) for number, names in enumerate(wants)))
    for name in "abc":
        mine = [number for number, names in enumerate(wants) if name in names]
        assert [number for number in order if number in mine] == mine
    assert order[:2] == [0, 2], "those without a name in common go side by side"
    assert not any(turns.taken(name) for name in "abc")


async def test_who_gives_up_keeps_nobody_waiting() -> None:
    turns = Turns()
    async with turns.take(["a"]):
        with pytest.raises(LockNotAcquired, match="longer than 0"):
            async with turns.take(["a", "b"], wait=0):
                pass
        assert not turns.taken("b")
        cancelled = asyncio.create_task(_take(turns, "a", "b"))
        last = asyncio.create_task(_take(turns, "b"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await last
    await _take(turns, "a", "b")


async def _take(turns: Turns, *names: str) -> None:
    async with turns.take(names):
        pass


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


async def test_several_locks_are_held_and_given_back(store: MemoryStore) -> None:
    mine, theirs = StoreLocks(lambda: store, 30), StoreLocks(lambda: store, 30)
    async with mine.hold(["b", "a"], None):
        for name in "ab":
            with pytest.raises(LockNotAcquired):
                async with theirs.hold([name], 0):
                    pass
        with pytest.raises(LockNotAcquired):
            async with theirs.hold(["a", "c"], 0):
                pass
    async with theirs.hold(["a", "b", "c"], 10):
        pass
    await mine.aclose()
    await theirs.aclose()


async def test_crosswise_wishes_do_not_wait_for_each_other_for_ever(store: MemoryStore) -> None:
    done: list[int] = []

    async def go(number: int) -> None:
        locks = StoreLocks(lambda: store, 30)
        names = [f"{number % 3}", f"{(number + 1) % 3}"]
        async with locks.hold(names, None):
            await asyncio.sleep(0)
            done.append(number)
        await locks.aclose()

    async with asyncio.timeout(20):
        await asyncio.gather(*map(go, range(30)))
    assert sorted(done) == list(range(30))


async def test_a_lock_that_is_lost_ends_the_body() -> None:
    store = MemoryStore()
    locks = StoreLocks(lambda: store, 30)
    with pytest.raises(LeaseLost):
        async with locks.hold(["a", "b"], None):
            closing = asyncio.create_task(store.aclose())
            await asyncio.Event().wait()
    await closing
    await locks.aclose()
    with pytest.raises(StoreUnavailable):
        async with locks.hold(["a"], None):
            pass


async def test_a_cancelled_wish_takes_nothing(store: MemoryStore) -> None:
    locks = StoreLocks(lambda: store, 30)
    async with store.lock("b"):
        wish = asyncio.create_task(_hold(locks, "a", "b"))
        await asyncio.sleep(0.01)  # until it waits for the second one; nothing tells of that
        wish.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wish
    await locks.aclose()
    async with store.lock("a", wait=0), store.lock("b", wait=0):
        pass


async def _hold(locks: StoreLocks, *names: str) -> None:
    async with locks.hold(names, None):
        pass
