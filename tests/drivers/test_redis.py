from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis

from sessionkit.errors import (
    CorruptRecord,
    LeaseLost,
)
from sessionkit.store import ABSENT, Put, Record, SessionStore, StoreURL
from sessionkit.testing import SessionStoreConformance
from sessionkit_redis import open_driver

if TYPE_CHECKING:
    from sessionkit.testing.servers import RedisServer


class TestRedisConformance(SessionStoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()
        self.admin = redis.Redis.from_url(self.url)

    def open_store(self) -> SessionStore:
        return open_driver(StoreURL.parse(self.url))

    async def time_to_live(self, store: SessionStore, key: str) -> float:
        return int(str(self.admin.pttl(key))) / 1000

    async def test_a_record_is_one_string_with_redis_own_expiry(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"value", expires_in=300)
        assert self.admin.keys("*") == [key.encode()]
        assert self.admin.type(key) == b"string"
        assert 299 <= int(str(self.admin.ttl(key))) <= 300

    async def test_it_works_after_the_server_forgot_its_scripts(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1")
        self.admin.script_flush()
        second = await store.put(key, b"2", if_version=first.version)
        self.admin.script_flush()
        receipts = await store.put_many([Put(key, b"3", None, second.version), Put(key, b"4")])
        assert await store.get(key) == Record(b"4", receipts[1].version)

    @pytest.mark.parametrize(
        "foreign", [b"", b"\x01", b"text of somebody else", b"\x01\x05" + bytes(40), b"\x01\x01short"]
    )
    async def test_a_foreign_string_is_reported_and_kept(
        self, store: SessionStore, key: str, foreign: bytes
    ) -> None:
        self.admin.set(key, foreign)
        calls = (
            store.get(key),
            store.get_many([key]),
            store.put(key, b"mine"),
            store.put(key, b"mine", if_version=ABSENT),
            store.delete(key, if_version=(await store.put(key + "2", b"v")).version),
        )
        for call in calls:
            with pytest.raises(CorruptRecord, match="did not write"):
                await call
        assert self.admin.get(key) == foreign

    async def test_a_key_that_is_no_string_is_reported_and_kept(self, store: SessionStore, key: str) -> None:
        self.admin.rpush(key, "a", "b")
        for call in (store.get(key), store.get_many([key]), store.get(key, renew_for=1), store.put(key, b"")):
            with pytest.raises(CorruptRecord, match="did not write"):
                await call
        assert self.admin.lrange(key, 0, -1) == [b"a", b"b"]

    async def test_a_lock_that_is_taken_away_cancels_its_holder(self, store: SessionStore, key: str) -> None:
        with pytest.raises(LeaseLost):
            async with store.lock(key, lease=0.3):
                self.admin.delete(f"{key}#lock")
                await asyncio.Event().wait()

    async def test_a_lock_outlives_its_lease_while_its_holder_does(
        self, store: SessionStore, key: str
    ) -> None:
        async with store.lock(key, lease=0.3):
            for _ in range(4):
                await self.advance(0.15)
                token, _, _ = bytes(self.admin.get(f"{key}#lock") or b"").partition(b":")  # type: ignore[arg-type]
                assert token

    async def test_a_freed_lock_is_gone_after_a_minute(self, store: SessionStore, key: str) -> None:
        async with store.lock(key):
            pass
        assert 0 < int(str(self.admin.pttl(f"{key}#lock"))) <= 60_000
