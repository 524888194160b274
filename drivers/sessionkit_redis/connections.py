"""The transport over redis-py connections: a caller has one to itself while its replies are due."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from redis.asyncio import Connection
from redis.exceptions import RedisError, ResponseError

from sessionkit.errors import Applied, StoreUnavailable
from sessionkit_redis.errors import from_exception
from sessionkit_redis.transport import ErrorReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkit_redis.options import RedisOptions
    from sessionkit_redis.transport import Command, Reply


class ConnectionPool:
    """A ``Transport``: a bounded number of connections per event loop, most recently used first.

    redis-py's own pool raises when it is exhausted and may lose a connection to a caller cancelled while
    giving it back; this one makes callers wait.

    Args:
        options: Where the server is and how to talk to it.
        where: The server's URL without credentials, for errors.
    """

    def __init__(self, options: RedisOptions, where: str) -> None:
        self._options = options
        self._where = where
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lanes] = WeakKeyDictionary()
        self._closed = False

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """See ``Transport.execute``."""
        if self._closed:
            raise StoreUnavailable(f"the store at {self._where} is closed", temporary=False)
        lanes = self._lanes_of_this_loop()
        applied = Applied.NO
        try:
            async with asyncio.timeout(self._options.timeout), lanes.free:
                connection = await self._connected(lanes)
                try:
                    applied = Applied.MAYBE
                    await connection.send_packed_command(connection.pack_commands(commands))
                    replies = [await _read(connection) for _ in commands]
                except BaseException:
                    # Replies may still be due: nobody may use this connection again.
                    await connection.disconnect(nowait=True)
                    raise
                if self._closed:
                    await connection.disconnect(nowait=True)
                else:
                    lanes.idle.append(connection)
                return replies
        except (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise from_exception(error, self._where, applied) from None

    async def aclose(self) -> None:
        """See ``Transport.aclose``."""
        self._closed = True
        here = asyncio.get_running_loop()
        for loop, lanes in list(self._lanes.items()):
            if loop is here:
                await lanes.close()
            elif loop.is_running():
                # In another thread: its connections must be closed there, and may not be waited for here.
                asyncio.run_coroutine_threadsafe(lanes.close(), loop)
        self._lanes.clear()

    def _lanes_of_this_loop(self) -> _Lanes:
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            lanes = self._lanes[loop] = _Lanes(self._options.max_connections)
        return lanes

    async def _connected(self, lanes: _Lanes) -> Connection:
        while lanes.idle:
            connection = lanes.idle.pop()
            # Readable while nothing is due means that the server closed it.
            if connection.is_connected and not await connection.can_read():
                return connection
            await connection.disconnect(nowait=True)
        options = self._options
        connection = Connection(
            host=options.host,
            port=options.port,
            db=options.db,
            username=options.username,
            password=options.password,
            client_name=options.client_name,
            protocol=2,
            driver_info=None,
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


class _Lanes:
    """One event loop's connections."""

    def __init__(self, size: int) -> None:
        self.free = asyncio.Semaphore(size)
        self.idle: list[Connection] = []

    async def close(self) -> None:
        while self.idle:
            await self.idle.pop().disconnect(nowait=True)


async def _read(connection: Connection) -> Reply:
    try:
        reply: Reply = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except ResponseError as error:
        text = str(error)
        code = getattr(error, "status_code", None) or text.partition(" ")[0]
        return ErrorReply(code, f"{code} {text}")
    return reply
