"""A journal's file: real processes that share it, are killed over it, and run out of disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.errors import Applied, ConfigurationError, CorruptRecord, StoreUnavailable
from sessionkit.resilience import CircuitBreaker, Journal, Quarantined, ResilientStore, State, StoreFile
from sessionkit.store import ABSENT, Put, Where
from sessionkit.testing.chaos import ChaosStore
from sessionkit_memory import MemoryStore
from sessionkit_sqlite import SqliteStore
from tests.resilience.waiting import PATIENCE, became, turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from sessionkit.resilience import Event

CHILD = [sys.executable, "-W", "error", str(Path(__file__).with_name("outage_child.py"))]
CRASHED = 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def open_store(primary: ChaosStore | MemoryStore, file: Path | StoreFile) -> ResilientStore:
    return ResilientStore(
        primary,
        journal=Journal(file=StoreFile.of(SqliteStore(file)) if isinstance(file, Path) else file),
        breaker=CircuitBreaker(first_pause=0.01, longest_pause=0.02),
    )


def run(*arguments: object, wrapper: tuple[str, ...] = (), ends: int = 0) -> str:
    """Run a child to its end, and return what it said."""
    child = subprocess.run(
        [*wrapper, *CHILD, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (child.returncode, child.stderr) == (ends, "")
    return child.stdout


# One process at a time


@pytest.fixture
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the journal open."""
    with subprocess.Popen([*CHILD, "hold", file], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


async def test_a_second_process_is_refused_and_told_the_lock(
    file: Path, holder: subprocess.Popen[str]
) -> None:
    async with open_store(MemoryStore(), file) as store:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=re.escape(f"{file}.lock")):
                await store.get("key")
        holder.kill()
        holder.wait()
        # What held it is dead: the lock is free without anybody's help.
        assert await store.get("key") is None


async def test_a_second_store_of_the_same_process_is_refused(file: Path) -> None:
    async with open_store(MemoryStore(), file) as store:
        await store.get("key")
        async with open_store(MemoryStore(), file) as second:
            with pytest.raises(ConfigurationError, match="a journal of its own"):
                await second.get("key")
        assert await store.get("key") is None
        # A refused one that closes has not taken the lock along.
        async with open_store(MemoryStore(), file) as third:
            with pytest.raises(ConfigurationError):
                await third.get("key")
    async with open_store(MemoryStore(), file) as later:
        assert await later.get("key") is None


async def test_a_link_leads_to_the_same_lock(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(file)
    async with open_store(MemoryStore(), file) as store, open_store(MemoryStore(), link) as other:
        await store.get("key")
        with pytest.raises(ConfigurationError, match=re.escape(f"{file}.lock")):
            await other.get("key")


async def test_a_missing_directory_is_named_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    async with open_store(MemoryStore(), missing / "journal.db") as store:
        with pytest.raises(ConfigurationError, match="none does not exist"):
            await store.get("key")
    assert not await asyncio.to_thread(missing.exists)


async def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path, file: Path) -> None:
    (tmp_path / "journal.db.lock").mkdir()
    async with open_store(MemoryStore(), file) as store:
        with pytest.raises(StoreUnavailable, match=re.escape(f"{file}.lock")) as caught:
            await store.get("key")
    assert not caught.value.temporary


async def test_what_does_not_outlive_the_process_keeps_no_journal(tmp_path: Path) -> None:
    async with MemoryStore() as store:
        with pytest.raises(ConfigurationError, match="cannot keep a journal"):
            StoreFile.of(store)
        with pytest.raises(ConfigurationError, match="cannot keep a journal"):
            StoreFile(store, tmp_path / "lock")


# From one life to the next


async def test_what_was_journaled_is_taken_up_at_the_next_start(file: Path) -> None:
    memory = MemoryStore()
    primary = ChaosStore(memory)
    primary.refuse()
    store = open_store(primary, file)
    receipt = await store.put("key", b"1", if_version=ABSENT)
    assert receipt.where is Where.JOURNALED
    await store.aclose()
    memory = MemoryStore()
    store = open_store(memory, file)
    found = await store.get("key")
    assert found is not None
    assert (found.value, found.version) == (b"1", receipt.version)
    await became(store, State.HEALTHY)
    assert await memory.get("key") == found._replace(stale=False)
    await store.aclose()
    async with open_store(MemoryStore(), file) as store:
        assert await store.get("key") is None, "what was replayed is in no journal any more"


