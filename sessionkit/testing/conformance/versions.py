"""Versions: compare-and-set, and writes that are safe to repeat."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sessionkit.errors import Applied, UnsupportedType, VersionConflict
from sessionkit.store import ABSENT, RING_SIZE, Receipt, Record, SessionStore, Version, new_version
from sessionkit.testing.conformance.base import StoreTests


class VersionTests(StoreTests):
    """``if_version`` and ``write_id``."""

    async def test_a_put_at_the_current_version_is_applied(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1", if_version=ABSENT)
        second = await store.put(key, b"2", if_version=first.version)
        assert await store.get(key) == Record(b"2", second.version)

    async def test_a_put_at_an_old_version_conflicts(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1")
        second = await store.put(key, b"2")
        with pytest.raises(VersionConflict) as caught:
            await store.put(key, b"3", if_version=first.version)
        assert caught.value.current == second.version
        assert caught.value.applied is Applied.NO
        assert caught.value.temporary is False
        assert await store.get(key) == Record(b"2", second.version)

    async def test_a_put_at_absent_conflicts_with_a_record(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1")
        with pytest.raises(VersionConflict) as caught:
            await store.put(key, b"2", if_version=ABSENT)
        assert caught.value.current == first.version
        assert await store.get(key) == Record(b"1", first.version)

    async def test_a_put_at_a_version_conflicts_with_absence(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1")
        await store.delete(key)
        with pytest.raises(VersionConflict) as caught:
            await store.put(key, b"2", if_version=first.version)
        assert caught.value.current is ABSENT
        assert await store.get(key) is None

    async def test_a_conflict_leaves_the_expiry(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1", expires_in=0.2)
        with pytest.raises(VersionConflict):
            await store.put(key, b"2", expires_in=1000, if_version=ABSENT)
        assert await store.get(key) == Record(b"1", first.version)
        await self.advance(0.3)
        assert await store.get(key) is None

    async def test_delete_at_a_version(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1")
        second = await store.put(key, b"2")
        with pytest.raises(VersionConflict) as caught:
            await store.delete(key, if_version=first.version)
        assert caught.value.current == second.version
        assert await store.get(key) == Record(b"2", second.version)
        assert await store.delete(key, if_version=second.version) is True
        assert await store.delete(key, if_version=second.version) is False

    async def test_a_repeated_write_is_applied_once(self, store: SessionStore, key: str) -> None:
        base = await store.put(key, b"base")
        write_id = new_version()
        first = await store.put(key, b"mine", if_version=base.version, write_id=write_id)
        again = await store.put(key, b"mine", if_version=base.version, write_id=write_id)
        assert first == again == Receipt(write_id)
        assert await store.get(key) == Record(b"mine", write_id)

    async def test_a_repeated_create_is_applied_once(self, store: SessionStore, key: str) -> None:
        write_id = new_version()
        for _ in range(2):
            assert await store.put(key, b"mine", if_version=ABSENT, write_id=write_id) == Receipt(write_id)

    @pytest.mark.parametrize("later", range(1, RING_SIZE))
    async def test_a_late_repeat_does_not_undo_newer_writes(
        self, store: SessionStore, key: str, later: int
    ) -> None:
        write_id = new_version()
        await store.put(key, b"mine", write_id=write_id)
        newest = [await store.put(key, b"newer %d" % number) for number in range(later)][-1]
        assert await store.put(key, b"mine", write_id=write_id) == Receipt(write_id)
        assert await store.get(key) == Record(b"newer %d" % (later - 1), newest.version)

    async def test_a_write_older_than_the_ring_is_a_conflict(self, store: SessionStore, key: str) -> None:
        base = await store.put(key, b"base")
        write_id = new_version()
        await store.put(key, b"mine", if_version=base.version, write_id=write_id)
        newest = [await store.put(key, b"newer %d" % number) for number in range(RING_SIZE)][-1]
        with pytest.raises(VersionConflict) as caught:
            await store.put(key, b"mine", if_version=base.version, write_id=write_id)
        assert caught.value.current == newest.version

    async def test_a_new_record_remembers_no_old_writes(self, store: SessionStore, key: str) -> None:
        write_id = new_version()
        await store.put(key, b"old", write_id=write_id)
        await store.delete(key)
        await store.put(key, b"new", if_version=ABSENT)
        await store.put(key, b"newer", write_id=write_id)
        assert await store.get(key) == Record(b"newer", write_id)

    @pytest.mark.parametrize("bad", [b"", b"short", b"far too long", "12345678", 5], ids=repr)
    async def test_what_is_no_version_is_refused(self, store: SessionStore, key: str, bad: Version) -> None:
        for call in (
            store.put(key, b"value", if_version=bad),
            store.put(key, b"value", write_id=bad),
            store.delete(key, if_version=bad),
        ):
            with pytest.raises(UnsupportedType):
                await call
        assert await store.get(key) is None

    async def test_absent_is_no_version_to_delete(self, store: SessionStore, key: str) -> None:
        with pytest.raises(UnsupportedType):
            await store.delete(key, if_version=cast("Version", ABSENT))

    async def test_of_many_creators_one_wins(self, store: SessionStore, key: str) -> None:
        results = await asyncio.gather(
            *(store.put(key, b"%d" % number, if_version=ABSENT) for number in range(50)),
            return_exceptions=True,
        )
        winners = [number for number, result in enumerate(results) if isinstance(result, Receipt)]
        assert len(winners) == 1
        assert all(isinstance(result, (Receipt, VersionConflict)) for result in results)
        record = await store.get(key)
        assert record is not None
        assert record.value == b"%d" % winners[0]

    async def test_a_shared_counter_loses_no_increment(self, store: SessionStore, key: str) -> None:
        async def increment() -> None:
            while True:
                record = await store.get(key)
                assert record is not None
                try:
                    await store.put(key, b"%d" % (int(record.value) + 1), if_version=record.version)
                except VersionConflict:
                    continue
                return

        await store.put(key, b"0")
        await asyncio.gather(*(increment() for _ in range(30)))
        record = await store.get(key)
        assert record is not None
        assert record.value == b"30"
