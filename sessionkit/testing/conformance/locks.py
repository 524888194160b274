"""Locks: one holder at a time, and none left behind."""

from __future__ import annotations

import asyncio

import pytest

from sessionkit.errors import ConfigurationError, InvalidExpiry, LeaseLost, LockNotAcquired
from sessionkit.store import Lease, Scope, SessionStore
from sessionkit.testing.conformance.base import StoreTests


class LockTests(StoreTests):
    """lock."""

    async def test_holders_take_turns_in_the_order_they_came(self, store: SessionStore, key: str) -> None:
        events: list[str] = []

        async def hold(number: int) -> None:
            async with store.lock(key, wait=None):
                events.append(f"in {number}")
                await asyncio.sleep(0)
                events.append(f"out {number}")

        await asyncio.gather(*(hold(number) for number in range(10)))
        assert events == [f"{way} {number}" for number in range(10) for way in ("in", "out")]

    async def test_a_held_lock_is_refused_to_another(self, store: SessionStore, key: str) -> None:
        async with store.lock(key):
            for wait in (0.0, 0.05):
                with pytest.raises(LockNotAcquired):
                    async with store.lock(key, wait=wait):
                        pytest.fail("two holders at once")
        async with store.lock(key, wait=0):
            pass

    async def test_a_lock_handed_on_to_a_waiter_is_held(self, store: SessionStore, key: str) -> None:
        async def hold() -> None:
            async with store.lock(key, wait=None):
                await asyncio.sleep(0.2)

        async with store.lock(key):
            waiter = asyncio.create_task(hold())
            await asyncio.sleep(0)
        # Free for an instant, and promised to the waiter.
        with pytest.raises(LockNotAcquired):
            async with store.lock(key, wait=0):
                pytest.fail("it went past the waiter")
        await waiter

    async def test_closing_frees_what_is_held(self, store: SessionStore, key: str) -> None:
        other = self.open_store()
        async with other.lock(key):
            await other.aclose()
            async with store.lock(key, wait=0):
                pass

    async def test_closing_ends_who_holds_a_lock(self, store: SessionStore, key: str) -> None:
        other = self.open_store()
        held = asyncio.Event()

        async def hold_for_ever() -> None:
            async with other.lock(key):
                held.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold_for_ever())
        await held.wait()
        await other.aclose()
        async with store.lock(key, wait=0):
            assert holder.done()
        with pytest.raises(LeaseLost):
            await holder

    async def test_other_keys_are_other_locks(self, store: SessionStore, prefix: str) -> None:
        async with store.lock(f"{prefix}a", wait=0), store.lock(f"{prefix}b", wait=0):
            pass

    async def test_a_lease_names_its_key_and_a_growing_fence(self, store: SessionStore, key: str) -> None:
        fences = []
        for _ in range(5):
            async with store.lock(key) as lease:
                assert isinstance(lease, Lease)
                assert lease.key == key
                fences.append(lease.fence)
        assert fences == sorted(set(fences))

    async def test_an_exception_frees_the_lock_and_passes(self, store: SessionStore, key: str) -> None:
        with pytest.raises(ZeroDivisionError):
            async with store.lock(key):
                raise ZeroDivisionError
        async with store.lock(key, wait=0):
            pass

    async def test_a_timeout_of_the_body_stays_its_own(self, store: SessionStore, key: str) -> None:
        with pytest.raises(TimeoutError, match="mine"):
            async with store.lock(key):
                raise TimeoutError("mine")

    async def test_a_cancelled_holder_frees_the_lock(self, store: SessionStore, key: str) -> None:
        held = asyncio.Event()

        async def hold_for_ever() -> None:
            async with store.lock(key):
                held.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold_for_ever())
        await held.wait()
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        async with store.lock(key, wait=0):
            pass

    async def test_a_cancelled_waiter_leaves_the_queue(self, store: SessionStore, key: str) -> None:
        async def take() -> None:
            async with store.lock(key, wait=None):
                pass

        async with store.lock(key):
            waiters = [asyncio.create_task(take()) for _ in range(5)]
            await asyncio.sleep(0)
            for waiter in waiters[::2]:
                waiter.cancel()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [
            True,
            False,
            True,
            False,
            True,
        ]

    async def test_a_lock_leaves_the_record_of_its_name_alone(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"value")
        async with store.lock(key):
            assert await store.delete(key) is True
            with pytest.raises(LockNotAcquired):
                async with store.lock(key, wait=0):
                    pytest.fail("deleting the record freed the lock")

    async def test_another_instance_waits_too(self, store: SessionStore, key: str) -> None:
        async with self.open_store() as other:
            if store.capabilities.scope is Scope.INSTANCE:
                async with store.lock(key), other.lock(key, wait=0):
                    return
            async with store.lock(key) as first:
                with pytest.raises(LockNotAcquired):
                    async with other.lock(key, wait=0.05):
                        pytest.fail("two holders at once")
                waiting = asyncio.create_task(self._fence(other, key))
                await asyncio.sleep(0)
            assert await waiting > first.fence

    @pytest.mark.parametrize("bad", [0, -1], ids=repr)
    async def test_what_is_no_lease_is_refused(self, store: SessionStore, key: str, bad: float) -> None:
        with pytest.raises(InvalidExpiry):
            async with store.lock(key, lease=bad):
                pass

    async def test_a_negative_wait_is_refused(self, store: SessionStore, key: str) -> None:
        with pytest.raises(ConfigurationError, match="wait"):
            async with store.lock(key, wait=-1):
                pass

    @staticmethod
    async def _fence(store: SessionStore, key: str) -> int:
        async with store.lock(key, wait=None) as lease:
            return lease.fence
