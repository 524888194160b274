"""A connection that is made anew when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sessionkit.errors import Applied, Backpressure, StoreError, StoreTimeout, StoreUnavailable
from sessionkit_redis.connection import MAX_CALLS, MAX_UNSENT_BYTES, Connection
from sessionkit_redis.errors import copy_for, store_closed
from sessionkit_redis.transport import pack_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkit_redis.dialling import Dial

logger = logging.getLogger("sessionkit.redis")

_FIRST_PAUSE: Final = 0.05
_MOST_DOUBLINGS: Final = 3
_MARK: Final = pack_one(("PING",))
_SETTLED: Final = 1.0
"""Seconds a connection must have lived for the next attempt to come without a pause."""


class Lane:
    """One connection to a server, on one event loop; at most one attempt to make it at a time.

    Args:
        dial: Makes the connection.
        where: The server's URL without credentials, for errors.
        timeout: Seconds an attempt may take.

    Attributes:
        connection: The last one made; see its ``usable``.
        connections_made: How many there have been.
    """

    def __init__(self, dial: Dial, where: str, timeout: float) -> None:
        self._dial = dial
        self._where = where
        self._timeout = timeout
        self._attempt: asyncio.Task[Connection] | None = None
        # Both in the order in which they came: it is that of their commands, too.
        self._waiters: dict[asyncio.Future[Connection], None] = {}
        # Who came while an attempt was under way, perhaps after what it met was over: the next one is theirs.
        self._late: dict[asyncio.Future[Connection], None] = {}
        self._live: set[Connection] = set()
        self._attempts = 0  # since a connection lasted
        self._failing = False
        self._made_at = 0.0
        self._held_bytes = 0
        self._closed = False
        self._predecessor: Connection | None = None
        self.connection: Connection | None = None
        self.connections_made = 0

    async def connected(self, deadline: float) -> Connection:
        """Return a connection that takes calls, making it if there is none.

        Args:
            deadline: When the caller must be told, by the event loop's clock.

        Raises:
            Backpressure: Too many callers wait for it already.
            StoreUnavailable: It cannot be made, or the lane is closed.
            StoreTimeout: It was not made by the deadline.
        """
        if self._closed:
            raise store_closed(self._where)
        if self.connection is not None and self.connection.usable:
            return self.connection
        if len(self._waiters) + len(self._late) >= MAX_CALLS:
            raise Backpressure(f"{self._where}: too many calls are waiting for a connection")
        # The attempt is everybody's: who gives up waiting for it must not end it.
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        if self._attempt is None:
            self._waiters[waiter] = None
            self._start()
        else:
            self._late[waiter] = None
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except TimeoutError:
            raise StoreTimeout(f"{self._where} cannot be reached in time") from None
        finally:
            self._waiters.pop(waiter, None)
            self._late.pop(waiter, None)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes that cannot be sent yet, while they wait for what happens in the body.

        Raises:
            Backpressure: Too many wait already.
        """
        if self._held_bytes > MAX_UNSENT_BYTES:
            raise Backpressure(f"{self._where}: too much is waiting for a connection")
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    @property
    def owes(self) -> bool:
        """Whether the server may still come to a call on this lane that its caller has given up."""
        return any(one is not None and one.owes for one in (self.connection, self._predecessor))

    async def settle(self, deadline: float) -> None:
        """Return once the server has come to everything that was sent on this lane before.

        Args:
            deadline: When the caller must be told, by the event loop's clock.

        Raises:
            StoreError: That cannot be known by then.
        """
        connection = await self.connected(deadline)
        try:
            await connection.call(_MARK, 1, deadline)
        except StoreError as error:
            raise copy_for(error, Applied.NO) from None

    def retire(self) -> None:
        """Close the connection once its calls are answered; the next caller makes a new one."""
        for connection in list(self._live):
            connection.retire()

    async def aclose(self) -> None:
        """Close every connection; who still waits for one, or for a reply, is told so."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        for connection in list(self._live):
            connection.close()
            await connection.closed
        await self._dial.aclose()

    def _start(self) -> None:
        self._attempt = asyncio.get_running_loop().create_task(self._connect())
        self._attempt.add_done_callback(self._attempted)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self.connection is not None and loop.time() - self._made_at > _SETTLED:
            self._attempts = 0
        if self.connection is not None:
            self._predecessor, self.connection = self.connection, None
        # Full jitter: all the bots that lost one server must not come back to it at once. See "Exponential
        # Backoff And Jitter", AWS Architecture Blog, 2015.
        doublings = min(self._attempts, _MOST_DOUBLINGS)
        pause = random.uniform(0, _FIRST_PAUSE * 2**doublings) if self._attempts else 0.0
        # Also one that succeeds: a connection may be lost as soon as it is made, again and again.
        self._attempts += 1
        if pause:
            await asyncio.sleep(pause)
        return await self._dial(loop.time() + self._timeout, self._predecessor)

    def _attempted(self, attempt: asyncio.Task[Connection]) -> None:
        self._attempt = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._made(attempt.result())
        elif self._closed:
            self._tell((*self._waiters, *self._late), store_closed(self._where))
        elif attempt.cancelled():
            # By nobody here: such as by a credential provider that gives up in that way.
            error = StoreUnavailable(f"{self._where} cannot be reached: the attempt was cancelled")
            self._tell((*self._waiters, *self._late), error)
        elif (failure := attempt.exception()) is not None:
            # Whoever waits is told; the exception itself stays out of the log record, which may be kept.
            # The first failure tells of an outage; the others would only repeat it, several times a second.
            level = logging.DEBUG if self._failing else logging.INFO
            logger.log(level, "attempt %d to connect failed: %s", self._attempts, str(failure))
            self._failing = True
            self._tell(self._waiters, failure)
            self._waiters = {waiter: None for waiter in self._late if not waiter.done()}
            self._late = {}
            if self._waiters:
                self._start()

    def _made(self, connection: Connection) -> None:
        self.connection, self._predecessor = connection, None
        self.connections_made += 1
        self._failing = False
        self._made_at = asyncio.get_running_loop().time()
        self._live.add(connection)
        connection.closed.add_done_callback(lambda _: self._live.discard(connection))
        for waiter in (*self._waiters, *self._late):
            if not waiter.done():
                waiter.set_result(connection)

    def _tell(self, waiters: Iterable[asyncio.Future[Connection]], error: BaseException) -> None:
        for waiter in waiters:
            if waiter.done():
                continue
            if isinstance(error, StoreError):
                waiter.set_exception(copy_for(error, Applied.NO))
            else:
                waiter.set_exception(error)
