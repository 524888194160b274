"""Expiry: exact to the millisecond, and absent means absent everywhere."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from sessionkit.errors import InvalidExpiry, VersionConflict
from sessionkit.store import ABSENT, MAX_EXPIRY_SECONDS, Record, SessionStore
from sessionkit.testing.conformance.base import StoreTests


class ExpiryTests(StoreTests):
    """``expires_in``, ``renew_for`` and ``touch``."""

    async def test_an_expired_record_is_absent_everywhere(self, store: SessionStore, key: str) -> None:
        old = await store.put(key, b"old", expires_in=0.2)
        assert await store.get(key) == Record(b"old", old.version)
        await self.advance(0.25)
        assert await store.get(key) is None
        assert await store.get(key, renew_for=10) is None
        assert await store.get_many([key]) == {}
        assert await store.touch(key, expires_in=10) is False
        assert await store.delete(key) is False
        assert await store.delete_many([key]) == 0
        assert [found async for found in store.scan(key)] == []
        new = await store.put(key, b"new", if_version=ABSENT)
        assert await store.get(key) == Record(b"new", new.version)

    async def test_milliseconds_are_not_cut_off(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"value", expires_in=1.5)
        await self.advance(1.2)
        assert await store.get(key) is not None
        await self.advance(0.4)
        assert await store.get(key) is None

    async def test_the_shortest_expiry_is_no_error(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"value", expires_in=0.0001)
        await self.advance(0.01)
        assert await store.get(key) is None

    @pytest.mark.parametrize("seconds", [timedelta(days=1).total_seconds(), MAX_EXPIRY_SECONDS], ids=str)
    async def test_long_expiries_are_kept_whole(self, store: SessionStore, key: str, seconds: float) -> None:
        await store.put(key, b"value", expires_in=seconds)
        if self.virtual_time:
            await self.advance(seconds - 1)
            assert await store.get(key) is not None
            await self.advance(2)
            assert await store.get(key) is None
            return
        left = await self.time_to_live(store, key)
        if left is None:
            pytest.skip("neither virtual_time nor time_to_live() is provided: a long expiry cannot be seen")
        assert seconds - 60 < left <= seconds

    async def test_a_put_without_expiry_ends_the_old_one(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"old", expires_in=0.1)
        await store.put(key, b"new")
        await self.advance(0.2)
        assert await store.get(key) is not None

    async def test_a_put_with_expiry_replaces_the_old_one(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"old")
        await store.put(key, b"new", expires_in=0.1)
        await self.advance(0.2)
        assert await store.get(key) is None

    @pytest.mark.parametrize(
        "bad",
        [0, -1, 0.0, math.nan, math.inf, MAX_EXPIRY_SECONDS * 1.01, True, "5", timedelta(seconds=5)],
        ids=repr,
    )
    async def test_what_is_no_expiry_is_refused(self, store: SessionStore, key: str, bad: float) -> None:
        receipt = await store.put(key, b"value")
        for call in (
            store.put(key, b"other", expires_in=bad),
            store.touch(key, expires_in=bad),
            store.get(key, renew_for=bad),
        ):
            with pytest.raises(InvalidExpiry):
                await call
        assert await store.get(key) == Record(b"value", receipt.version)

    async def test_touch_changes_the_expiry_and_nothing_else(self, store: SessionStore, key: str) -> None:
        receipt = await store.put(key, b"value", expires_in=0.2)
        assert await store.touch(key, expires_in=1000) is True
        await self.advance(0.3)
        assert await store.get(key) == Record(b"value", receipt.version)
        assert await store.touch(key, expires_in=0.1) is True
        await self.advance(0.2)
        assert await store.get(key) is None

    async def test_touch_with_none_ends_the_expiry(self, store: SessionStore, key: str) -> None:
        receipt = await store.put(key, b"value", expires_in=0.2)
        assert await store.touch(key, expires_in=None) is True
        assert await store.touch(key, expires_in=None) is True
        await self.advance(0.3)
        assert await store.get(key) == Record(b"value", receipt.version)

    async def test_touch_at_a_version(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1", expires_in=0.2)
        second = await store.put(key, b"2", expires_in=0.2)
        for expires_in in (1000, None):
            with pytest.raises(VersionConflict) as caught:
                await store.touch(key, expires_in=expires_in, if_version=first.version)
            assert caught.value.current == second.version
        assert await store.touch(key, expires_in=0.3, if_version=second.version) is True
        await self.advance(0.35)
        assert await store.touch(key, expires_in=1000, if_version=second.version) is False
        assert await store.get(key) is None

    async def test_touch_creates_nothing(self, store: SessionStore, key: str) -> None:
        assert await store.touch(key, expires_in=10) is False
        assert await store.touch(key, expires_in=None) is False
        assert await store.get(key) is None

    async def test_a_renewing_get_reads_and_renews(self, store: SessionStore, key: str) -> None:
        receipt = await store.put(key, b"value", expires_in=0.2)
        assert await store.get(key, renew_for=1000) == Record(b"value", receipt.version)
        await self.advance(0.3)
        assert await store.get(key, renew_for=0.1) == Record(b"value", receipt.version)
        await self.advance(0.2)
        assert await store.get(key) is None

    async def test_a_renewing_get_gives_an_expiry_to_what_had_none(
        self, store: SessionStore, key: str
    ) -> None:
        await store.put(key, b"value")
        assert await store.get(key, renew_for=0.1) is not None
        await self.advance(0.2)
        assert await store.get(key) is None

    async def test_a_plain_get_renews_nothing(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"value", expires_in=0.3)
        await self.advance(0.2)
        assert await store.get(key) is not None
        await self.advance(0.2)
        assert await store.get(key) is None
