"""Files that are not ours, damaged, out of reach, full or gone: one clear error, and nothing is changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import Applied, BatchFailed, StoreUnavailable
from sessionkit.store import Put, Receipt
from sessionkit_sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

CHILD = Path(__file__).with_name("sqlite_child.py")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bot.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(file) as store:
        await store.put("first", b"")
        yield store


def execute(connection: sqlite3.Connection, now: int, *, script: list[str]) -> None:
    for statement in script:
        connection.execute(statement)


def text(file: Path) -> None:
    file.write_text("these are notes, not a database\n" * 100)


def one_byte(file: Path) -> None:
    file.write_bytes(b"x")


def zeros(file: Path) -> None:
    file.write_bytes(bytes(8192))


def foreign(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE records (key TEXT)")


def foreign_by_id(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id = 42")
        connection.execute("PRAGMA user_version = 1")


def foreign_with_a_log(file: Path) -> None:
    """Leave what a killed application leaves: commits that are only in its write-ahead log."""
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA journal_mode = WAL'); c.execute('CREATE TABLE t (x)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, file], check=True)
    assert file.with_name(f"{file.name}-wal").stat().st_size


def newer(file: Path) -> None:
    ours(file)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 2")


def ours(file: Path) -> None:
    async def fill() -> None:
        async with SqliteStore(file) as store:
            await asyncio.gather(*(store.put(f"k{n}", bytes(500)) for n in range(100)))

    asyncio.run(fill())


def damaged(file: Path) -> None:
    ours(file)
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xa5" * (os.path.getsize(file) - 4096))


def truncated(file: Path) -> None:
    ours(file)
    os.truncate(file, 5000)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (text, "not a SQLite database"),
        (one_byte, "another application's file"),
        (zeros, "not a SQLite database"),
        (foreign, "another application's file"),
        (foreign_by_id, "another application's file"),
        (foreign_with_a_log, "another application's file"),
        (newer, "update sessionkit"),
        (damaged, "damaged"),
        (truncated, "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    file = tmp_path / "bot.db"
    make(file)
    before = content(tmp_path)

    async def use() -> None:
        async with SqliteStore(file) as store:
            for call in (store.get("k1"), store.put("k1", b""), store.get("k1", renew_for=1)):
                with pytest.raises(StoreUnavailable, match=says) as caught:
                    await call
                assert not caught.value.temporary
                assert str(file) in str(caught.value)

    asyncio.run(use())
    assert content(tmp_path) == before


async def test_an_empty_file_is_taken_as_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "bot.db"
    await asyncio.to_thread(file.touch)
    async with SqliteStore(file) as store:
        await store.put("a", b"")
        assert await store.get("a") is not None


async def test_a_missing_directory_is_named_and_can_be_made_later(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "data" / "bot.db") as store:
        for call in (store.put("a", b""), store.get("a"), store.ping()):
            with pytest.raises(StoreUnavailable, match=r"directory .*data does not exist") as caught:
                await call
            assert not caught.value.temporary
        await asyncio.to_thread((tmp_path / "data").mkdir)
        await store.put("a", b"")


async def test_a_directory_is_no_file(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        with pytest.raises(StoreUnavailable, match="is a directory") as caught:
            await store.put("a", b"")
        assert not caught.value.temporary


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.mark.skipif(sys.platform == "win32", reason="file modes and users are those of POSIX")
@pytest.mark.parametrize(
    ("directory_mode", "file_mode", "says"),
    [
        (0o555, None, "may not write in"),
        (0o555, 0o666, "may not write in"),
        (0o777, 0o444, "may not read and write the file"),
        (0o777, 0o222, "may not read and write the file"),
    ],
)
def test_missing_permissions_are_named(
    open_directory: Path, directory_mode: int, file_mode: int | None, says: str
) -> None:
    file = open_directory / "bot.db"
    if file_mode is not None:
        ours(file)
        file.chmod(file_mode)
    before = content(open_directory)
    open_directory.chmod(directory_mode)
    command = [sys.executable, "-W", "error", str(CHILD), "unprivileged", str(file)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    open_directory.chmod(0o755)
    assert child.stdout.splitlines() == [f"StoreUnavailable temporary=False {line}" for line in [says] * 2]
    assert content(open_directory) == before


# A file that cannot grow, or is gone


async def test_a_full_file_refuses_what_does_not_fit_and_keeps_the_rest(store: SqliteStore) -> None:
    await store.put_many([Put(f"k{n}", bytes(1000)) for n in range(50)])
    await store._writer.run(
        partial(execute, script=["PRAGMA max_page_count = 1"])
    )  # 1 means: no more than now
    results = await asyncio.gather(
        store.put("first", b"changed in place"),
        *(store.put(f"large{n}", bytes(100_000)) for n in range(5)),
        store.touch("k1", expires_in=100),
        return_exceptions=True,
    )
    assert isinstance(results[0], Receipt)
    assert results[-1] is True
    for result in results[1:-1]:
        assert isinstance(result, StoreUnavailable)
        assert result.temporary
        assert result.applied is Applied.NO
        assert "full" in str(result)
    with pytest.raises(StoreUnavailable):
        await store.put_many([Put("large", bytes(100_000))])
    with pytest.raises(BatchFailed) as failed:
        await store.put_many([*(Put("first", b"again") for _ in range(250)), Put("large", bytes(100_000))])
    assert isinstance(failed.value.results[249], Receipt)
    assert isinstance(failed.value.results[250], StoreUnavailable)
    await store._writer.run(partial(execute, script=["PRAGMA max_page_count = 100000"]))
    assert isinstance(await store.put("large0", bytes(100_000)), Receipt)
    assert len([key async for key in store.scan("")]) == 52


async def test_a_file_removed_while_open_is_noticed(store: SqliteStore, file: Path) -> None:
    await store.ping()
    await asyncio.to_thread(file.rename, file.with_name("elsewhere.db"))
    for call in (store.put("a", b""), store.ping()):
        with pytest.raises(StoreUnavailable, match="removed or replaced") as caught:
            await call
        assert not caught.value.temporary
    await asyncio.to_thread(file.with_name("elsewhere.db").rename, file)
    await store.put("a", b"")
