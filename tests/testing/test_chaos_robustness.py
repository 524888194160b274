"""ChaosProxy under load, beside vanishing peers, and when it is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import ConfigurationError
from sessionkit.testing.chaos import ChaosProxy, Direction

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.testing.conftest import Peer, Running, World

MESSAGE = bytes(range(100))
HOUR = 3600.0


async def rest_of(sender: Peer) -> int:
    """Return how many bytes a sender still has when it gets rid of no more."""
    before, now = -1, 0
    while now != before:
        before, now = now, sender.transport.get_write_buffer_size()
        for _ in range(50):
            await asyncio.sleep(0)
    return now


async def test_nothing_piles_up_in_front_of_a_slow_reader(running: Running) -> None:
    async with running(echo=False) as world:
        client = await world.connect()
        client.transport.pause_reading()
        peer = await world.accepted()
        peer.transport.set_write_buffer_limits(high=0)
        content = random.Random(3).randbytes(50_000_000)
        peer.transport.write(content)
        # The system's buffers are full, and the upstream still has the rest.
        assert await rest_of(peer) > len(content) / 2
        client.transport.resume_reading()
        await client.gets(content)


async def test_nothing_piles_up_behind_a_fault(running: Running) -> None:
    async with running(echo=False) as world:
        client = await world.connect()
        peer = await world.accepted()
        world.proxy.latency(HOUR)
        content = random.Random(4).randbytes(50_000_000)
        client.transport.write(content)
        assert await rest_of(client) > len(content) / 2
        world.proxy.heal()
        await peer.gets(content)


async def test_the_last_words_of_the_dead_arrive(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.latency(HOUR, direction=Direction.REPLIES)
    peer.transport.write(MESSAGE)
    await world.quiet()
    peer.vanish()
    client.transport.write(MESSAGE)
    client.transport.write_eof()
    await world.quiet()
    assert not client.lost.done()
    world.proxy.heal()
    await client.until(client.lost.done)
    assert client.got == MESSAGE
    await client.reset()


@pytest.mark.parametrize("max_bytes", [None, 50_000])
async def test_delayed_traffic_is_bounded_and_complete(world: World, max_bytes: int | None) -> None:
    client, _peer = await world.pair()
    world.proxy.latency(0.001, jitter=0.001)
    world.proxy.fragment(max_bytes)
    await client.says(random.Random(2).randbytes(5_000_000))


async def test_an_upstream_that_is_down_resets_the_client(running: Running) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        async with running() as world, ChaosProxy("127.0.0.1", unheard.getsockname()[1]) as proxy:
            client = await world.connect(proxy.port)
            await client.reset()
            assert (proxy.connections, proxy.open_connections, proxy.resets) == (1, 0, 0)


async def test_whoever_vanishes_is_reported_to_the_other(world: World) -> None:
    client, peer = await world.pair()
    client.vanish()
    await peer.reset()
    client, peer = await world.pair()
    peer.vanish()
    await client.reset()
    assert world.proxy.resets == 0


async def test_the_end_of_requests_leaves_replies_open(running: Running) -> None:
    async with running(echo=False) as world:
        client = await world.connect()
        client.transport.write(MESSAGE)
        client.transport.write_eof()
        peer = await world.accepted()
        await peer.gets(MESSAGE)
        await peer.end()
        peer.transport.write(MESSAGE)
        await client.gets(MESSAGE)
        peer.transport.close()
        await client.end()


async def test_leaving_closes_connections_in_every_state(running: Running) -> None:
    async with running() as world:
        idle = await world.pair()
        delayed = await world.pair()
        world.proxy.latency(HOUR)
        delayed[0].transport.write(MESSAGE)
        await world.quiet()
        world.proxy.black_hole()
        silent = await world.connect()
        silent.transport.write(MESSAGE)
        await world.quiet()
        world.proxy.heal(resume=True)
        just_now = await world.connect()
        world.proxy.latency(HOUR)
        just_now.transport.write(MESSAGE)
        world.proxy.refuse()
    for client in (idle[0], delayed[0], silent, just_now):
        await client.ended_or_lost()
    for peer in world.upstream[:2]:
        await peer.ended_or_lost()


@pytest.mark.parametrize("turns", range(8))
async def test_leaving_while_a_connection_opens(running: Running, turns: int) -> None:
    async with running() as world:
        client = socket.create_connection(("127.0.0.1", world.proxy.port), timeout=10)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""


async def test_names_of_the_proxy(world: World) -> None:
    proxy = world.proxy
    assert repr(proxy) == f"ChaosProxy('127.0.0.1', {world.port}, seed=7)"
    assert re.fullmatch(r"ChaosProxy\('db', 1, seed=\d+\)", repr(ChaosProxy("db", 1)))
    assert proxy.url("redis://bot:p%40ss@db.example:6379/3?a=b") == (
        f"redis://bot:p%40ss@127.0.0.1:{proxy.port}/3?a=b"
    )
    assert proxy.url("http://[::1]:80/x") == f"http://127.0.0.1:{proxy.port}/x"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda proxy: proxy.latency(-1), "latency: seconds"),
        (lambda proxy: proxy.latency(float("nan")), "latency: seconds"),
        (lambda proxy: proxy.latency(1, jitter=float("inf")), "latency: jitter"),
        (lambda proxy: proxy.fragment(0), "fragment: max_bytes"),
        (lambda proxy: proxy.reset_randomly(1.5), "reset_randomly: a probability"),
        (lambda proxy: proxy.drop_replies(-1), "drop_replies: count"),
        (lambda proxy: proxy.cut_after(-1, direction=Direction.REPLIES), "cut_after: count"),
        (lambda proxy: proxy.url("memory://"), "no host in it"),
    ],
)
async def test_wrong_faults_are_told(
    world: World, call: Callable[[ChaosProxy], object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        call(world.proxy)
    await world.pair()


async def test_a_proxy_is_used_within_its_context(world: World) -> None:
    with pytest.raises(ConfigurationError, match="is running already"):
        await world.proxy.__aenter__()
    proxy = ChaosProxy("127.0.0.1", world.port, seed=1)
    proxy.heal()
    with pytest.raises(ConfigurationError, match=r"seed=1\) is not running"):
        proxy.url("redis://db")
    with pytest.raises(ConfigurationError, match=r"seed=1\) is not running"):
        proxy.refuse()
    for _ in range(2):
        async with proxy:
            client = await world.connect(proxy.port)
            await client.says(MESSAGE)
