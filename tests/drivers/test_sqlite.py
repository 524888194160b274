"""What is special to the SQLite store, beside the contract that the conformance kit checks."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import (
    BatchFailed,
    BatchRefused,
    CorruptRecord,
    InvalidKey,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.store import ABSENT, RING_SIZE, Delete, Put, Receipt, Record, SessionStore, new_version
from sessionkit.testing import ManualClock, SessionStoreConformance
from sessionkit_sqlite import SqliteStore
from sessionkit_sqlite.operations import SCAN_PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class TestSqliteConformance(SessionStoreConformance):
    virtual_time = True

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.file = tmp_path / "bot.db"
        self.clock = ManualClock()

    def open_store(self) -> SessionStore:
        return SqliteStore(self.file, clock=self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000.1)


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "bot.db", clock=clock) as store:
        yield store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bot.db"


def rows(file: Path, query: str = "SELECT key FROM records ORDER BY key") -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def change(file: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


# Expiry


async def test_a_record_lives_to_the_millisecond(store: SqliteStore, clock: ManualClock) -> None:
    await store.put("a", b"1", expires_in=0.1)
    clock.advance(0.099)
    assert await store.get("a") is not None
    clock.advance(0.001)
    assert await store.get("a") is None
    assert await store.get_many(["a"]) == {}
    assert [key async for key in store.scan("")] == []
    assert not await store.touch("a", expires_in=None)
    assert await store.get("a", renew_for=9) is None
    assert not await store.delete("a")
    assert await store.delete_many(["a"]) == 0


async def test_an_expired_record_is_absent_for_compare_and_set_and_its_ring_starts_anew(
    store: SqliteStore, clock: ManualClock
) -> None:
    write_id = new_version()
    old = await store.put("a", b"old", expires_in=1, write_id=write_id)
    clock.advance(1)
    with pytest.raises(VersionConflict) as conflict:
        await store.put("a", b"new", if_version=old.version)
    assert conflict.value.current is ABSENT
    assert not await store.delete("a", if_version=new_version())
    await store.put("a", b"new", if_version=ABSENT, write_id=write_id)
    assert await store.get("a") == Record(b"new", write_id)


async def test_expired_rows_leave_the_file_with_later_writes_and_never_by_reads(
    store: SqliteStore, clock: ManualClock, file: Path
) -> None:
    await store.put_many([Put(f"old:{n:04}", b"", 1) for n in range(600)])
    await store.put("kept", b"", expires_in=100)
    clock.advance(1)
    await store.get_many([f"old:{n:04}" for n in range(600)])
    assert [key async for key in store.scan("")] == ["kept"]
    assert len(rows(file)) == 601
    left = []
    for n in range(3):
        await store.put("live", b"%d" % n)
        left.append(len(rows(file)))
    assert left == [351, 100, 2]


async def test_expired_rows_leave_the_file_in_quiet_times(
    store: SqliteStore, clock: ManualClock, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_many([Put(f"old:{n:04}", b"", 1) for n in range(2000)])
    clock.advance(1)
    monkeypatch.setattr("sessionkit_sqlite.writer.Writer.rest", 0.001)
    await store.touch("none", expires_in=1)  # wakes the writer, which then rests by the new measure
    async with asyncio.timeout(10):
        while rows(file):
            await store.ping()


async def test_the_fence_of_a_lock_survives_its_release_and_a_clock_that_steps_back(
    store: SqliteStore, clock: ManualClock, file: Path
) -> None:
    async with store.lock("a") as first:
        assert first.fence == round(clock.now * 1_000_000)
    clock.advance(-3600)
    async with store.lock("a") as second:
        assert second.fence == first.fence + 1
    clock.advance(3 * 86_400)
    async with store.lock("b"):
        assert rows(file, "SELECT key FROM locks") == [("b",)], "forgotten once the clock alone gives more"
    async with store.lock("a") as third:
        assert third.fence > second.fence


async def test_a_lock_of_a_dead_holder_is_free_after_its_lease(
    store: SqliteStore, clock: ManualClock, tmp_path: Path
) -> None:
    async with SqliteStore(tmp_path / "bot.db", clock=clock) as other, store.lock("a", lease=30) as dead:
        clock.advance(30)
        async with other.lock("a", wait=0) as heir:
            assert heir.fence > dead.fence


# Records


async def test_the_ring_remembers_the_last_writes_and_no_more(store: SqliteStore) -> None:
    ids = [new_version() for _ in range(RING_SIZE + 1)]
    for n, write_id in enumerate(ids):
        assert await store.put("a", b"%d" % n, write_id=write_id) == Receipt(write_id)
    for write_id in ids[1:]:
        assert await store.put("a", b"again", write_id=write_id, if_version=ABSENT) == Receipt(write_id)
    assert await store.get("a") == Record(b"%d" % RING_SIZE, ids[-1])
    with pytest.raises(VersionConflict):
        await store.put("a", b"again", write_id=ids[0], if_version=ABSENT)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET value = 'text'",
        "UPDATE records SET ring = 'text'",
        "UPDATE records SET ring = x''",
        "UPDATE records SET ring = x'00112233445566'",
        "UPDATE records SET ring = zeroblob(40)",
    ],
)
async def test_a_row_of_another_hand_is_reported_and_kept(
    store: SqliteStore, file: Path, damage: str
) -> None:
    await store.put("a", b"1")
    change(file, damage)
    before = rows(file, "SELECT * FROM records")
    for call in (store.get("a"), store.get("a", renew_for=1), store.put("a", b"2"), store.get_many(["a"])):
        with pytest.raises(CorruptRecord, match="'a'"):
            await call
    with pytest.raises(BatchFailed) as failed:
        await store.put_many([Put("a", b"2"), Put("b", b"2")])
    assert isinstance(failed.value.results[0], CorruptRecord)
    assert isinstance(failed.value.results[1], Receipt)
    assert rows(file, "SELECT * FROM records WHERE key = 'a'") == before


async def test_a_row_of_another_hand_refuses_all_that_is_written_with_it(
    store: SqliteStore, file: Path
) -> None:
    await store.put("a", b"1")
    change(file, "UPDATE records SET value = 'text'")
    before = rows(file, "SELECT * FROM records")
    for write in (Put("a", b"2"), Put("a", b"2", None, ABSENT), Delete("a", new_version())):
        with pytest.raises(BatchRefused) as refused:
            await store.write_all([Put("b", b"2"), write])
        assert {key: type(error) for key, error in refused.value.refusals.items()} == {"a": CorruptRecord}
        assert rows(file, "SELECT * FROM records") == before
    receipt = await store.write_all([Put("moved", b"2"), Delete("a")])
    assert await store.get_many(["a", "moved"]) == {"moved": Record(b"2", receipt.version)}


async def test_a_refused_write_all_undoes_nothing_of_others_that_share_its_commit(store: SqliteStore) -> None:
    await store.put("taken", b"")
    before, refusal, after = await asyncio.gather(
        store.put("before", b"1"),
        store.write_all([Put("mine", b"1"), Put("taken", b"1", None, ABSENT)]),
        store.write_all([Put("after", b"1"), Delete("taken")]),
        return_exceptions=True,
    )
    assert isinstance(before, Receipt)
    assert isinstance(refusal, BatchRefused)
    assert isinstance(after, Receipt)
    found = await store.get_many(["before", "mine", "taken", "after"])
    assert found == {"before": Record(b"1", before.version), "after": Record(b"1", after.version)}


async def test_a_write_all_that_fails_half_way_is_undone_and_nothing_of_others(
    store: SqliteStore, file: Path
) -> None:
    await store.put("old", b"")
    change(
        file,
        "CREATE TRIGGER bad BEFORE INSERT ON records WHEN new.key = 'bad' BEGIN SELECT RAISE(ABORT, ''); END",
    )
    before, failure, after = await asyncio.gather(
        store.put("before", b"1"),
        store.write_all([Put("first", b"1"), Put("old", b"1"), Put("bad", b"1")]),
        store.write_all([Put("after", b"1"), Put("later", b"1")]),
        return_exceptions=True,
    )
    assert isinstance(failure, StoreUnavailable)
    assert isinstance(before, Receipt)
    assert isinstance(after, Receipt)
    found = await store.get_many(["before", "first", "old", "bad", "after", "later"])
    assert found.keys() == {"before", "old", "after", "later"}
    assert found["old"].value == b""


async def test_batches_reach_past_what_one_statement_takes(store: SqliteStore) -> None:
    keys = [f"k{n}" for n in range(3000)]
    receipts = await store.put_many(Put(key, key.encode()) for key in keys)
    assert len({receipt.version for receipt in receipts}) == 3000
    found = await store.get_many([*keys, *keys, "absent"])
    assert found == {key: Record(key.encode(), r.version) for key, r in zip(keys, receipts, strict=True)}
    assert await store.delete_many([*keys, *keys, "absent"]) == 3000


async def test_a_batch_of_large_values_is_cut_into_several_commits(store: SqliteStore) -> None:
    value = bytes(400_000)
    receipts = await store.put_many([Put(f"k{n}", value) for n in range(7)])
    assert len(receipts) == 7
    assert len(await store.get_many([f"k{n}" for n in range(7)])) == 7


async def test_a_batch_reports_each_put_by_itself(store: SqliteStore) -> None:
    puts = [Put(f"k{n}", b"", if_version=ABSENT) for n in range(600)]
    await store.put("k300", b"before")
    with pytest.raises(BatchFailed) as failed:
        await store.put_many(puts)
    results = failed.value.results
    assert isinstance(results[300], VersionConflict)
    assert all(isinstance(result, Receipt) for n, result in enumerate(results) if n != 300)


@pytest.mark.parametrize(
    "prefix",
    [
        "a%",
        "a_",
        "a*",
        "a?",
        "a[",
        "é",
        "\ud7ff",
        "\ue000",
        "\U0010ffff",
        "x\U0010ffff",
        "\U0010ffff" * 2,
        "a\0",
    ],
)
async def test_scan_compares_prefixes_as_text(store: SqliteStore, prefix: str) -> None:
    keys = {
        "a",
        "ab",
        "b",
        "é",
        "e\u0301",
        "~",
        "\ud7ff",
        "\ue000",
        "\uffff",
        "\U00010000",
        "\U0010ffff",
        "x",
        "y",
    }
    keys |= {prefix, f"{prefix}1", f"{prefix}\U0010ffff", f"{prefix}\0"}
    await store.put_many([Put(key, b"") for key in keys])
    expected = sorted(key for key in keys if key.startswith(prefix))
    assert [key async for key in store.scan(prefix)] == expected


async def test_scan_refuses_a_prefix_that_is_not_text(store: SqliteStore) -> None:
    for prefix in ("\ud800", None, b"a"):
        with pytest.raises(InvalidKey):
            [key async for key in store.scan(prefix)]  # type: ignore[arg-type]  # what a user may pass


async def test_scan_goes_on_over_pages_of_expired_rows_and_through_changes(
    store: SqliteStore, clock: ManualClock
) -> None:
    await store.put_many([Put(f"a{n:05}", b"", 1) for n in range(2 * SCAN_PAGE)])
    await store.put_many([Put(f"b{n:05}", b"") for n in range(SCAN_PAGE + 1)])
    clock.advance(1)
    seen = []
    async for key in store.scan(""):
        seen.append(key)
        if len(seen) == 1:
            await store.delete("b00500")
            await store.put("c", b"")
    assert seen == [f"b{n:05}" for n in range(SCAN_PAGE)] + ["c"]


async def test_a_scan_left_open_holds_nothing(store: SqliteStore, file: Path) -> None:
    await store.put_many([Put(f"k{n:05}", b"") for n in range(SCAN_PAGE + 1)])
    scan = store.scan("")
    assert await anext(scan) == "k00000"
    (busy, *_) = rows(file, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
    assert busy == 0
