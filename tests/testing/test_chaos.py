"""Every fault of ChaosProxy, byte by byte, between plain sockets."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from sessionkit.testing.chaos import Direction

if TYPE_CHECKING:
    from tests.testing.conftest import Running, World

MESSAGE = bytes(range(100))
HOUR = 3600.0


async def test_bytes_pass_unchanged_and_are_counted(world: World) -> None:
    client = await world.connect()
    content = random.Random(1).randbytes(3_000_000)
    await client.says(content)
    assert (world.proxy.request_bytes, world.proxy.reply_bytes) == (len(content), len(content))
    assert (world.proxy.connections, world.proxy.open_connections, world.proxy.resets) == (1, 1, 0)
    client.transport.write_eof()
    await client.end()
    await world.upstream[0].end()
    await world.quiet()
    assert (world.proxy.connections, world.proxy.open_connections, world.proxy.resets) == (1, 0, 0)


async def test_latency_holds_back_one_direction(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.latency(HOUR, direction=Direction.REPLIES)
    client.transport.write(MESSAGE)
    await peer.gets(MESSAGE)
    await world.quiet()
    assert client.got == b""
    world.proxy.heal()
    await client.gets(MESSAGE)


async def test_latency_takes_its_time_both_ways(world: World) -> None:
    client, _peer = await world.pair()
    world.proxy.latency(0.05)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await client.says(MESSAGE)
    assert loop.time() - before >= 0.09  # twice, less the clock's resolution


async def test_jitter_keeps_the_order(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.latency(0.0, jitter=0.005)
    for start in range(0, 100, 5):
        client.transport.write(MESSAGE[start : start + 5])
        await world.quiet()
    await client.gets(MESSAGE)
    assert peer.got == MESSAGE


async def fragments(running: Running, seed: int) -> list[bytes]:
    async with running(seed=seed) as world:
        client, peer = await world.pair()
        world.proxy.fragment(7, direction=Direction.REQUESTS)
        await client.says(MESSAGE)
        return peer.reads


async def test_fragments_are_short_random_and_arrive_alone(running: Running) -> None:
    reads = await fragments(running, seed=1)
    assert b"".join(reads) == MESSAGE
    assert {len(read) for read in reads} == {1, 2, 3, 4, 5, 6, 7}
    assert await fragments(running, seed=1) == reads
    assert await fragments(running, seed=2) != reads


async def test_fragment_of_one_byte_both_ways(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.fragment(1)
    client.transport.write(MESSAGE)
    await client.until(lambda: len(client.got) == len(MESSAGE))
    assert client.reads == peer.reads == [bytes([byte]) for byte in MESSAGE]
    world.proxy.fragment(None)
    client.reads.clear()
    client.transport.write(MESSAGE)
    await client.until(lambda: client.reads != [])
    assert client.reads == [MESSAGE]


async def test_reset_all_resets_both_sides_once(world: World) -> None:
    pairs = [await world.pair() for _ in range(3)]
    world.proxy.reset_all()
    assert (world.proxy.open_connections, world.proxy.resets) == (0, 3)
    for client, peer in pairs:
        await client.reset()
        await peer.reset()
    await world.pair()
    assert (world.proxy.open_connections, world.proxy.resets) == (1, 3)


async def replies_until_reset(running: Running, seed: int) -> list[int]:
    """Return after how many replies each of some connections was reset."""
    async with running(seed=seed) as world:
        world.proxy.reset_randomly(0.05)
        counts = []
        for _ in range(20):
            client = await world.connect()
            counts.append(0)
            while await client.hears_back():
                counts[-1] += 1
            await client.reset()
        assert world.proxy.resets == 20
        return counts


async def test_random_resets_follow_from_the_seed(running: Running) -> None:
    counts = await replies_until_reset(running, seed=1)
    assert len(set(counts)) > 5
    assert await replies_until_reset(running, seed=1) == counts
    assert await replies_until_reset(running, seed=2) != counts


async def test_reset_randomly_at_the_ends_of_its_range(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.reset_randomly(1.0, direction=Direction.REQUESTS)
    client.transport.write(MESSAGE)
    await client.reset()
    await peer.reset()
    assert (client.got, peer.got) == (b"", b"")
    world.proxy.reset_randomly(0.0)
    await world.pair()


async def test_resets_in_the_middle_of_a_message_by_composition(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.fragment(5, direction=Direction.REQUESTS)
    world.proxy.reset_randomly(0.1, direction=Direction.REQUESTS)
    client.transport.write(MESSAGE)
    await client.reset()
    await peer.reset()
    assert 0 < len(peer.got) < len(MESSAGE)
    assert MESSAGE.startswith(peer.got)


async def test_a_dropped_reply_was_a_request_carried_out(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.drop_replies(2)
    client.transport.write(MESSAGE)
    await client.reset()
    assert (client.got, peer.got) == (b"", MESSAGE)
    client = await world.connect()
    client.transport.write(MESSAGE)
    await client.reset()
    await world.pair()
    assert world.proxy.resets == 2


async def test_replies_are_dropped_until_it_heals(world: World) -> None:
    world.proxy.drop_replies()
    for number in range(5):
        client = await world.connect()
        client.transport.write(MESSAGE)
        await client.reset()
        assert (client.got, world.upstream[number].got) == (b"", MESSAGE)
    world.proxy.heal()
    await world.pair()


@pytest.mark.parametrize("count", [0, 1, 50, 99, 100])
async def test_requests_are_cut_at_any_byte(world: World, count: int) -> None:
    client, peer = await world.pair()
    world.proxy.cut_after(count, direction=Direction.REQUESTS)
    client.transport.write(MESSAGE)
    await client.reset()
    await peer.reset()
    assert (peer.got, world.proxy.resets) == (MESSAGE[:count], 1)
    await world.pair()


@pytest.mark.parametrize("count", [0, 1, 50, 99, 100])
@pytest.mark.parametrize("max_bytes", [None, 3])
async def test_replies_are_cut_at_any_byte(world: World, count: int, max_bytes: int | None) -> None:
    client, peer = await world.pair()
    world.proxy.fragment(max_bytes)
    world.proxy.cut_after(count, direction=Direction.REPLIES)
    client.transport.write(MESSAGE)
    await client.reset()
    assert client.got == MESSAGE[:count]
    await peer.reset()


async def test_a_cut_counts_over_chunks_and_connections(world: World) -> None:
    first, _ = await world.pair()
    second, _ = await world.pair()
    world.proxy.cut_after(25, direction=Direction.REQUESTS)
    await first.says(b"a" * 10)
    await second.says(b"b" * 10)
    first.transport.write(b"c" * 10)
    await first.reset()
    await second.says(MESSAGE)


async def test_black_hole_is_silent_and_heals_by_reset(world: World) -> None:
    old, peer = await world.pair()
    world.proxy.black_hole()
    new = await world.connect()
    for client in (old, new):
        client.transport.write(MESSAGE)
        client.transport.write_eof()
    peer.transport.write(b"unasked")
    await world.quiet()
    assert (peer.got, peer.ended, old.got, new.got) == (b"", False, b"", b"")
    assert not old.lost.done()
    assert not new.lost.done()
    assert (world.proxy.connections, world.proxy.open_connections) == (2, 2)
    world.proxy.heal()
    await old.reset()
    await new.reset()
    await peer.reset()
    assert (peer.got, world.proxy.resets) == (b"", 2)
    await world.pair()


async def test_black_hole_resumes_where_it_stopped(world: World) -> None:
    old, peer = await world.pair()
    world.proxy.latency(HOUR)
    old.transport.write(b"queued, ")
    await world.quiet()
    world.proxy.black_hole()
    new = await world.connect()
    for client in (old, new):
        client.transport.write(MESSAGE)
        client.transport.write_eof()
    await world.quiet()
    assert peer.got == b""
    world.proxy.heal(resume=True)
    await old.gets(b"queued, " + MESSAGE)
    await new.gets(MESSAGE)
    await old.end()
    await new.end()
    assert world.proxy.resets == 0


async def test_black_hole_of_replies_lets_requests_through(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.black_hole(direction=Direction.REPLIES)
    client.transport.write(MESSAGE)
    await peer.gets(MESSAGE)
    await world.quiet()
    assert client.got == b""
    world.proxy.heal(resume=True)
    await client.gets(MESSAGE)


async def test_half_close_of_replies(world: World) -> None:
    client, peer = await world.pair()
    world.proxy.half_close(Direction.REPLIES)
    await client.end()
    client.transport.write(MESSAGE)
    await peer.gets(MESSAGE)
    await world.quiet()
    assert (client.got, world.proxy.open_connections) == (b"", 1)
    client.transport.write_eof()
    await peer.end()
    await world.quiet()
    assert (world.proxy.open_connections, world.proxy.resets) == (0, 0)


async def test_half_close_of_requests(running: Running) -> None:
    async with running(echo=False) as world:
        client = await world.connect()
        client.transport.write(b"hello")
        peer = await world.accepted()
        await peer.gets(b"hello")
        world.proxy.half_close(Direction.REQUESTS)
        await peer.end()
        client.transport.write(b"into the void")
        peer.transport.write(MESSAGE)
        await client.gets(MESSAGE)
        assert peer.got == b""


async def test_refused_connections_and_the_same_port_again(world: World) -> None:
    client, _peer = await world.pair()
    port = world.proxy.port
    for _ in range(3):
        world.proxy.refuse()
        world.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await world.connect()
        await client.says(MESSAGE)
        world.proxy.heal()
        assert world.proxy.port == port
        await world.pair()
    world.proxy.refuse()
    world.proxy.heal()
    world.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await world.connect()
