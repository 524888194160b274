"""Rare meetings of events that once went wrong, each played out on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from itertools import count
from typing import TYPE_CHECKING, Self, cast

import hiredis
import pytest

from sessionkit.errors import Applied, CorruptRecord, StoreTimeout, StoreUnavailable
from sessionkit.store import Put, Record, StoreURL
from sessionkit.testing.servers import RedisServer
from sessionkit.testing.servers.waiting import wait_for_async
from sessionkit_redis import open_driver
from sessionkit_redis.addresses import Address
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.multiplexer import BULK_BYTES, BULK_COMMANDS, Multiplexer
from sessionkit_redis.options import RedisOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.testing.servers import ServerBinary


async def turns() -> None:
    """Let the event loop run what is due, and write it."""
    for _ in range(4):
        await asyncio.sleep(0)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return cast("int", free.getsockname()[1])


class ScriptedServer:
    """A server that answers what a subclass wants.

    Attributes:
        port: Where it listens.
    """

    def __init__(self) -> None:
        self.port = 0

    def answer(self, command: list[bytes]) -> bytes:
        """Return what it answers, if anything."""
        return b"+OK\r\n"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await self._serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in writers:
                writer.close()
            for writer in writers:
                with suppress(OSError):
                    await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        with closing(writer), suppress(OSError):
            while data := await reader.read(1 << 16):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    writer.write(self.answer(cast("list[bytes]", command)))


class ScriptedSentinel(ScriptedServer):
    """A Sentinel that names what the test wants.

    Args:
        named: The port of the primary that it names, or None to answer nothing at all.

    Attributes:
        asked: How often it was asked for the primary.
    """

    def __init__(self, named: int | None) -> None:
        super().__init__()
        self.asked = 0
        self._named = str(named).encode() if named else None

    def answer(self, command: list[bytes]) -> bytes:
        if self._named is None:
            return b""
        match command:
            case [b"SENTINEL", *_]:
                self.asked += 1
                return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(self._named), self._named)
            case [b"SUBSCRIBE", *_]:
                return b">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n"
            case _:
                return super().answer(command)


class ScriptedPrimary(ScriptedServer):
    """A server that hangs up on whoever asks for a key.

    Attributes:
        run_id: What it says of its run, or None to refuse.
        heard: The commands that it was sent, but for those of the login.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run_id: bytes | None = b"0123456789abcdef"
        self.heard: list[list[bytes]] = []
        self._clients = count(7)

    def answer(self, command: list[bytes]) -> bytes:
        match command:
            case [b"HELLO", *_]:
                return b"%%1\r\n$2\r\nid\r\n:%d\r\n" % next(self._clients)
            case [b"INFO", *_] if self.run_id is not None:
                return b"$%d\r\n# Server\r\nrun_id:%s\r\n\r\n" % (len(self.run_id) + 19, self.run_id)
            case [b"INFO", *_]:
                return b"-NOPERM no\r\n"
            case [b"CLIENT", b"SETINFO", *_]:
                return b"+OK\r\n"
            case _:
                self.heard.append(command)
                if command[0] == b"GET":
                    raise ConnectionResetError
                return b":1\r\n"


class LateLearner(ScriptedServer):
    """A server that does not know the script once, and then has it from somebody else.

    Attributes:
        done: The keys and values that were put.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[bytes, bytes]] = []
        self._knows = False

    def answer(self, command: list[bytes]) -> bytes:
        match command:
            case [b"EVALSHA", *_] if not self._knows:
                self._knows = True
                return b"-NOSCRIPT no\r\n"
            case [b"EVALSHA" | b"EVAL", _, _, key, _, value, *_]:
                self.done.append((key, value))
                return b":1\r\n"
            case _:
                return super().answer(command)


class LoneNode(ScriptedServer):
    """A cluster of one, which tells of its slots and answers nothing about keys.

    Attributes:
        asked: How often it was asked for its slots.
        asked_again: Set once that was more than once.
        got: Set once it was asked for a key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.asked_again = asyncio.Event()
        self.got = asyncio.Event()

    def answer(self, command: list[bytes]) -> bytes:
        match command:
            case [b"CLUSTER", *_]:
                self.asked += 1
                if self.asked > 1:
                    self.asked_again.set()
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.port
            case [b"GET", *_]:
                self.got.set()
                return b""
            case _:
                return super().answer(command)


