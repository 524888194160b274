"""What the tests of the SQLite store run in processes of their own: ``sqlite_child.py COMMAND FILE ...``."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - asyncio would import it once privileges are gone
import contextlib
import json
import os
import random
import sys
from pathlib import Path

from sessionkit.errors import StoreError, StoreUnavailable, VersionConflict
from sessionkit.store import ABSENT, Delete, Put
from sessionkit_sqlite import SqliteStore


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def count(file: str, times: str) -> None:
    """Increment one counter by compare-and-set."""
    async with SqliteStore(file, timeout=60) as store:
        for _ in range(int(times)):
            while True:
                record = await store.get("counter")
                number, version = (0, ABSENT) if record is None else (int(record.value), record.version)
                with contextlib.suppress(VersionConflict):
                    await store.put("counter", b"%d" % (number + 1), if_version=version)
                    break
        await store.put(f"done:{os.getpid()}", b"")


async def watch(file: str, counters: str) -> None:
    """Scan until all counters are done; a count must never go back."""
    async with SqliteStore(file, timeout=60) as store:
        last = 0
        while len([key async for key in store.scan("done:")]) < int(counters):
            record = await store.get("counter")
            number = 0 if record is None else int(record.value)
            assert number >= last
            last = number


async def open_at_once(file: str) -> None:
    """Say that we are ready, wait for the start, and use the file."""
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    async with SqliteStore(file) as store:
        read, _ = await asyncio.gather(store.get("none"), store.put(f"by:{os.getpid()}", b""))
        assert read is None
        assert await store.get(f"by:{os.getpid()}") is not None
    say("used")


async def write(file: str, name: str) -> None:
    """Write until killed, and say each key when it is acknowledged."""
    async with SqliteStore(file) as store:

        async def writer(task: int) -> None:
            for n in range(1_000_000):
                key = f"{name}:{task}:{n}"
                await store.put(key, key.encode() * random.randint(1, 100))
                say(key)

        await asyncio.gather(*(writer(task) for task in range(16)))


async def write_all(file: str, name: str) -> None:
    """Write triples all or none until killed, and say each when it is acknowledged."""
    async with SqliteStore(file) as store:

        async def writer(task: int) -> None:
            for n in range(1_000_000):
                triple = f"{name}:{task}:{n}"
                puts = [Put(f"{triple}:{part}", b"x" * random.randint(1, 5_000)) for part in "abc"]
                # The one before leaves in the same step, but for its last record.
                old = [Delete(f"{name}:{task}:{n - 1}:{part}") for part in "ab"]
                await store.write_all([*puts, *old])
                say(triple)

        await asyncio.gather(*(writer(task) for task in range(16)))


async def fill(file: str, how: str) -> None:
    """Write until there is no room, make room, go on; say what happened and whether all is there."""
    acknowledged: list[str] = []
    errors: list[StoreError] = []
    async with SqliteStore(file) as store:
        await store.put("first", b"")
        shrink(file, how)

        async def writer(task: int) -> None:
            for n in range(1000):
                key = f"{task}:{n}"
                try:
                    await store.put(key, os.urandom(5000))
                except StoreError as error:
                    errors.append(error)
                    return
                acknowledged.append(key)

        await asyncio.gather(*(writer(task) for task in range(16)))
        in_want = len(await store.get_many(acknowledged))
        before = len(acknowledged)
        make_room(file, how)
        for n in range(20):
            await store.put(f"later:{n}", os.urandom(5000))
            acknowledged.append(f"later:{n}")
    async with SqliteStore(file) as store:
        there = len(await store.get_many(acknowledged))
    kinds = {f"{type(error).__name__} {error.temporary} {error.applied.name}" for error in errors}
    report = {
        "acknowledged": before,
        "there in want": in_want,
        "acknowledged later": len(acknowledged) - before,
        "there later": there,
        "errors": sorted(kinds),
    }
    say(json.dumps(report))


def shrink(file: str, how: str) -> None:
    """Allow little more than there is."""
    if how == "limit":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    else:
        Path(file).with_name("ballast").write_bytes(bytes(1_000_000))


def make_room(file: str, how: str) -> None:
    """Take back what ``shrink`` did."""
    if how == "limit":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    else:
        Path(file).with_name("ballast").unlink()


async def forget(file: str) -> None:
    """Write and leave without closing."""
    store = SqliteStore(file)
    await store.put("a", b"")
    await store.get("a")
    globals()["kept"] = store


async def unprivileged(file: str) -> None:
    """Use the file as a user without rights on it, and say what is raised."""
    if os.getuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    async with SqliteStore(file) as store:
        for call in (store.put("a", b""), store.get("a")):
            try:
                await call
            except StoreUnavailable as error:
                says = [
                    text
                    for text in ("may not write in", "may not read and write the file")
                    if text in str(error) and file in str(error)
                ]
                say(f"StoreUnavailable temporary={error.temporary} {' '.join(says)}")


COMMANDS = {
    each.__name__: each for each in (count, watch, open_at_once, write, write_all, fill, forget, unprivileged)
}

if __name__ == "__main__":
    asyncio.run(COMMANDS[sys.argv[1]](*sys.argv[2:]))
