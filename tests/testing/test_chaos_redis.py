"""ChaosProxy in front of real servers: what was carried out, and what its client hears of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessionkit.errors import Applied, StoreError
from sessionkit.registry import open_driver
from sessionkit.testing.chaos import ChaosProxy, Direction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.testing.servers import RedisServer


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy("127.0.0.1", redis_server.port, seed=7) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: ChaosProxy, redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A client with one connection, which is open, and no second tries."""
    url = proxy.url(redis_server.url(db=0))
    async with Redis.from_url(url, retry=Retry(NoBackoff(), 0), single_connection_client=True) as client:
        await client.ping()
        yield client


async def test_commands_pass_byte_by_byte(client: Redis, proxy: ChaosProxy) -> None:
    value = bytes(range(256))
    proxy.fragment(1)
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(10):
            pipeline.set(f"key{number}", value)
            pipeline.get(f"key{number}")
        assert await pipeline.execute() == [True, value] * 10


async def test_a_dropped_reply_is_of_a_write_applied(
    client: Redis, proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    proxy.drop_replies(1)
    with pytest.raises(RedisConnectionError):
        await client.incr("counter")
    assert redis_server.command("GET", "counter") == b"1"
    assert await client.incr("counter") == 2


async def test_a_write_cut_short_is_not_applied(
    client: Redis, proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    size = len(b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n")
    for count in range(size):
        before = proxy.request_bytes
        proxy.cut_after(count, direction=Direction.REQUESTS)
        with pytest.raises(RedisConnectionError):
            await client.incr("counter")
        assert proxy.request_bytes == before + count
        await client.ping()
    assert redis_server.command("EXISTS", "counter") == b"0"
    proxy.cut_after(size, direction=Direction.REQUESTS)
    with pytest.raises(RedisConnectionError):
        await client.incr("counter")
    assert proxy.resets == size + 1


async def test_a_black_hole_of_replies_times_out_after_the_write(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    url = proxy.url(redis_server.url())
    async with Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=0.2) as client:
        await client.ping()
        proxy.black_hole(direction=Direction.REPLIES)
        with pytest.raises(RedisTimeoutError):
            await client.incr("counter")
        assert redis_server.command("GET", "counter") == b"1"
        proxy.heal()
        assert await client.incr("counter") == 2


async def test_every_write_arrives_in_spite_of_random_resets(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    proxy.reset_randomly(0.02)
    retry = Retry(NoBackoff(), 100)
    async with Redis.from_url(proxy.url(redis_server.url()), retry=retry) as client:

        async def write(numbers: range) -> None:
            for number in numbers:
                await client.set(f"key{number}", number)

        await asyncio.gather(*(write(range(start, 500, 5)) for start in range(5)))
    assert redis_server.command("DBSIZE") == b"500"
    assert proxy.resets > 0


async def test_a_driver_says_of_a_lost_answer_that_it_may_be_applied(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    async with open_driver(proxy.url(redis_server.url())) as store:
        await store.put("bot:user:1", b"first")
        proxy.drop_replies()
        with pytest.raises(StoreError) as caught:
            await store.put("bot:user:1", b"second")
        assert caught.value.applied is Applied.MAYBE
        proxy.heal()
        record = await store.get("bot:user:1")
        assert record is not None
        assert record.value == b"second"