@asynccontextmanager
async def sentinels(*named: int | None) -> AsyncIterator[str]:
    """Run a Sentinel for each port to be named, and give the URL of them all."""
    async with AsyncExitStack() as stack:
        all_of_them = [await stack.enter_async_context(ScriptedSentinel(port).listening()) for port in named]
        yield f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in all_of_them)}/mymaster"


async def test_what_a_minority_of_sentinels_names_is_not_written_to(redis_server: RedisServer) -> None:
    # The one that was cut off, together with the primary of before, is heard first.
    cut_off, elsewhere = redis_server.port, unused_port()
    async with (
        sentinels(cut_off, elsewhere, elsewhere) as url,
        open_driver(StoreURL.parse(url)) as store,
    ):
        for number in range(10):
            with pytest.raises(StoreUnavailable):
                await store.put(f"{number}", b"lost as soon as the partition heals")
    async with open_driver(StoreURL.parse(redis_server.url())) as old:
        assert [key async for key in old.scan("")] == []


async def test_sentinels_that_disagree_leave_the_connection_alone(redis_server: RedisServer) -> None:
    async with (
        ScriptedSentinel(unused_port()).listening() as wrong,
        ScriptedSentinel(redis_server.port).listening() as right,
        open_driver(
            StoreURL.parse(f"redis+sentinel://127.0.0.1:{wrong.port},127.0.0.1:{right.port}/mymaster")
        ) as store,
        asyncio.timeout(30),
    ):
        # To find the primary, and by each of the two that listen for its successor.
        while min(wrong.asked, right.asked) < 3:
            await store.put("key", b"")
        for _ in range(50):
            await store.put("key", b"")
    assert (wrong.asked, right.asked) == (3, 3), "it was found once"


