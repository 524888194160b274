"""The transport to one server: two lanes per event loop, shared by all its callers."""

from __future__ import annotations

import asyncio
import random
from itertools import chain
from typing import TYPE_CHECKING, Final

from sessionkit.errors import StoreError
from sessionkit_redis.errors import store_closed
from sessionkit_redis.lane import Lane
from sessionkit_redis.transport import ErrorReply, Servers, Watched, keys_of, pack, pack_one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from sessionkit_redis.dialling import Dial
    from sessionkit_redis.transport import Command, Reply

BULK_BYTES: Final = 64 * 1024
"""From this size on, commands take the second lane, so that they hold up no short ones."""

BULK_COMMANDS: Final = 64
"""The same by their number, for their replies may be long."""

_LOOK_AGAIN: Final = (0.05, 0.1)


class Multiplexer:
    """A ``Transport`` over one full-duplex connection for short commands and one for long ones.

    Args:
        dial: Makes connections.
        where: The server's URL without credentials, for errors.
        timeout: Seconds a call may take.
    """

    def __init__(self, dial: Dial, where: str, timeout: float) -> None:
        self._dial = dial
        self.where = where
        self._timeout = timeout
        self._lanes: dict[asyncio.AbstractEventLoop, _Lanes] = {}
        self._last: _Lanes | None = None
        self._closed = False

    def call(self, commands: Sequence[Command], deadline: float | None = None) -> Awaitable[list[Reply]]:
        """See ``Transport.call``."""
        count = len(commands)
        packed = pack_one(commands[0]) if count == 1 else pack(commands)
        lanes = self._last
        loop = asyncio.get_running_loop()
        if lanes is None or lanes.loop is not loop:
            lanes = self._lanes_of(loop)
        if deadline is None:
            deadline = loop.time() + self._timeout
        if (
            count >= BULK_COMMANDS
            or len(packed) >= BULK_BYTES
            or (lanes.abandoned and lanes.follows_bulk(commands))
        ):
            return lanes.call_bulk(commands, packed, deadline)
        connection = lanes.short.connection
        if connection is None or not connection.usable:
            return self._call_once_connected(lanes.short, packed, count, deadline)
        return connection.call(packed, count, deadline)

    def deadline(self) -> float:
        """See ``Transport.deadline``."""
        return asyncio.get_running_loop().time() + self._timeout

    async def watch(self, key: str) -> Watched:
        """See ``Transport.watch``; by the server's tracking of keys where it allows that, else by the clock.

        Tracking is asked for anew each time, for this one key: see "Opt-in caching" in Redis's
        documentation of client-side caching.
        """
        loop = asyncio.get_running_loop()
        deadline = self.deadline()
        connection = await self._lanes_of(loop).short.connected(deadline)
        changed = connection.watches.add(key.encode())
        commands: list[Command] = [
            ("CLIENT", "TRACKING", "ON", "OPTIN"),
            ("CLIENT", "CACHING", "YES"),
            ("GET", key),
            ("PTTL", key),
        ]
        try:
            on, caching, value, expires_in = await connection.call(pack(commands), len(commands), deadline)
        except BaseException:
            changed.cancel()
            raise
        refused = isinstance(value, ErrorReply)  # such as by a node of a cluster that the key has left
        if on != b"OK" or caching != b"OK" or refused:
            loop.call_later(random.uniform(*_LOOK_AGAIN), changed.cancel)
        return Watched(
            b"" if refused else value if isinstance(value, bytes) else None,
            expires_in / 1000 if isinstance(expires_in, int) and expires_in >= 0 else None,
            changed,
        )

    async def servers(self) -> Servers:
        """See ``Transport.servers``."""
        return Servers((self,))

    @property
    def connections_made(self) -> int:
        """See ``Node.connections_made``."""
        return self._lanes_of(asyncio.get_running_loop()).short.connections_made

    def retire(self) -> None:
        """Close this event loop's connections once their calls are answered; later calls make new ones."""
        lanes = self._lanes.get(asyncio.get_running_loop())
        if lanes is not None:
            lanes.short.retire()
            lanes.bulk.retire()

    async def aclose(self) -> None:
        """See ``Transport.aclose``."""
        self._closed = True
        here = asyncio.get_running_loop()
        every = list(self._lanes.values())
        self._lanes.clear()
        self._last = None
        for lanes in every:
            if lanes.loop is here:
                await lanes.aclose()
            elif lanes.loop.is_running():
                # In another thread: its connections must be closed there, and may not be waited for here.
                asyncio.run_coroutine_threadsafe(lanes.aclose(), lanes.loop)

    async def _call_once_connected(
        self, lane: Lane, packed: bytes, count: int, deadline: float
    ) -> list[Reply]:
        with lane.holding(len(packed)):
            connection = await lane.connected(deadline)
        return await connection.call(packed, count, deadline)

    def _lanes_of(self, loop: asyncio.AbstractEventLoop) -> _Lanes:
        if self._closed:
            raise store_closed(self.where)
        lanes = self._lanes.get(loop)
        if lanes is None:
            # Other threads do the same for their loops.
            for ended in [other for other in list(self._lanes) if other.is_closed()]:
                self._lanes.pop(ended, None)
            lanes = self._lanes[loop] = _Lanes(loop, self._dial, self.where, self._timeout / 2)
        self._last = lanes
        return lanes


class _Lanes:
    """One event loop's lanes, and what keeps them in order.

    A call that its caller gave up may still be on its way in its lane, and so may one whose connection was
    lost, until the lane's next one has told the server. What is asked of the same key afterwards must not
    overtake it on the other lane, where it would be acknowledged first and undone then. So a short call
    follows an abandoned long one in its lane; and a long call, which may be of many keys, waits until the
    server has come to whatever was abandoned on the lane of the short ones.

    Attributes:
        abandoned: Keys of long commands whose callers gave up, or were told that the connection is lost.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, dial: Dial, where: str, timeout: float) -> None:
        self.loop = loop
        self.short = Lane(dial, where, timeout)
        self.bulk = Lane(dial, where, timeout)
        self.abandoned: set[str | bytes] = set()

    def follows_bulk(self, commands: Sequence[Command]) -> bool:
        """Whether the server may still come to an abandoned long command of one of the keys."""
        if not self.bulk.owes:
            self.abandoned.clear()
        return not self.abandoned.isdisjoint(_keys_of_all(commands))

    async def call_bulk(self, commands: Sequence[Command], packed: bytes, deadline: float) -> list[Reply]:
        with self.bulk.holding(len(packed)):
            if self.short.owes:
                await self.short.settle(deadline)
            connection = await self.bulk.connected(deadline)
        try:
            return await connection.call(packed, len(commands), deadline)
        except (asyncio.CancelledError, StoreError):
            self.abandoned.update(_keys_of_all(commands))
            raise

    async def aclose(self) -> None:
        await self.short.aclose()
        await self.bulk.aclose()


def _keys_of_all(commands: Sequence[Command]) -> Iterator[str | bytes]:
    return chain.from_iterable(map(keys_of, commands))
