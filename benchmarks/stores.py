"""The drivers beside what one would use without them."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import aiosqlite
import msgpack
from cachetools import TTLCache
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Contender, compare
from benchmarks.stack import SESSION
from sessionkit import SessionService, open_driver
from sessionkit.testing.servers import RedisServer, find_servers

if TYPE_CHECKING:
    from benchmarks.measure import Result

VALUE = b"v" * 275


async def compare_stores(rounds: int, callers: list[int]) -> None:
    """Measure every driver and print a table."""
    table = Table("work", "callers", "contender", "op/s (median)", "ratio to the reference")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        works = [
            *await _memory(stack),
            *await _sqlite(stack, folder),
            *await _redis(stack),
        ]
        for work, contenders in works:
            for count in callers:
                _add_rows(table, work, count, await compare(contenders, count, rounds))
    Console(width=110).print(table)


async def _memory(stack: AsyncExitStack) -> list[tuple[str, list[Contender]]]:
    store = await stack.enter_async_context(open_driver("memory://"))
    cache: TTLCache[str, bytes] = TTLCache(1000, 300)
    cache["key"] = VALUE
    await store.put("key", VALUE, expires_in=300)

    async def reference(_: int) -> object:
        return cache.get("key")

    async def ours(_: int) -> object:
        return await store.get("key")

    return [("memory get", [Contender("TTLCache.get", reference), Contender("sessionkit", ours)])]


async def _sqlite(stack: AsyncExitStack, folder: Path) -> list[tuple[str, list[Contender]]]:
    store = await stack.enter_async_context(open_driver(f"sqlite:///{folder / 'ours.db'}"))
    theirs = await stack.enter_async_context(aiosqlite.connect(folder / "theirs.db"))
    await theirs.execute("PRAGMA journal_mode=WAL")
    await theirs.execute("PRAGMA synchronous=FULL")
    await theirs.execute("CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB)")
    # Without a lock the callers of one connection would share commits, and see each other's.
    turn = asyncio.Lock()

    async def reference(number: int) -> object:
        async with turn:
            await theirs.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (f"key{number}", VALUE))
            await theirs.commit()
        return None

    async def ours(number: int) -> object:
        return await store.put(f"key{number}", VALUE)

    return [
        (
            "sqlite put, synced",
            [Contender("aiosqlite, a commit each", reference), Contender("sessionkit", ours)],
        )
    ]


async def _redis(stack: AsyncExitStack) -> list[tuple[str, list[Contender]]]:
    binary = find_servers()[0]
    server = stack.enter_context(RedisServer(binary))
    store = await stack.enter_async_context(open_driver(server.url()))
    sessions = SessionService(store)
    theirs = Redis.from_url(server.url(), max_connections=10_000)
    stack.push_async_callback(theirs.aclose)

    async def reference_put(number: int) -> object:
        return await theirs.set(f"their{number}", VALUE, px=300_000)

    async def our_put(number: int) -> object:
        return await store.put(f"our{number}", VALUE, expires_in=300)

    async def reference_get(number: int) -> object:
        return await theirs.get(f"their{number}")

    async def our_get(number: int) -> object:
        return await store.get(f"our{number}")

    async def reference_session(number: int) -> object:
        await theirs.set(f"their{number}", msgpack.packb(SESSION), px=300_000)
        return msgpack.unpackb(await theirs.get(f"their{number}"))

    async def our_session(number: int) -> object:
        await sessions.create_session(number, SESSION, replace=True)
        return await sessions.get_session(number)

    name = f"{binary.name} {binary.version}"
    return [
        (f"{name} put", [Contender("redis-py", reference_put), Contender("sessionkit", our_put)]),
        (f"{name} get", [Contender("redis-py", reference_get), Contender("sessionkit", our_get)]),
        (
            f"{name} session save and load",
            [Contender("redis-py and msgpack", reference_session), Contender("sessionkit", our_session)],
        ),
    ]


def _add_rows(table: Table, work: str, callers: int, results: list[Result]) -> None:
    reference = results[0]
    for result in results:
        rates = sorted(result.rates)
        table.add_row(
            work,
            str(callers),
            result.name,
            f"{rates[len(rates) // 2]:,.0f}",
            "1" if result is reference else f"{result.ratio_to(reference):.2f}",
        )
