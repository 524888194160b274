"""The least that can carry commands to Redis: what the event loop and hiredis allow, with no care taken."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeAlias, cast

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable

# hiredis's types say a tuple of one; it takes any number.
_pack = cast("Callable[[tuple[str | bytes | int, ...]], bytes]", hiredis.pack_command)

_Future: TypeAlias = "asyncio.Future[object]"


class Bare(asyncio.Protocol):
    """One connection that all callers share: a write per turn of the event loop, replies first in, first out.

    It knows no deadline, no bound, no reconnection and no cancellation: it is the ceiling, not a client.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._packed: list[bytes] = []
        self._due: deque[_Future] = deque()
        self._transport: asyncio.Transport | None = None

    def call(self, *command: str | bytes | int) -> _Future:
        """Send a command; the future gives its reply."""
        future: _Future = self._loop.create_future()
        self._due.append(future)
        if not self._packed:
            self._loop.call_soon(self._flush)
        self._packed.append(_pack(command))
        return future

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._due.popleft().set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        for future in self._due:
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._packed))
        self._packed.clear()