@pytest.mark.parametrize(
    ("host", "port"),
    [(b"\xff\xfe", b"6379"), (b"127.0.0.1", b"9" * 5000), (b"127.0.0.1", b"65536")],
    ids=["a host that is no text", "a port without end", "a port too large"],
)
async def test_what_a_sentinel_names_that_is_no_address_is_none(host: bytes, port: bytes) -> None:
    class Hostile(ScriptedSentinel):
        def answer(self, command: list[bytes]) -> bytes:
            if command[0] == b"SENTINEL":
                return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(host), host, len(port), port)
            return super().answer(command)

    async with (
        Hostile(1).listening() as sentinel,
        open_driver(StoreURL.parse(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster")) as store,
    ):
        with pytest.raises(StoreUnavailable, match="know no service"):
            await store.get("key")


async def test_a_sentinel_that_is_silent_leaves_time_to_reach_the_primary(redis_server: RedisServer) -> None:
    # Its silence may not take up all of an attempt, which is shorter here than a Sentinel is waited for.
    async with (
        sentinels(redis_server.port, None) as url,
        open_driver(StoreURL.parse(url), timeout=1.0) as store,
    ):
        assert await store.get("key") is None


async def test_who_gives_up_on_a_node_of_a_cluster_has_the_slots_learned_anew() -> None:
    # Its successor would never be heard of, if every caller gave up sooner than the driver does.
    node = LoneNode()
    async with (
        node.listening(),
        open_driver(StoreURL.parse(f"redis+cluster://127.0.0.1:{node.port}")) as store,
        asyncio.timeout(30),
    ):
        caller = asyncio.create_task(store.get("key"))
        await node.got.wait()
        assert node.asked == 1
        caller.cancel()
        await node.asked_again.wait()


async def test_puts_of_one_key_keep_their_order_when_some_must_be_sent_again() -> None:
    server = LateLearner()
    async with (
        server.listening(),
        open_driver(StoreURL.parse(f"redis://127.0.0.1:{server.port}")) as store,
    ):
        puts = [Put("a", b"1"), Put("b", b"1"), Put("a", b"2"), Put("a", b"3"), Put("b", b"2")]
        await store.put_many(puts)
    for key in ("a", "b"):
        values = [put.value for put in puts if put.key == key]
        assert [value for done, value in server.done if done == key.encode()] == values
    assert len(server.done) == len(puts)


async def test_an_ended_event_loop_may_be_forgotten_by_two_threads_at_once(redis_server: RedisServer) -> None:
    class Ending(asyncio.SelectorEventLoop):
        def is_closed(self) -> bool:
            ended = super().is_closed()
            if ended:
                transport._lanes.pop(self, None)  # another thread comes first
            return ended

    address = Address("127.0.0.1", redis_server.port)
    transport = Multiplexer(DirectDial(address, RedisOptions(), "redis://host"), "redis://host", 5.0)
    loops = [Ending(), Ending()]
    for loop in loops:
        transport._lanes_of(loop)
    for loop in loops:
        loop.close()
    assert await transport.call([("PING",)]) == [b"PONG"]
    await transport.aclose()


async def test_a_deletion_that_is_refused_in_part_may_have_been_applied(redis_server: RedisServer) -> None:
    async with open_driver(StoreURL.parse(redis_server.url())) as store:
        await store.put("mine:1", b"")
        await store.put("theirs", b"")
        redis_server.command("ACL", "SETUSER", "bot", "on", ">secret", "~mine:*", "+@all")
        try:
            async with open_driver(
                StoreURL.parse(redis_server.url()), username="bot", password="secret"
            ) as bot:
                with pytest.raises(StoreUnavailable, match="ACL rules") as some:
                    await bot.delete_many(["mine:1", "theirs"])
                with pytest.raises(StoreUnavailable, match="ACL rules") as none:
                    await bot.delete_many(["mine:1", "theirs"])
        finally:
            redis_server.command("ACL", "DELUSER", "bot")
        assert [key async for key in store.scan("")] == ["theirs"]
    assert some.value.applied is Applied.MAYBE
    assert none.value.applied is Applied.NO, "there was nothing left to delete"


@pytest.mark.parametrize(
    "foreign", [b"", b"\x01", b"text of somebody else", b"\x01\x05" + bytes(40), b"\x01\x01short"]
)
async def test_renewing_what_is_no_record_does_not_let_it_expire(
    redis_server: RedisServer, foreign: bytes
) -> None:
    redis_server.command("SET", "key", foreign)
    async with open_driver(StoreURL.parse(redis_server.url())) as store:
        with pytest.raises(CorruptRecord, match="it is kept"):
            await store.get("key", renew_for=300)
    assert redis_server.command("PTTL", "key") == b"-1"


async def test_a_large_put_that_was_cancelled_overwrites_no_later_one(redis_server: RedisServer) -> None:
    large = bytes(8_000_000)
    async with open_driver(StoreURL.parse(redis_server.url())) as store:
        # Both lanes are there, and the server knows the script.
        await store.put("key", large)
        await store.put("key", b"small")
        for number in range(20):
            abandoned = asyncio.create_task(store.put("key", large))
            for _ in range(3):  # it is on its way, and takes a while
                await asyncio.sleep(0)
            abandoned.cancel()
            await asyncio.wait([abandoned])
            receipt = await store.put("key", b"%d" % number)
            # Answered after the large one, in the lane of the large ones.
            await store.get_many(f"{other}" for other in range(BULK_COMMANDS))
            assert await store.get("key") == Record(b"%d" % number, receipt.version)


async def test_a_large_write_all_that_was_cancelled_overwrites_none_of_its_keys_later(
    redis_server: RedisServer,
) -> None:
    large = bytes(4_000_000)
    async with open_driver(StoreURL.parse(redis_server.url())) as store:
        await store.write_all([Put("first", large), Put("second", large)])
        await store.put("second", b"small")
        for number in range(5):
            abandoned = asyncio.create_task(store.write_all([Put("first", large), Put("second", large)]))
            await turns()  # it is on its way, and takes a while
            abandoned.cancel()
            await asyncio.wait([abandoned])
            receipt = await store.put("second", b"%d" % number)
            await store.get_many(f"{other}" for other in range(BULK_COMMANDS))
            assert await store.get("second") == Record(b"%d" % number, receipt.version)


@pytest.mark.parametrize("bulk", ["by its size", "by its number"])
async def test_a_small_put_that_was_cancelled_overwrites_no_later_large_one(
    server_binary: ServerBinary, bulk: str
) -> None:
    with RedisServer(server_binary) as server:
        async with open_driver(StoreURL.parse(server.url())) as store:
            await store.put("key", b"before")
            await store.put("other", bytes(BULK_BYTES))
            os.kill(server.pid, signal.SIGSTOP)
            try:
                # More than the server reads at once stands before the one that is given up.
                others = [asyncio.create_task(store.get(f"{number}" * 30)) for number in range(2000)]
                abandoned = asyncio.create_task(store.put("key", b"abandoned"))
                await turns()
                abandoned.cancel()
                await asyncio.wait([abandoned])
                puts = [Put("key", b"later" + bytes(BULK_BYTES if bulk == "by its size" else 0))]
                puts += [
                    Put(f"{number}", b"") for number in range(BULK_COMMANDS if bulk != "by its size" else 0)
                ]
                later = asyncio.create_task(store.put_many(puts))
                await turns()
            finally:
                os.kill(server.pid, signal.SIGCONT)
            receipt = (await later)[0]
            await asyncio.gather(*others)
            assert await store.get("key") == Record(puts[0].value, receipt.version)


@pytest.mark.parametrize("size", [10, BULK_BYTES], ids=["short", "long"])
@pytest.mark.parametrize("later", [10, BULK_BYTES], ids=["a short one", "a long one"])
async def test_a_put_on_a_lost_connection_overwrites_no_later_one(
    server_binary: ServerBinary, size: int, later: int
) -> None:
    with RedisServer(server_binary) as server:
        async with open_driver(StoreURL.parse(server.url()), timeout=0.5) as store:
            await store.put("key", b"before")
            await store.put("other", bytes(BULK_BYTES))
            os.kill(server.pid, signal.SIGSTOP)
            try:
                others = [asyncio.create_task(store.get(f"{number}" * 30)) for number in range(2000)]
                with pytest.raises(StoreTimeout) as caught:
                    await store.put("key", bytes(size))
                await asyncio.wait(others)
                newer = asyncio.create_task(store.put("key", b"newer" * later))
                await turns()
            finally:
                os.kill(server.pid, signal.SIGCONT)
            receipt = await newer
            await wait_for_async(lambda: _connections_beyond(server, 2), 30)
            assert await store.get("key") == Record(b"newer" * later, receipt.version)
            assert [other.exception() is not None for other in others] == [True] * len(others)
        assert caught.value.applied is Applied.MAYBE


def _connections_beyond(server: RedisServer, number: int) -> str:
    """Return those of the store that are more than so many."""
    clients = [
        line for line in server.command("CLIENT", "LIST").decode().splitlines() if "sessionkit" in line
    ]
    return "" if len(clients) <= number else "\n".join(clients)


async def test_a_lost_connection_is_ended_before_anything_else_is_asked() -> None:
    primary = ScriptedPrimary()
    async with (
        primary.listening(),
        open_driver(StoreURL.parse(f"redis://127.0.0.1:{primary.port}")) as store,
    ):
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.get("key")
        get = [b"GET", b"key"]
        kills = [[b"CLIENT", b"KILL", b"ID", number] for number in (b"7", b"8")]
        assert primary.heard == [get, kills[0], get, kills[1], get]


@pytest.mark.parametrize("run_id", [b"another", None], ids=["another server", "a server that does not say"])
async def test_no_connection_is_ended_on_another_server(run_id: bytes | None) -> None:
    # The number may be that of anybody's connection there.
    primary = ScriptedPrimary()
    async with (
        primary.listening(),
        open_driver(StoreURL.parse(f"redis://127.0.0.1:{primary.port}")) as store,
    ):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.get("key")
            primary.run_id = run_id
        assert primary.heard == [[b"GET", b"key"]] * 2
