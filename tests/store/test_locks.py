"""``Locks`` over a keeper that the test plays itself."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import CorruptRecord, LeaseLost, SessionKitError, StoreUnavailable
from sessionkit.store import Locks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "key"


class Keeper:
    """A backend with one lock, some turns of the event loop away.

    Attributes:
        holder: The token that has the lock, or "".
        answers: Whether it answers to those that ask for the lock; it takes what they ask in any case.
        refusal: What it raises for any other step, if something.
        taken: Set once the lock is taken.
        waited_for: Set once somebody waits for it.
    """

    def __init__(self) -> None:
        self.holder = ""
        self.answers = True
        self.refusal: SessionKitError | None = None
        self.taken = asyncio.Event()
        self.waited_for = asyncio.Event()

    async def take_lease(self, key: str, token: str, lease: float) -> int | None:
        await turns(2)
        if self.holder and self.holder != token:
            return None
        self.holder = token
        self.taken.set()
        await (turns(2) if self.answers else asyncio.Event().wait())
        return 1

    async def extend_lease(self, key: str, token: str, lease: float) -> bool:
        if self.refusal is not None:
            raise self.refusal
        return self.holder == token

    async def drop_lease(self, key: str, token: str) -> None:
        await turns(2)
        if self.refusal is not None:
            raise self.refusal
        if self.holder == token:
            self.holder = ""

    async def wait_for_release(self, key: str, seconds: float) -> None:
        self.waited_for.set()
        await asyncio.Event().wait()


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
async def locks(keeper: Keeper) -> AsyncIterator[Locks]:
    locks = Locks(keeper)
    yield locks
    await locks.aclose()


class User:
    """Who takes the lock and keeps it.

    Attributes:
        inside: Whether the lock is held.
        task: Ends with the lock.
    """

    def __init__(self, locks: Locks, lease: float = 60.0) -> None:
        self.inside = False
        self.task = asyncio.get_running_loop().create_task(self._hold(locks, lease))

    async def _hold(self, locks: Locks, lease: float) -> None:
        async with locks.hold(KEY, lease=lease, wait=None):
            self.inside = True
            try:
                await asyncio.Event().wait()
            finally:
                self.inside = False


async def test_a_lock_whose_taking_was_not_answered_is_freed_when_its_store_is_closed(
    locks: Locks, keeper: Keeper
) -> None:
    keeper.answers = False
    user = User(locks)
    await keeper.taken.wait()
    await locks.aclose()
    assert keeper.holder == "", "before the store can close its connections"
    with pytest.raises(StoreUnavailable, match="is closed") as caught:
        await user.task
    assert caught.value.temporary is False


async def test_who_waits_for_a_lock_is_told_that_its_store_is_closed(locks: Locks, keeper: Keeper) -> None:
    keeper.holder = "another process"
    user = User(locks)
    await keeper.waited_for.wait()
    await locks.aclose()
    with pytest.raises(StoreUnavailable, match="is closed"):
        await user.task
    assert keeper.holder == "another process"


@pytest.mark.parametrize("number", range(14))
async def test_a_store_may_be_closed_at_any_moment_of_a_lock(
    locks: Locks, keeper: Keeper, number: int
) -> None:
    user = User(locks)
    next_one = User(locks)
    await turns(number)
    await locks.aclose()
    assert keeper.holder == ""
    assert not user.inside, "a lock that is free has no holder"
    with pytest.raises((StoreUnavailable, LeaseLost)):
        await user.task
    with pytest.raises(StoreUnavailable):
        await next_one.task
    assert keeper.holder == ""


async def test_who_closes_the_store_in_a_lock_is_left_to_end(locks: Locks, keeper: Keeper) -> None:
    async with locks.hold(KEY, lease=60.0, wait=None):
        await locks.aclose()
        assert keeper.holder == ""
        await turns(5)


async def test_a_cancel_stays_one_while_a_lock_is_taken(locks: Locks, keeper: Keeper) -> None:
    keeper.answers = False
    user = User(locks)
    await keeper.taken.wait()
    user.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await user.task
    await locks.aclose()
    assert keeper.holder == ""


async def test_a_cancel_while_a_lock_is_given_back_leaves_nothing_behind(
    locks: Locks, keeper: Keeper
) -> None:
    user = User(locks)
    await keeper.taken.wait()
    await turns(5)
    user.task.cancel()
    await turns(1)
    user.task.cancel()  # it is giving the lock back
    with pytest.raises(asyncio.CancelledError):
        await user.task
    await locks.aclose()
    assert keeper.holder == ""


async def test_a_lock_whose_record_was_overwritten_is_lost_at_the_end_of_its_lease(
    locks: Locks, keeper: Keeper
) -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    user = User(locks, lease=0.1)
    await keeper.taken.wait()
    keeper.refusal = CorruptRecord("overwritten")
    with pytest.raises(LeaseLost):
        await user.task
    await locks.aclose()
    gc.collect()
    assert unhandled == []