async def test_what_is_deleted_after_a_replay_does_not_come_back(tmp_path: Path, file: Path) -> None:
    memory = MemoryStore()
    primary = ChaosStore(memory, seed=1)
    disk = ChaosStore(SqliteStore(file), seed=2)
    store = open_store(primary, StoreFile(disk, tmp_path / "lock"))
    primary.refuse()
    await store.put("key", b"1", if_version=ABSENT)
    disk.hang()
    primary.heal()
    await became(store, State.REPLAYING)
    await turns()
    assert disk.faults["hang"] == 1, "the file has not let go of what the primary has"
    assert await memory.get("key") is not None
    deleting = asyncio.create_task(store.delete("key"))
    await turns()
    # Acknowledged now, a crash would undo it: the next start would write the record once more.
    assert not deleting.done()
    assert await memory.get("key") is not None
    disk.heal()
    assert await deleting
    assert await memory.get("key") is None
    await store.aclose()


async def test_what_was_set_aside_survives_restarts_and_is_tried_again(file: Path) -> None:
    memory = MemoryStore()
    primary = ChaosStore(memory, seed=1)
    primary.refuse()
    store = open_store(primary, file)
    await store.put("poison", b"1")
    await store.put("good", b"2")
    await store.aclose()
    for life in range(3):
        memory = MemoryStore()
        primary = ChaosStore(memory, seed=1)
        primary.fail_key("poison", StoreUnavailable("no permission", temporary=False))
        store = open_store(primary, file)
        events: list[Event] = []
        store.subscribe(events.append)
        await store.ping()
        assert await store.get("other") is None
        await became(store, State.HEALTHY)
        assert [event.key for event in events if isinstance(event, Quarantined)] == ["poison"]
        assert (await memory.get("good") is not None) is (life == 0)
        await store.aclose()
    memory = MemoryStore()
    store = open_store(memory, file)
    found = await store.get("poison")
    assert found is not None
    assert found.value == b"1"
    await became(store, State.HEALTHY)
    assert store.counts.replayed == 1
    assert await memory.get("poison") is not None
    await store.aclose()


async def test_a_damaged_entry_is_told_and_nothing_is_thrown_away(file: Path) -> None:
    primary = ChaosStore(MemoryStore(), seed=1)
    primary.refuse()
    store = open_store(primary, file)
    for number in range(3):
        await store.put(f"key{number}", b"value")
    await store.aclose()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE records SET value = CAST(value || 'x' AS BLOB) WHERE rowid = 2")
    before = rows(file)
    memory = MemoryStore()
    async with open_store(memory, file) as store:
        for call in (lambda: store.get("key0"), lambda: store.put("other", b"")):
            with pytest.raises(CorruptRecord, match=re.escape(str(file))) as caught:
                await call()
            assert "1 damaged, 2 sound" in str(caught.value)
        assert await memory.get("other") is None
    assert rows(file) == before
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE records SET value = substr(value, 1, length(value) - 1) WHERE rowid = 2")
    async with open_store(MemoryStore(), file) as store:
        for number in range(3):
            assert await store.get(f"key{number}") is not None


async def test_a_row_of_others_is_told_as_well(file: Path) -> None:
    primary = ChaosStore(MemoryStore(), seed=1)
    primary.refuse()
    store = open_store(primary, file)
    await store.put("key", b"value")
    await store.aclose()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE records SET ring = x'00'")
    before = rows(file)
    async with open_store(MemoryStore(), file) as store:
        with pytest.raises(CorruptRecord, match=re.escape(str(file))):
            await store.get("key")
    assert rows(file) == before


