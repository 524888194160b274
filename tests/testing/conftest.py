"""A small world to watch a ChaosProxy in: plain sockets on both of its sides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Protocol, cast

import pytest

from sessionkit.testing.chaos import ChaosProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager


class Running(Protocol):
    """Runs a world."""

    def __call__(self, *, seed: int = 7, echo: bool = True) -> AbstractAsyncContextManager[World]: ...


class Peer(asyncio.Protocol):
    """One end of a connection: keeps what it gets, and sends it back where it is an echo."""

    def __init__(self, *, echo: bool = False) -> None:
        self.transport: asyncio.Transport
        self.connected = asyncio.Event()
        self.echo = echo
        self.reads: list[bytes] = []
        self.ended = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    @property
    def got(self) -> bytes:
        return b"".join(self.reads)

    @property
    def size(self) -> int:
        return sum(map(len, self.reads))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)
        if self.echo:
            self.transport.write(data)
        self._changed.set()

    def eof_received(self) -> bool:
        self.ended = True
        if self.echo:
            self.transport.write_eof()
        self._changed.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def gets(self, expected: bytes) -> None:
        """Wait until it has got that many bytes since the last call: these."""
        await self.until(lambda: self.size >= len(expected) or self.lost.done())
        assert self.got == expected
        self.reads.clear()

    def vanish(self) -> None:
        """Close the connection as a killed process may."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    async def end(self) -> None:
        await self.until(lambda: self.ended)

    async def reset(self) -> None:
        """Wait until its connection is lost by a reset."""
        await self.until(self.lost.done)
        assert isinstance(self.lost.result(), ConnectionResetError)

    async def ended_or_lost(self) -> None:
        await self.until(lambda: self.ended or self.lost.done())

    async def hears_back(self) -> bool:
        """Send one byte to an echo, and say whether it came back before the connection was lost."""
        self.transport.write(b"?")
        await self.until(lambda: self.reads != [] or self.lost.done())
        heard, self.reads = self.reads != [], []
        return heard

    async def says(self, request: bytes) -> None:
        """Send, and get it back from an echo."""
        self.transport.write(request)
        await self.gets(request)


class World:
    """An upstream, a proxy to it, and clients of the proxy or of the upstream itself."""

    def __init__(self, first: Peer, upstream: list[Peer], port: int, proxy: ChaosProxy) -> None:
        self._first = first
        self.upstream = upstream
        self.clients: list[Peer] = []
        self.port = port
        self.proxy = proxy

    async def connect(self, port: int | None = None) -> Peer:
        loop = asyncio.get_running_loop()
        _transport, peer = await loop.create_connection(Peer, "127.0.0.1", port or self.proxy.port)
        self.clients.append(peer)
        return peer

    async def close(self) -> None:
        for peer in (*self.clients, *self.upstream):
            peer.transport.abort()
            await peer.lost

    async def pair(self) -> tuple[Peer, Peer]:
        """Return a client through the proxy, and the upstream's end of its connection."""
        client = await self.connect()
        await client.says(b"hello")
        peer = self.upstream[-1]
        peer.reads.clear()
        return client, peer

    async def accepted(self) -> Peer:
        """Return the upstream's first connection once it is there."""
        await self._first.connected.wait()
        return self._first

    async def quiet(self) -> None:
        """Let everything pass that can: what else was sent on the way is older than this."""
        direct = await self.connect(self.port)
        for _ in range(10):
            await direct.says(b"?")
        direct.transport.close()


@contextlib.asynccontextmanager
async def _running(*, seed: int = 7, echo: bool = True) -> AsyncIterator[World]:
    upstream: list[Peer] = []
    first = Peer(echo=echo)

    def accept() -> Peer:
        upstream.append(Peer(echo=echo) if upstream else first)
        return upstream[-1]

    problems: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    server = await loop.create_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = ChaosProxy("127.0.0.1", port, seed=seed)
    world = World(first, upstream, port, proxy)
    try:
        async with proxy:
            yield world
        assert proxy.open_connections == 0
        for _ in range(5):  # the upstream's server may be about to accept
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    finally:
        server.close()
        await world.close()
    assert problems == []


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world whose upstream is an echo, with a proxy of seed 7."""
    async with _running() as world:
        yield world


@pytest.fixture
def running() -> Running:
    """What runs worlds of other kinds: ``running(seed=..., echo=...)``."""
    return _running
