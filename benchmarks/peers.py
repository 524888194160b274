"""The peers, each as its own documentation has its users open it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.entrants import TEXTS, TTL, VALUES, Client, Entrant, address_of, keys_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def _litestar(url: str) -> AsyncIterator[Client]:
    from litestar.stores.redis import RedisStore

    keys = keys_of("litestar")
    store = RedisStore.with_client(url)
    async with store:

        async def put(index: int) -> None:
            await store.set(keys[index], VALUES[index], expires_in=TTL)

        async def get(index: int) -> object:
            return await store.get(keys[index])

        yield Client(put, get)


@asynccontextmanager
async def _aiogram(url: str) -> AsyncIterator[Client]:
    from aiogram.fsm.storage.base import StorageKey
    from aiogram.fsm.storage.redis import RedisStorage

    storage = RedisStorage.from_url(url, data_ttl=TTL)
    keys = [StorageKey(bot_id=1, chat_id=number, user_id=number) for number in range(len(TEXTS))]
    data = [{"text": text} for text in TEXTS]

    async def put(index: int) -> None:
        await storage.set_data(keys[index], data[index])

    async def get(index: int) -> object:
        return await storage.get_data(keys[index])

    try:
        yield Client(put, get, data)
    finally:
        await storage.close()


@asynccontextmanager
async def _key_value(url: str) -> AsyncIterator[Client]:
    from key_value.aio.stores.redis import RedisStore

    keys = keys_of("key-value")
    data = [{"text": text} for text in TEXTS]
    async with RedisStore(url=url) as store:

        async def put(index: int) -> None:
            await store.put(keys[index], data[index], ttl=TTL)

        async def get(index: int) -> object:
            return await store.get(keys[index])

        yield Client(put, get, data)


@asynccontextmanager
async def _coredis(url: str) -> AsyncIterator[Client]:
    from coredis import Redis

    keys = keys_of("coredis")
    async with Redis.from_url(url) as redis:

        async def put(index: int) -> None:
            await redis.set(keys[index], VALUES[index], px=TTL * 1000)

        async def get(index: int) -> object:
            return await redis.get(keys[index])

        yield Client(put, get)


@asynccontextmanager
async def _glide(url: str) -> AsyncIterator[Client]:
    from glide import ExpirySet, ExpiryType, GlideClient, GlideClientConfiguration, NodeAddress

    keys = keys_of("glide")
    node = NodeAddress(*address_of(url))
    client = await GlideClient.create(GlideClientConfiguration([node]))
    expiry = ExpirySet(ExpiryType.MILLSEC, TTL * 1000)

    async def put(index: int) -> None:
        await client.set(keys[index], VALUES[index], expiry=expiry)

    async def get(index: int) -> object:
        return await client.get(keys[index])

    try:
        yield Client(put, get)
    finally:
        await client.close()


PEERS: Final = (
    Entrant("Litestar RedisStore", "litestar", "litestar.stores.redis", _litestar),
    Entrant("aiogram RedisStorage", "aiogram", "aiogram.fsm.storage.redis", _aiogram),
    Entrant("py-key-value RedisStore", "py-key-value-aio", "key_value.aio.stores.redis", _key_value),
    Entrant("coredis", "coredis", "coredis", _coredis),
    Entrant("valkey-glide", "valkey-glide", "glide", _glide),
)
