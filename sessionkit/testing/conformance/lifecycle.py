"""Opening, closing, and what a store declares of itself."""

from __future__ import annotations

import asyncio

import pytest

from sessionkit.errors import StoreUnavailable
from sessionkit.store import Capabilities, Put, Record, Scope, SessionStore
from sessionkit.testing.conformance.base import StoreTests


class LifecycleTests(StoreTests):
    """ping, aclose, capabilities."""

    async def test_it_is_a_session_store(self, store: SessionStore) -> None:
        assert isinstance(store, SessionStore)
        assert isinstance(store.capabilities, Capabilities)

    async def test_ping_gives_seconds(self, store: SessionStore) -> None:
        seconds = await store.ping()
        assert isinstance(seconds, float)
        assert 0 <= seconds < 60

    async def test_a_store_opens_outside_of_any_loop(self) -> None:
        store = await asyncio.to_thread(self.open_store)
        assert await store.ping() >= 0
        await store.aclose()

    async def test_closing_twice_is_harmless(self) -> None:
        store = self.open_store()
        await store.ping()
        await store.aclose()
        await store.aclose()

    async def test_closing_what_was_never_used_is_harmless(self) -> None:
        await self.open_store().aclose()

    async def test_a_closed_store_says_so(self, key: str) -> None:
        async with self.open_store() as store:
            await store.put(key, b"value")
        for call in (
            store.get(key),
            store.put(key, b"value"),
            store.delete(key),
            store.touch(key, expires_in=1),
            store.get_many([key]),
            store.put_many([Put(key, b"value")]),
            store.delete_many([key]),
            store.ping(),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert caught.value.temporary is False
        with pytest.raises(StoreUnavailable):
            async for _ in store.scan(key):
                pass
        with pytest.raises(StoreUnavailable):
            async with store.lock(key):
                pass

    async def test_closing_loses_nothing_that_was_acknowledged(self, key: str) -> None:
        async with self.open_store() as store:
            receipt = await store.put(key, b"value")
            durable = store.capabilities.durable
        async with self.open_store() as again:
            assert await again.get(key) == (Record(b"value", receipt.version) if durable else None)

    async def test_the_scope_is_as_declared(self, store: SessionStore, key: str) -> None:
        receipt = await store.put(key, b"value")
        shared = store.capabilities.scope is not Scope.INSTANCE
        async with self.open_store() as other:
            assert await other.get(key) == (Record(b"value", receipt.version) if shared else None)
            await other.put(key, b"theirs")
        record = await store.get(key)
        assert record is not None
        assert record.value == (b"theirs" if shared else b"value")
