"""The lanes: group commit, failures inside a group, deadlines, bounds, and a file that fills up."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import pytest

from sessionkit.errors import (
    Applied,
    Backpressure,
    RecordTooLarge,
    StoreTimeout,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.store import ABSENT, Receipt
from sessionkit_sqlite import SqliteStore
from sessionkit_sqlite.reader import Reader
from sessionkit_sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bot.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(file) as store:
        await store.put("first", b"")
        yield store


class Stop:
    """Work that keeps its lane busy until it is told to go on."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, connection: sqlite3.Connection, now: int) -> None:
        self.started.set()
        assert self.go_on.wait(30)


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.go_on.set()


async def stopped(writer: Writer | Reader, stop: Stop) -> asyncio.Task[None]:
    """Start work that keeps the lane busy, and return once it does."""
    task = asyncio.create_task(writer.run(stop))
    await asyncio.to_thread(stop.started.wait, 30)
    return task


async def statements(store: SqliteStore) -> list[str]:
    """Return the list in which everything that the writer's connection executes from now on appears."""
    log: list[str] = []
    await store._writer.run(lambda connection, _: connection.set_trace_callback(log.append))
    log.clear()
    return log


def execute(connection: sqlite3.Connection, now: int, *, script: list[str]) -> None:
    for statement in script:
        connection.execute(statement)


def broken(connection: sqlite3.Connection, now: int) -> NoReturn:
    connection.execute(
        "INSERT INTO records (key, ring, value) VALUES ('half done', x'0011223344556677', x'')"
    )
    raise ZeroDivisionError


async def test_writes_that_arrive_together_share_one_commit(store: SqliteStore) -> None:
    log = await statements(store)
    await asyncio.gather(*(store.put(f"k{n}", b"") for n in range(128)))
    assert log.count("COMMIT") == 1
    await asyncio.gather(*(store.put(f"k{n}", b"") for n in range(2500)))
    assert log.count("COMMIT") == 1 + 3


async def test_writes_that_arrive_during_a_commit_share_the_next(store: SqliteStore, stop: Stop) -> None:
    log = await statements(store)
    blocked = await stopped(store._writer, stop)
    writes = [asyncio.create_task(store.put(f"k{n}", b"")) for n in range(100)]
    await asyncio.sleep(0)
    stop.go_on.set()
    await asyncio.gather(blocked, *writes)
    assert log.count("COMMIT") == 2


async def test_what_a_tick_brings_is_not_taken_before_the_tick_has_ended(
    store: SqliteStore, stop: Stop
) -> None:
    log = await statements(store)
    blocked = await stopped(store._writer, stop)
    taken = threading.Event()

    async def hold_the_tick() -> None:
        stop.go_on.set()
        assert not taken.wait(0.2)

    await asyncio.gather(
        blocked, store._writer.run(lambda *_: taken.set()), hold_the_tick(), store.put("late", b"")
    )
    assert log.count("COMMIT") == 2


async def test_reads_that_arrive_together_share_one_snapshot(store: SqliteStore) -> None:
    log: list[str] = []
    await store._reader.run(lambda connection, _: connection.set_trace_callback(log.append))
    log.clear()
    await asyncio.gather(*(store.get("first") for _ in range(128)))
    assert log.count("BEGIN") == 1


async def test_an_error_of_ours_in_a_group_concerns_its_caller_only(store: SqliteStore) -> None:
    log = await statements(store)
    results = await asyncio.gather(
        *(store.put(key, b"", if_version=ABSENT) for key in ("a", "first", "b", "a")), return_exceptions=True
    )
    assert [type(result) for result in results] == [Receipt, VersionConflict, Receipt, VersionConflict]
    assert log.count("COMMIT") == 1


async def test_an_error_of_sqlite_in_a_group_concerns_its_caller_only(store: SqliteStore) -> None:
    half_done = ["UPDATE records SET value = x'ff' WHERE key = 'first'", "INSERT INTO nowhere VALUES (1)"]
    results = await asyncio.gather(
        store.put("a", b"1"),
        store._writer.run(partial(execute, script=half_done)),
        store.put("b", b"2"),
        store.put("first", b"3", if_version=ABSENT),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Receipt, StoreUnavailable, Receipt, VersionConflict]
    records = await store.get_many(["a", "b", "first"])
    assert {key: record.value for key, record in records.items()} == {"a": b"1", "b": b"2", "first": b""}


async def test_a_fault_of_the_program_reaches_its_caller_only(store: SqliteStore) -> None:
    good, bad = await asyncio.gather(store.put("a", b""), store._writer.run(broken), return_exceptions=True)
    assert isinstance(good, Receipt)
    assert isinstance(bad, ZeroDivisionError)
    assert await store.get("half done") is None


