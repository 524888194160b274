"""The optional ability ``RecodingStore``: other bytes that say the same."""

from __future__ import annotations

from typing import Any

import pytest

from sessionkit.errors import RecordTooLarge, StoreUnavailable, UnsupportedType, VersionConflict
from sessionkit.store import RecodingStore, Record, SessionStore, new_version
from sessionkit.testing.conformance.base import StoreTests


def _recoding(store: SessionStore) -> RecodingStore:
    if not isinstance(store, RecodingStore):
        pytest.skip("the store is no RecodingStore")
    return store


class RecodingTests(StoreTests):
    """``recode``."""

    async def test_recode_replaces_the_bytes_and_keeps_the_version(
        self, store: SessionStore, key: str
    ) -> None:
        recoding = _recoding(store)
        receipt = await store.put(key, b"old", expires_in=100)
        for value in (b"new", b"", b"\x00" * 100_000):
            assert await recoding.recode(key, value, if_version=receipt.version) is True
            assert await store.get(key) == Record(value, receipt.version)

    async def test_recode_keeps_the_expiry(self, store: SessionStore, key: str) -> None:
        recoding = _recoding(store)
        receipt = await store.put(key, b"old", expires_in=0.3)
        assert await recoding.recode(key, b"new", if_version=receipt.version) is True
        lasting = await store.put(f"{key}2", b"old")
        assert await recoding.recode(f"{key}2", b"new", if_version=lasting.version) is True
        await self.advance(0.4)
        assert await store.get(key) is None
        assert await store.get(f"{key}2") == Record(b"new", lasting.version)

    async def test_recode_remembers_earlier_writes(self, store: SessionStore, key: str) -> None:
        recoding = _recoding(store)
        write_id = new_version()
        await store.put(key, b"first", write_id=write_id)
        receipt = await store.put(key, b"second")
        await recoding.recode(key, b"recoded", if_version=receipt.version)
        await store.put(key, b"first", write_id=write_id)
        assert await store.get(key) == Record(b"recoded", receipt.version), "the write was applied already"
        assert await store.put(key, b"third", if_version=receipt.version)

    async def test_recode_at_another_version_conflicts(self, store: SessionStore, key: str) -> None:
        recoding = _recoding(store)
        first = await store.put(key, b"1")
        second = await store.put(key, b"2")
        with pytest.raises(VersionConflict) as caught:
            await recoding.recode(key, b"3", if_version=first.version)
        assert caught.value.current == second.version
        assert await store.get(key) == Record(b"2", second.version)

    async def test_recode_creates_nothing(self, store: SessionStore, key: str) -> None:
        recoding = _recoding(store)
        receipt = await store.put(key, b"1", expires_in=0.1)
        await self.advance(0.2)
        assert await recoding.recode(key, b"2", if_version=receipt.version) is False
        assert await store.get(key) is None
        assert [found async for found in store.scan(key)] == []

    async def test_recode_refuses_what_put_refuses(self, store: SessionStore, key: str) -> None:
        recoding = _recoding(store)
        receipt = await store.put(key, b"value")
        wrong: Any
        for wrong in (None, b"short", "12345678"):
            with pytest.raises(UnsupportedType):
                await recoding.recode(key, b"other", if_version=wrong)
        for wrong in ("text", bytearray(b"bytes"), None):
            with pytest.raises(UnsupportedType):
                await recoding.recode(key, wrong, if_version=receipt.version)
        with pytest.raises(RecordTooLarge):
            await recoding.recode(
                key, bytes(store.capabilities.max_value_bytes + 1), if_version=receipt.version
            )
        assert await store.get(key) == Record(b"value", receipt.version)

    async def test_a_closed_store_does_not_recode(self, key: str) -> None:
        async with self.open_store() as store:
            recoding = _recoding(store)
        with pytest.raises(StoreUnavailable):
            await recoding.recode(key, b"value", if_version=new_version())
