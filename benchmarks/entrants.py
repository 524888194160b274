"""Who takes part in ``python -m benchmarks redis``: sessionkit and the references it is held against."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.maint_notifications import MaintNotificationsConfig

from benchmarks.bare import Bare
from benchmarks.load import KEYS
from sessionkit import open_driver
from sessionkit.store import new_version
from sessionkit_redis.scripts import PUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Operation
    from sessionkit.store import SessionStore

VALUE_BYTES: Final = 275
TTL: Final = 3_600
"""Seconds that a put gives its value, in whole ones as not every peer takes fractions."""

TEXTS: Final = [f"{number:04}".ljust(VALUE_BYTES, "-") for number in range(KEYS)]
"""The value of each key."""

VALUES: Final = [text.encode() for text in TEXTS]
"""The same as bytes."""

BARE: Final = "bare"
OURS: Final = "sessionkit"
POOL: Final = "redis-py"

_POOL_SIZE: Final = 100


class Client(NamedTuple):
    """An open client, behind one coroutine function for each operation.

    Attributes:
        put: Puts the value of a key, given by its number, with ``TTL``.
        get: Reads it; None where that would measure another entrant again.
        stored: What ``get`` must return for each key.
    """

    put: Operation
    get: Operation | None
    stored: Sequence[object] = VALUES


OpenClient: TypeAlias = Callable[[str], AbstractAsyncContextManager[Client]]
"""Opens a client of the server at a URL, and closes it and all its connections."""


@dataclass(frozen=True)
class Entrant:
    """A way to use Redis.

    Attributes:
        name: What tables call it.
        distribution: The package it comes in.
        module: What must be importable for it.
        open_client: See ``OpenClient``.
    """

    name: str
    distribution: str
    module: str
    open_client: OpenClient

    def missing(self) -> str | None:
        """Return why it cannot take part, or None."""
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"{self.distribution} is not installed here: {error}"
        return None

    def version(self) -> str:
        """Return the version of its package."""
        return version(self.distribution)


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Client]:
    keys = keys_of("bare")
    async with _bare_connection(url) as bare:

        async def put(index: int) -> object:
            return await bare.call("SET", keys[index], VALUES[index], "PX", TTL * 1000)

        async def get(index: int) -> object:
            return await bare.call("GET", keys[index])

        yield Client(put, get)


@asynccontextmanager
async def _bare_script(url: str) -> AsyncIterator[Client]:
    keys = keys_of("script")
    async with _bare_connection(url) as bare:
        await bare.call("SCRIPT", "LOAD", PUT.source)

        async def put(index: int) -> object:
            return await bare.call(*PUT.by_name((keys[index],), (new_version(), VALUES[index], TTL * 1000)))

        yield Client(put, None)


@asynccontextmanager
async def _sessionkit(url: str) -> AsyncIterator[Client]:
    async with open_driver(url) as store:
        yield store_client(store, keys_of("sessionkit"))


@asynccontextmanager
async def _redis_py(url: str) -> AsyncIterator[Client]:
    async with pooled(url) as redis:
        yield _plain(redis)


@asynccontextmanager
async def _redis_py_default(url: str) -> AsyncIterator[Client]:
    async with Redis.from_url(url) as redis:
        yield _plain(redis)


@asynccontextmanager
async def _redis_py_script(url: str) -> AsyncIterator[Client]:
    keys = keys_of("script")
    async with pooled(url) as redis:
        script = redis.register_script(PUT.source)

        async def put(index: int) -> object:
            return await script([keys[index]], [new_version(), VALUES[index], TTL * 1000])

        yield Client(put, None)


REFERENCES: Final = (
    Entrant(BARE, "hiredis", "hiredis", _bare),
    Entrant(OURS, "sessionkit", "sessionkit", _sessionkit),
    Entrant(POOL, "redis", "redis", _redis_py),
    Entrant("bare + our script", "hiredis", "hiredis", _bare_script),
    Entrant("redis-py default pool", "redis", "redis", _redis_py_default),
    Entrant("redis-py + our script", "redis", "redis", _redis_py_script),
)
"""The two with our script have the server do the work of our put, which keeps the ids of the last writes.

``POOL`` waits for one of 100 connections; the default pool refuses who finds all 100 taken.
"""


def keys_of(name: str) -> list[str]:
    """Return the keys of one entrant."""
    return [f"benchmark:{name}:{number}" for number in range(KEYS)]


def store_client(store: SessionStore, keys: Sequence[str]) -> Client:
    """Return the client that a store is."""

    async def put(index: int) -> object:
        return await store.put(keys[index], VALUES[index], expires_in=TTL)

    async def get(index: int) -> object:
        record = await store.get(keys[index])
        return record and record.value

    return Client(put, get)


def address_of(url: str) -> tuple[str, int]:
    """Return the host and port of a server's URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 6379


def _plain(redis: Redis) -> Client:
    keys = keys_of("redis-py")

    async def put(index: int) -> object:
        return await redis.set(keys[index], VALUES[index], px=TTL * 1000)

    async def get(index: int) -> object:
        return await redis.get(keys[index])

    return Client(put, get)


@asynccontextmanager
async def _bare_connection(url: str) -> AsyncIterator[Bare]:
    _, bare = await asyncio.get_running_loop().create_connection(Bare, *address_of(url))
    try:
        yield bare
    finally:
        bare.close()


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[Redis]:
    """Open redis-py as it serves any number of callers: they wait for one of 100 connections."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_POOL_SIZE,
        timeout=60,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    async with Redis.from_pool(pool) as redis:
        yield redis