def rows(file: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT * FROM records ORDER BY key").fetchall()


# The disk


def test_a_write_is_synced_to_the_disk_before_it_is_acknowledged(tmp_path: Path, file: Path) -> None:
    trace = tmp_path / "trace"
    wrapper = ("strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(trace))
    if shutil.which("strace") is None or subprocess.run([*wrapper, "true"], check=False).returncode:
        pytest.skip("this machine lets us watch no system calls (strace)")
    run("add", file, 5, wrapper=wrapper)
    calls = trace.read_text()
    for number in range(5):
        meanwhile = calls[calls.index(f'"asked {number}\\n"') : calls.index(f'"acknowledged {number}\\n"')]
        started = re.findall(r"f(?:data)?sync\(\d+<.*journal\.db-wal>", meanwhile)
        assert started
        assert meanwhile.count("<unfinished ...>") == meanwhile.count(" resumed>")


def check_full(report: dict[str, Any], found: dict[str, str]) -> None:
    assert report["before"] > 8
    assert len(report["refused"]) == 8
    assert len(report["repeated"]) == 4
    # Whatever the disk says: it waits in memory, and may be replayed from there.
    assert report["errors"] == ["StoreUnavailable True MAYBE"]
    assert found.keys() >= report["acknowledged"].keys()
    for key, value in found.items():
        may_be = {report["acknowledged"].get(key)}
        if key not in report["repeated"]:
            may_be.add(report["refused"].get(key))
        assert value in may_be, key


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are those of POSIX")
def test_a_file_size_limit_loses_nothing_that_was_acknowledged(file: Path) -> None:
    report = run("fill", file, "limit", ends=CRASHED)
    check_full(json.loads(report), json.loads(run("show", file)))


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path, file: Path) -> None:
    # A disk of 3 MB, which is gone with the last process that sees it.
    mount = f"mount -t tmpfs -o size=3m none '{tmp_path}' && exec \"$@\""
    wrapper = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"], check=False).returncode:
        pytest.skip("this machine lets us mount no disk of our own (unshare --user --mount)")
    both = f"\"$@\" fill '{file}' disk; test $? = {CRASHED} && \"$@\" show '{file}'"
    report, found = run(wrapper=(*wrapper, "sh", "-c", both, "sh")).splitlines()
    check_full(json.loads(report), json.loads(found))


@pytest.mark.parametrize("step", ["put", "put_many", "delete", "delete_many"])
async def test_what_was_set_aside_does_not_come_back_over_a_later_write(file: Path, step: str) -> None:
    memory = MemoryStore()
    primary = ChaosStore(memory, seed=1)
    store = open_store(primary, file)
    await store.put("key", b"base")
    primary.refuse()
    await store.put("key", b"poison")
    primary.heal()
    primary.fail_key("key", StoreUnavailable("no permission", temporary=False))
    await became(store, State.HEALTHY)
    assert set(store.journal.quarantined) == {"key"}
    primary.heal()
    calls: dict[str, Awaitable[object]] = {
        "put": store.put("key", b"later"),
        "put_many": store.put_many([Put("key", b"later")]),
        "delete": store.delete("key"),
        "delete_many": store.delete_many(["key"]),
    }
    await calls.pop(step)
    for call in calls.values():
        call.close()  # type: ignore[attr-defined]
    assert not store.journal.quarantined
    assert store.journal.bytes == 0
    expected = await memory.get("key")
    copy = MemoryStore()
    if expected is not None:
        await copy.put("key", expected.value, write_id=expected.version)
    await store.aclose()
    store = open_store(copy, file)
    await store.get("other")
    await became(store, State.HEALTHY)
    assert store.counts.replayed == 0
    assert await copy.get("key") == expected
    await store.aclose()


async def test_a_write_is_not_acknowledged_while_the_file_keeps_an_older_one(
    tmp_path: Path, file: Path
) -> None:
    memory = MemoryStore()
    primary = ChaosStore(memory, seed=1)
    disk = ChaosStore(SqliteStore(file), seed=2)
    store = open_store(primary, StoreFile(disk, tmp_path / "lock"))
    primary.refuse()
    await store.put("key", b"1", if_version=ABSENT)
    disk.refuse(StoreUnavailable("the disk is full"))
    primary.heal()
    await became(store, State.HEALTHY)
    assert store.journal.depth == 0
    assert store.journal.leftovers == {"key"}
    for call in (store.delete("key"), store.put("key", b"2"), store.delete_many(["key"])):
        with pytest.raises(StoreUnavailable, match="the disk is full") as caught:
            await call
        assert caught.value.applied is Applied.YES
    assert await memory.get("key") is None
    disk.heal()
    assert await store.delete("key") is False
    assert not store.journal.leftovers
    await store.aclose()
    async with open_store(MemoryStore(), file) as store:
        assert await store.get("key") is None
