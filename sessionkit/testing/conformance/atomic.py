"""The optional ability ``AtomicStore``: several records are written all or none."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from sessionkit.errors import (
    Applied,
    BatchRefused,
    ConfigurationError,
    InvalidExpiry,
    InvalidKey,
    RecordTooLarge,
    StoreUnavailable,
    UnsupportedType,
    VersionConflict,
)
from sessionkit.store import (
    ABSENT,
    MAX_VALUE_BYTES,
    RING_SIZE,
    AtomicStore,
    Delete,
    Put,
    Receipt,
    Record,
    Version,
    new_version,
)
from sessionkit.testing.conformance.atomic_model import STALE, AtomicModel, atomic_batches
from sessionkit.testing.conformance.base import StoreTests, give_some_up

if TYPE_CHECKING:
    from sessionkit.store import SessionStore


def _atomic(store: SessionStore) -> AtomicStore:
    if not isinstance(store, AtomicStore):
        pytest.skip("the store is no AtomicStore")
    if not store.capabilities.atomic:
        pytest.skip("the store writes these records one by one: its capabilities say that it is not atomic")
    return store


class AtomicTests(StoreTests):
    """``write_all``."""

    async def test_it_is_atomic_as_declared(self, store: SessionStore, key: str) -> None:
        if store.capabilities.atomic:
            assert isinstance(store, AtomicStore)
        elif isinstance(store, AtomicStore):
            with pytest.raises(ConfigurationError):
                await store.write_all([Put(key, b"value")])
        assert await store.get(key) is None

    async def test_write_all_puts_and_deletes(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        put, replaced, deleted, absent = (f"{prefix}{name}" for name in "prda")
        await store.put_many([Put(replaced, b"old"), Put(deleted, b"old")])
        writes: list[Put | Delete] = [
            Put(put, b""),
            Delete(deleted),
            Put(replaced, b"\x00" * 100_000),
            Delete(absent),
        ]
        receipt = await atomic.write_all(iter(writes))
        assert await store.get_many([put, replaced, deleted, absent]) == {
            put: Record(b"", receipt.version),
            replaced: Record(b"\x00" * 100_000, receipt.version),
        }
        await atomic.write_all([Delete(put), Delete(replaced)])
        assert [found async for found in store.scan(prefix)] == []

    async def test_write_all_holds_where_every_condition_does(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        new, replaced, deleted, absent = (f"{prefix}{name}" for name in "nrda")
        old, doomed = await store.put_many([Put(replaced, b"old"), Put(deleted, b"old")])
        receipt = await atomic.write_all(
            [
                Put(new, b"1", if_version=ABSENT),
                Put(replaced, b"2", if_version=old.version),
                Delete(deleted, if_version=doomed.version),
                Delete(absent, if_version=doomed.version),
            ]
        )
        assert await store.get_many([new, replaced, deleted, absent]) == {
            new: Record(b"1", receipt.version),
            replaced: Record(b"2", receipt.version),
        }

    async def test_a_conflict_refuses_all_and_every_one_is_named(
        self, store: SessionStore, prefix: str
    ) -> None:
        atomic = _atomic(store)
        keys = [f"{prefix}{name}" for name in ("good", "changed", "there", "gone", "kept", "deleted")]
        good, changed, there, gone, kept, deleted = keys
        versions = {key: (await store.put(key, b"old")).version for key in keys if key != gone}
        before = await store.get_many(keys)
        stale = new_version()
        with pytest.raises(BatchRefused) as caught:
            await atomic.write_all(
                [
                    Put(good, b"new", if_version=versions[good]),
                    Put(changed, b"new", if_version=stale),
                    Put(there, b"new", if_version=ABSENT),
                    Put(gone, b"new", if_version=stale),
                    Delete(kept, if_version=stale),
                    Delete(deleted),
                ]
            )
        found = {}
        for key, refusal in caught.value.refusals.items():
            assert isinstance(refusal, VersionConflict)
            found[key] = refusal.current
        assert found == {
            changed: versions[changed],
            there: versions[there],
            gone: ABSENT,
            kept: versions[kept],
        }
        assert caught.value.applied is Applied.NO
        assert caught.value.temporary is False
        assert await store.get_many(keys) == before

    async def test_a_refused_write_all_leaves_expiries(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        await store.put_many([Put(f"{prefix}brief", b"", 0.2), Put(f"{prefix}lasting", b"")])
        with pytest.raises(BatchRefused):
            await atomic.write_all(
                [
                    Put(f"{prefix}brief", b"", 100),
                    Put(f"{prefix}lasting", b"", 0.2),
                    Put(f"{prefix}none", b"", if_version=STALE),
                ]
            )
        await self.advance(0.3)
        assert set(await store.get_many([f"{prefix}brief", f"{prefix}lasting"])) == {f"{prefix}lasting"}

    async def test_each_put_of_a_write_all_keeps_its_own_expiry(
        self, store: SessionStore, prefix: str
    ) -> None:
        atomic = _atomic(store)
        brief, lasting, kept = (f"{prefix}{name}" for name in ("brief", "lasting", "kept"))
        await store.put(kept, b"", expires_in=0.1)
        await atomic.write_all([Put(brief, b"", 0.1), Put(lasting, b"", 100), Put(kept, b"")])
        await self.advance(0.2)
        assert set(await store.get_many([brief, lasting, kept])) == {lasting, kept}

    async def test_an_expired_record_is_absent_for_write_all(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        write_id = new_version()
        writes: list[Put | Delete] = [
            Put(f"{prefix}a", b"", 0.1, ABSENT),
            Delete(f"{prefix}b", if_version=STALE),
        ]
        await store.put(f"{prefix}b", b"")
        with pytest.raises(BatchRefused):
            await atomic.write_all(writes, write_id=write_id)
        await store.touch(f"{prefix}b", expires_in=0.1)
        await self.advance(0.2)
        await atomic.write_all(writes, write_id=write_id)
        await self.advance(0.2)
        await atomic.write_all(writes, write_id=write_id)
        assert set(await store.get_many([f"{prefix}a", f"{prefix}b"])) == {f"{prefix}a"}

    @pytest.mark.parametrize("later", range(RING_SIZE))
    async def test_a_repeated_write_all_changes_nothing(
        self, store: SessionStore, prefix: str, later: int
    ) -> None:
        """However often one of its records was written since, as long as that remembers the write."""
        atomic = _atomic(store)
        first, second, deleted = (f"{prefix}{name}" for name in "abc")
        base = await store.put(deleted, b"old")
        write_id = new_version()
        writes: list[Put | Delete] = [
            Put(first, b"mine", 100, ABSENT),
            Put(second, b"mine"),
            Delete(deleted, if_version=base.version),
        ]
        assert await atomic.write_all(writes, write_id=write_id) == Receipt(write_id)
        for number in range(later):
            await store.put(first, b"newer %d" % number)
        await store.put(deleted, b"theirs")
        before = await store.get_many([first, second, deleted])
        assert await atomic.write_all(writes, write_id=write_id) == Receipt(write_id)
        assert await store.get_many([first, second, deleted]) == before

    async def test_a_write_all_is_known_by_any_of_its_records(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        keys = [f"{prefix}{name}" for name in "abc"]
        for known in keys:
            await store.delete_many(keys)
            write_id = new_version()
            writes = [Put(key, b"mine", None, ABSENT) for key in keys]
            await atomic.write_all(writes, write_id=write_id)
            await store.put(keys[0], b"theirs")
            await store.delete_many([key for key in keys if key != known])
            before = await store.get_many(keys)
            assert await atomic.write_all(writes, write_id=write_id) == Receipt(write_id)
            assert await store.get_many(keys) == before
            assert before.keys() == {known}

    async def test_put_and_write_all_know_each_others_writes(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        write_id = new_version()
        keys = [f"{prefix}a", f"{prefix}b"]
        await atomic.write_all([Put(key, b"all") for key in keys], write_id=write_id)
        assert await store.put(keys[0], b"one", if_version=ABSENT, write_id=write_id) == Receipt(write_id)
        newest = await store.put(keys[1], b"newest", if_version=write_id)
        assert await atomic.write_all([Put(keys[1], b"all")], write_id=write_id) == Receipt(write_id)
        assert await store.get_many(keys) == {
            keys[0]: Record(b"all", write_id),
            keys[1]: Record(b"newest", newest.version),
        }

    async def test_an_empty_write_all_does_nothing(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        write_id = new_version()
        assert await atomic.write_all([], write_id=write_id) == Receipt(write_id)
        assert isinstance(await atomic.write_all(iter(())), Receipt)
        assert [found async for found in store.scan(prefix)] == []

    async def test_write_all_takes_many_records(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        keys = [f"{prefix}{number}" for number in range(1_000)]
        receipt = await atomic.write_all(Put(key, b"v", None, ABSENT) for key in keys)
        assert await store.get_many(keys) == dict.fromkeys(keys, Record(b"v", receipt.version))
        with pytest.raises(BatchRefused) as caught:
            await atomic.write_all(Put(key, b"w", None, ABSENT) for key in keys)
        assert caught.value.refusals.keys() == set(keys)
        await atomic.write_all(Delete(key) for key in keys)
        assert await store.get_many(keys) == {}

    async def test_write_all_refuses_what_is_malformed_before_anything_is_written(
        self, store: SessionStore, key: str
    ) -> None:
        atomic = _atomic(store)
        half = bytes(MAX_VALUE_BYTES // 2 + 1)
        stale: Any = ABSENT
        malformed: list[tuple[list[Any], type[Exception]]] = [
            ([Put("", b"")], InvalidKey),
            ([Delete("a#b")], InvalidKey),
            ([Put("k", b"", -1)], InvalidExpiry),
            ([Put("k", "text")], UnsupportedType),  # type: ignore[arg-type]  # what a user may well pass
            ([Put("k", b"", if_version=Version(b"short"))], UnsupportedType),
            ([Delete("k", if_version=Version(b"short"))], UnsupportedType),
            ([Delete("k", if_version=stale)], UnsupportedType),
            (["k"], UnsupportedType),
            ([Put("k", bytes(store.capabilities.max_value_bytes + 1))], RecordTooLarge),
            ([Put("k", half), Put("l", half)], RecordTooLarge),
            ([Put("k", b"", write_id=new_version())], ConfigurationError),
            ([Put("k", b"1"), Put("k", b"2")], ConfigurationError),
            ([Put("k", b"1"), Delete("k")], ConfigurationError),
            ([Delete(key)], ConfigurationError),
        ]
        for writes, error in malformed:
            with pytest.raises(error):
                await atomic.write_all([Put(key, b"good"), *writes])
        with pytest.raises(UnsupportedType):
            await atomic.write_all([Put(key, b"good")], write_id=Version(b"short"))
        assert await store.get(key) is None

    async def test_transfers_at_once_keep_the_sum(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        chance = random.Random(20_261_125)
        accounts = [f"{prefix}{number}" for number in range(5)]
        await store.put_many(Put(account, b"100") for account in accounts)

        async def transfer() -> None:
            source, target = chance.sample(accounts, 2)
            amount = chance.randrange(10)
            while True:
                found = await store.get_many([source, target])
                if int(found[source].value) < amount:
                    return
                moved = ((source, -amount), (target, amount))
                try:
                    await atomic.write_all(
                        Put(key, b"%d" % (int(found[key].value) + sum_), if_version=found[key].version)
                        for key, sum_ in moved
                    )
                except BatchRefused:
                    continue
                return

        for _ in range(3):
            await asyncio.gather(*(transfer() for _ in range(15)))
        found = await store.get_many(accounts)
        balances = [int(found[account].value) for account in accounts]
        assert sum(balances) == 500
        assert min(balances) >= 0
        assert balances != [100] * 5

    async def test_nobody_sees_a_part(self, store: SessionStore, prefix: str) -> None:
        """Who has read one record at a number finds the other at that or a later one."""
        atomic = _atomic(store)
        keys = [f"{prefix}a", f"{prefix}b"]
        await atomic.write_all(Put(key, b"0") for key in keys)

        async def read(key: str) -> int:
            record = await store.get(key)
            assert record is not None
            return int(record.value)

        async def read_both(first: str, second: str) -> None:
            earlier = 0
            while earlier < 25:
                earlier = await read(first)
                assert await read(second) >= earlier
                await asyncio.sleep(0)

        async def count() -> None:
            for number in range(1, 26):
                await atomic.write_all(Put(key, b"%d" % number) for key in keys)
                await asyncio.sleep(0)

        await asyncio.gather(count(), read_both(*keys), read_both(*reversed(keys)))

    async def test_cancelled_write_alls_leave_no_part(self, store: SessionStore, prefix: str) -> None:
        atomic = _atomic(store)
        chance = random.Random(20_261_126)
        keys = [f"{prefix}{number}" for number in range(4)]

        async def write(number: int) -> None:
            # Some are long, and travel another way where a driver has two.
            await atomic.write_all(Put(key, b"%d " % number * (1 + number % 3 * 4_000)) for key in keys)

        for round_ in range(5):
            tasks = [asyncio.create_task(write(10 * round_ + number)) for number in range(10)]
            await give_some_up(tasks, 6, chance)
            # A write that was given up may still be on its way; nothing overtakes it.
            receipt = await atomic.write_all(Put(key, b"last") for key in keys)
            assert await store.get_many(keys) == dict.fromkeys(keys, Record(b"last", receipt.version))

    async def test_a_closed_store_does_not_write_all(self, key: str) -> None:
        async with self.open_store() as store:
            atomic = _atomic(store)
        with pytest.raises(StoreUnavailable) as caught:
            await atomic.write_all([Put(key, b"value")])
        assert caught.value.temporary is False

    @settings(
        deadline=None,
        max_examples=15,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.function_scoped_fixture],
    )
    @given(batches=atomic_batches)
    async def test_write_all_agrees_with_a_dictionary(
        self, prefix: str, batches: list[dict[str, tuple[str, str]] | int]
    ) -> None:
        async with self.open_store() as store:
            model = AtomicModel(_atomic(store), f"{prefix}{uuid.uuid4().hex}:")
            for batch in batches:
                if isinstance(batch, dict):
                    await model.write(batch)
                else:
                    await model.repeat(batch)
                await model.check()
            await store.delete_many(list(model.records))