async def test_a_record_too_big_for_this_sqlite_fails_alone(store: SqliteStore) -> None:
    await store._writer.run(lambda connection, _: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000))
    results = await asyncio.gather(
        *(store.put(key, bytes(size)) for key, size in [("a", 10), ("big", 20_000), ("b", 10)]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Receipt, RecordTooLarge, Receipt]
    assert isinstance(await store.put("c", b""), Receipt)


async def test_a_clock_that_fails_leaves_the_store_usable(file: Path) -> None:
    times: list[float] = []
    async with SqliteStore(file, clock=lambda: times[0]) as store:
        for call in (store.put("a", b""), store.get("a")):
            with pytest.raises(IndexError):
                await call
        times.append(1.0)
        await store.put("a", b"")
        assert await store.get("a") is not None


async def test_a_commit_that_fails_fails_its_whole_group_and_no_other(store: SqliteStore) -> None:
    orphan_check = [
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        "COMMIT",
        "PRAGMA foreign_keys = ON",
        "BEGIN IMMEDIATE",
    ]
    await store._writer.run(partial(execute, script=orphan_check))
    results = await asyncio.gather(
        store.put("a", b"1"),
        store._writer.run(partial(execute, script=["INSERT INTO child VALUES (1)"])),
        store.put("first", b"", if_version=ABSENT),
        return_exceptions=True,
    )
    for result in results:
        assert isinstance(result, StoreUnavailable)
        assert result.applied is Applied.MAYBE
    assert len({id(result) for result in results}) == 3
    assert await store.get("a") is None
    await store.put("a", b"2")
    assert await store.get("a") is not None


# Deadlines, bounds, cancelling


async def test_a_lock_of_another_process_is_waited_for_and_no_longer_than_the_timeout(file: Path) -> None:
    async with SqliteStore(file, timeout=0.2) as store:
        await store.put("a", b"before")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            for result in await asyncio.gather(
                *(store.put("a", b"never") for _ in range(20)), return_exceptions=True
            ):
                assert isinstance(result, StoreTimeout)
                assert result.temporary
                assert result.applied is Applied.NO
            assert time.monotonic() - started >= 0.15
            record = await store.get("a")
            assert record is not None, "reads do not wait for writers"
            assert record.value == b"before"
            waiting = asyncio.create_task(store.put("a", b"after"))
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
            await waiting
        record = await store.get("a")
        assert record is not None
        assert record.value == b"after"


async def test_closing_does_not_wait_for_ever_for_another_process(file: Path) -> None:
    store = SqliteStore(file, timeout=0.5)
    await store.put("a", b"")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writes = [asyncio.create_task(store.put("a", b"")) for _ in range(20_000)]
        await asyncio.sleep(0)
        async with asyncio.timeout(8):  # that many groups, each of which waited anew, would take 10
            await store.aclose()
        for result in await asyncio.gather(*writes, return_exceptions=True):
            assert isinstance(result, StoreTimeout)


async def test_a_write_cancelled_while_the_lock_is_awaited_is_dropped(store: SqliteStore, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        begun = threading.Event()
        await store._writer.run(lambda connection, _: connection.set_trace_callback(lambda _: begun.set()))
        begun.clear()
        other.execute("BEGIN IMMEDIATE")
        dropped = asyncio.create_task(store.put("dropped", b""))
        assert await asyncio.to_thread(begun.wait, 30)
        dropped.cancel()
        await asyncio.wait([dropped])
        other.execute("ROLLBACK")
    await store.put("kept", b"")
    assert [key async for key in store.scan("")] == ["first", "kept"]


@pytest.mark.parametrize(("lane", "applied"), [(Writer, Applied.MAYBE), (Reader, Applied.NO)])
async def test_what_had_started_when_time_was_up(
    file: Path, stop: Stop, lane: type[Writer | Reader], applied: Applied
) -> None:
    one = lane(str(file), clock=time.time, timeout=0.1)
    with pytest.raises(StoreTimeout) as caught:
        await one.run(stop)
    assert caught.value.applied is applied
    with pytest.raises(StoreTimeout) as caught:
        await one.run(stop)
    assert caught.value.applied is Applied.NO, "it waited behind the other"
    stop.go_on.set()
    one.stop()
    await one.stopped()


async def test_past_its_bound_the_queue_pushes_back(file: Path, stop: Stop) -> None:
    writer = Writer(str(file), clock=time.time, timeout=30, waiting=3)
    blocked = await stopped(writer, stop)
    waiting = [asyncio.create_task(writer.run(lambda *_: None)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Backpressure) as caught:
        await writer.run(lambda *_: None)
    assert caught.value.temporary
    assert caught.value.applied is Applied.NO
    stop.go_on.set()
    await asyncio.gather(blocked, *waiting)
    await writer.run(lambda *_: None)
    writer.stop()
    await writer.stopped()


async def test_a_cancelled_write_that_has_not_started_is_dropped(store: SqliteStore, stop: Stop) -> None:
    blocked = await stopped(store._writer, stop)
    dropped, kept = (
        asyncio.create_task(store.put("dropped", b"")),
        asyncio.create_task(store.put("kept", b"")),
    )
    await asyncio.sleep(0)
    dropped.cancel()
    await asyncio.wait([dropped])
    stop.go_on.set()
    await asyncio.gather(blocked, kept)
    assert dropped.cancelled()
    assert [key async for key in store.scan("")] == ["first", "kept"]


async def test_a_cancelled_write_that_has_started_is_finished(store: SqliteStore, stop: Stop) -> None:
    def write(connection: sqlite3.Connection, now: int) -> None:
        stop(connection, now)
        connection.execute("UPDATE records SET value = x'31' WHERE key = 'first'")

    started = asyncio.create_task(store._writer.run(write))
    await asyncio.to_thread(stop.started.wait, 30)
    started.cancel()
    await asyncio.wait([started])
    stop.go_on.set()
    await store.touch("first", expires_in=None)
    record = await store.get("first")
    assert record is not None
    assert record.value == b"1"
