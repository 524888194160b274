"""The optional ability ``TimedStore``: how long records have left."""

from __future__ import annotations

import pytest

from sessionkit.errors import StoreUnavailable
from sessionkit.store import SessionStore, TimedStore
from sessionkit.testing.conformance.base import StoreTests


def _timed(store: SessionStore) -> TimedStore:
    if not isinstance(store, TimedStore):
        pytest.skip("the store is no TimedStore")
    return store


class TimingTests(StoreTests):
    """``time_left``."""

    async def test_time_left_is_told_of_each_record(self, store: SessionStore, prefix: str) -> None:
        timed = _timed(store)
        await store.put(f"{prefix}long", b"", expires_in=86_400)
        await store.put(f"{prefix}short", b"", expires_in=50.5)
        await store.put(f"{prefix}lasting", b"")
        keys = [f"{prefix}{name}" for name in ("long", "short", "lasting", "absent")]
        left = await timed.time_left(keys)
        assert left.keys() == set(keys[:3])
        assert left[keys[2]] is None
        for key, most in ((keys[0], 86_400), (keys[1], 50.5)):
            seconds = left[key]
            assert seconds is not None
            assert most - 10 < seconds < most + 0.01
        assert await timed.time_left([]) == {}

    async def test_time_left_passes_and_can_be_set(self, store: SessionStore, key: str) -> None:
        timed = _timed(store)
        await store.put(key, b"", expires_in=60)
        await self.advance(0.3)
        left = (await timed.time_left([key]))[key]
        assert left is not None
        assert left <= 59.71
        await store.touch(key, expires_in=None)
        assert await timed.time_left([key]) == {key: None}

    async def test_what_has_expired_has_no_time_left(self, store: SessionStore, key: str) -> None:
        timed = _timed(store)
        await store.put(key, b"", expires_in=0.1)
        await self.advance(0.2)
        assert await timed.time_left([key]) == {}

    async def test_asking_for_the_time_left_renews_nothing(self, store: SessionStore, key: str) -> None:
        timed = _timed(store)
        await store.put(key, b"", expires_in=0.3)
        await self.advance(0.2)
        assert (await timed.time_left([key])).keys() == {key}
        await self.advance(0.2)
        assert await store.get(key) is None

    async def test_time_left_of_many_records(self, store: SessionStore, prefix: str) -> None:
        timed = _timed(store)
        keys = [f"{prefix}{number}" for number in range(1_200)]
        for key in keys[::100]:
            await store.put(key, b"", expires_in=100)
        assert (await timed.time_left(keys)).keys() == set(keys[::100])

    async def test_a_closed_store_tells_no_time_left(self, key: str) -> None:
        async with self.open_store() as store:
            timed = _timed(store)
        with pytest.raises(StoreUnavailable):
            await timed.time_left([key])
