"""A TCP relay that notes what passes, to count round trips."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

Way = Literal["request", "reply"]


class Chunk(NamedTuple):
    """What was read at once.

    Attributes:
        way: Which way it went.
        connection: The number of its connection.
        data: The bytes.
    """

    way: Way
    connection: int
    data: bytes


class Recorder:
    """Relays to a server on this machine and notes every chunk, in the order in which they passed.

    Args:
        port: The server's port.

    Attributes:
        chunks: What has passed.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.chunks: list[Chunk] = []
        self._connections = 0

    @property
    def url(self) -> str:
        """The URL of the Redis server behind it."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    @property
    def requests(self) -> list[bytes]:
        """What was sent at once, each a round trip for a client that waits for its replies."""
        return [chunk.data for chunk in self.chunks if chunk.way == "request"]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        number = self._connections
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        requests = asyncio.create_task(self._pass("request", number, reader, back))
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._pass("reply", number, there, writer)
        finally:
            requests.cancel()
            await asyncio.wait([requests])
            for end in (back, writer):
                end.close()
            self._tasks.discard(task)

    async def _pass(
        self, way: Way, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            self.chunks.append(Chunk(way, number, data))
            writer.write(data)
            await writer.drain()
        writer.write_eof()
