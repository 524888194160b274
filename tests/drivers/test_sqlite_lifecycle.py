"""Several event loops, cancelled callers, and the end of a store."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import StoreUnavailable
from sessionkit.store import Put
from sessionkit_sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "bot.db") as store:
        yield store


def rows(file: Path, query: str = "SELECT key FROM records ORDER BY key") -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def test_one_store_serves_one_loop_after_another(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bot.db")

    async def count() -> int:
        record = await store.get("n")
        number = 1 + (int(record.value) if record else 0)
        await store.put("n", b"%d" % number)
        return number

    assert [asyncio.run(count()) for _ in range(3)] == [1, 2, 3]
    asyncio.run(store.aclose())


async def test_one_store_serves_several_loops_at_once(store: SqliteStore) -> None:
    async def write(name: str) -> None:
        await asyncio.gather(*(store.put(f"{name}{n}", name.encode()) for n in range(50)))
        for n in range(50):
            record = await store.get(f"{name}{n}")
            assert record is not None
            assert record.value == name.encode()

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, write(name)) for name in "abcd"))
    assert len([key async for key in store.scan("")]) == 200


async def test_a_storm_of_cancels_crosses_no_answers(store: SqliteStore) -> None:
    keys = [f"k{n}" for n in range(50)]
    await store.put_many([Put(key, key.encode()) for key in keys])

    async def own(key: str) -> None:
        await store.put(key, key.encode())
        record = await store.get(key)
        assert record is not None
        assert record.value == key.encode()

    for round_ in range(20):
        tasks = [asyncio.create_task(own(key)) for key in keys]
        for _ in range(round_ % 5):
            await asyncio.sleep(0)
        for task in tasks[round_ % 2 :: 2]:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError)


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bot.db")
    writes = [asyncio.create_task(store.put(f"k{n}", b"")) for n in range(200)]
    await asyncio.sleep(0)
    await store.aclose()
    assert len(await asyncio.gather(*writes)) == 200
    assert len(rows(tmp_path / "bot.db")) == 200
    assert [path.name for path in files(tmp_path)] == ["bot.db"], "the log is folded in and removed"


async def test_a_closed_store_says_so(store: SqliteStore) -> None:
    await store.put("a", b"")
    await store.aclose()
    await asyncio.gather(store.aclose(), store.aclose())

    async def scan() -> None:
        [key async for key in store.scan("")]

    async def lock() -> None:
        async with store.lock("a"):
            pass

    for call in (store.get("a"), store.put("a", b""), store.get_many(["a"]), store.ping(), scan(), lock()):
        with pytest.raises(StoreUnavailable, match="is closed") as caught:
            await call
        assert not caught.value.temporary
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sessionkit-sqlite")]


async def test_a_store_that_is_forgotten_gives_up_its_threads(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bot.db")
    await store.put("a", b"")
    await store.ping()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("sessionkit-sqlite")]
    assert len(threads) == 2
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
