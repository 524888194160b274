"""Batches: each entry has its own outcome."""

from __future__ import annotations

import pytest

from sessionkit.errors import BatchFailed, InvalidExpiry, InvalidKey, UnsupportedType, VersionConflict
from sessionkit.store import ABSENT, Put, Receipt, Record, SessionStore, new_version
from sessionkit.testing.conformance.base import StoreTests


class BatchTests(StoreTests):
    """get_many, put_many and delete_many."""

    async def test_empty_batches_do_nothing(self, store: SessionStore) -> None:
        assert await store.get_many([]) == {}
        assert await store.put_many([]) == []
        assert await store.delete_many([]) == 0

    async def test_a_batch_is_put_and_got(self, store: SessionStore, prefix: str) -> None:
        keys = [f"{prefix}{number}" for number in range(300)]
        receipts = await store.put_many(Put(key, key.encode()) for key in keys)
        assert await store.get_many([*keys, f"{prefix}absent"]) == {
            key: Record(key.encode(), receipt.version) for key, receipt in zip(keys, receipts, strict=True)
        }

    async def test_a_batch_larger_than_any_statement_limit(self, store: SessionStore, prefix: str) -> None:
        keys = [f"{prefix}{number}" for number in range(40_000)]
        await store.put_many(Put(key, b"v") for key in keys[::10])
        assert set(await store.get_many(keys)) == set(keys[::10])
        assert await store.delete_many(keys) == len(keys[::10])

    async def test_keys_given_twice_count_once(self, store: SessionStore, key: str) -> None:
        receipt = await store.put(key, b"value")
        assert await store.get_many([key, key]) == {key: Record(b"value", receipt.version)}
        assert await store.delete_many([key, key]) == 1

    async def test_each_put_keeps_its_own_expiry(self, store: SessionStore, prefix: str) -> None:
        await store.put_many([Put(f"{prefix}brief", b"b", 0.1), Put(f"{prefix}lasting", b"l")])
        await self.advance(0.2)
        assert set(await store.get_many([f"{prefix}brief", f"{prefix}lasting"])) == {f"{prefix}lasting"}

    async def test_puts_of_one_key_take_effect_in_order(self, store: SessionStore, key: str) -> None:
        first, second = await store.put_many([Put(key, b"1", None, ABSENT), Put(key, b"2")])
        assert first.version != second.version
        assert await store.get(key) == Record(b"2", second.version)

    async def test_write_ids_hold_in_batches(self, store: SessionStore, key: str) -> None:
        put = Put(key, b"mine", None, ABSENT, new_version())
        assert put.write_id is not None
        assert await store.put_many([put, put]) == [Receipt(put.write_id)] * 2

    async def test_a_failed_put_does_not_stop_the_others(self, store: SessionStore, prefix: str) -> None:
        taken = await store.put(f"{prefix}taken", b"theirs")
        with pytest.raises(BatchFailed) as caught:
            await store.put_many(
                [
                    Put(f"{prefix}before", b"mine"),
                    Put(f"{prefix}taken", b"mine", None, ABSENT),
                    Put(f"{prefix}after", b"mine"),
                ]
            )
        before, conflict, after = caught.value.results
        assert isinstance(before, Receipt)
        assert isinstance(after, Receipt)
        assert isinstance(conflict, VersionConflict)
        assert conflict.current == taken.version
        assert await store.get_many([f"{prefix}before", f"{prefix}taken", f"{prefix}after"]) == {
            f"{prefix}before": Record(b"mine", before.version),
            f"{prefix}taken": Record(b"theirs", taken.version),
            f"{prefix}after": Record(b"mine", after.version),
        }

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Put("", b"v"), InvalidKey),
            (Put("k", b"v", -1), InvalidExpiry),
            (Put("k", "text"), UnsupportedType),  # type: ignore[arg-type]  # what a user may well pass
        ],
        ids=["key", "expiry", "value"],
    )
    async def test_a_malformed_put_refuses_the_batch_before_anything_is_sent(
        self, store: SessionStore, key: str, bad: Put, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            await store.put_many([Put(key, b"good"), bad])
        assert await store.get(key) is None
