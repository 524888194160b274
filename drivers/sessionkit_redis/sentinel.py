"""The primary that the Sentinels name, wherever it moves.

A Sentinel is asked, not believed: one that was cut off from the others goes on naming the old primary. So
what most of them say is tried first, and the server must call itself a primary, too. See "Guidelines for
Redis clients with support for Redis Sentinel" in Redis's documentation.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from sessionkit.errors import SessionKitError, StoreError, StoreUnavailable
from sessionkit_redis.addresses import MAX_PORT, Address, read_number
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.errors import from_reply
from sessionkit_redis.transport import ErrorReply, pack, pack_one

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sessionkit_redis.connection import Connection
    from sessionkit_redis.options import RedisOptions
    from sessionkit_redis.transport import Command, Reply

logger = logging.getLogger("sessionkit.redis")

_ASKING_SECONDS: Final = 1.0
"""What one Sentinel may take to answer; they are asked all at once."""

_SWITCH: Final = "+switch-master"
_PAUSE: Final = (0.5, 1.0)


class SentinelDial:
    """A ``Dial`` to the primary of a service.

    Args:
        sentinels: Where the Sentinels are.
        service: What they call the primary and its replicas.
        options: How to talk to the primary.
        sentinel_options: How to talk to the Sentinels.
        where: The store's URL without credentials, for errors.
    """

    def __init__(
        self,
        sentinels: Sequence[Address],
        service: str,
        options: RedisOptions,
        sentinel_options: RedisOptions,
        where: str,
    ) -> None:
        self._sentinels = sentinels
        self._service = service
        self._options = options
        self._sentinel_options = sentinel_options
        self._where = where
        self._guards: set[asyncio.Task[None]] = set()

    async def __call__(self, deadline: float, predecessor: Connection | None = None) -> Connection:
        """See ``Dial``; the connection closes when the Sentinels name another primary."""
        refusal: SessionKitError | None = None
        now = asyncio.get_running_loop().time()
        # However many Sentinels are silent, the other half is left to reach the primary.
        for address in await self._primaries(now + (deadline - now) / 2):
            try:
                connection = await self._dial_primary(address, deadline, predecessor)
            except StoreError as error:
                refusal = error
                continue
            self._start_guard(connection, address)
            return connection
        raise refusal or StoreUnavailable(
            f"the Sentinels of {self._where} know no service {self._service!r}", temporary=False
        )

    async def aclose(self) -> None:
        """See ``Dial``."""
        here = asyncio.get_running_loop()
        while mine := [guard for guard in self._guards if guard.get_loop() is here]:
            for guard in mine:
                guard.cancel()
            await asyncio.wait(mine)

    async def _dial_primary(
        self, address: Address, deadline: float, predecessor: Connection | None
    ) -> Connection:
        where = f"{self._where} (primary {address})"
        connection = await DirectDial(address, self._options, where)(deadline, predecessor)
        try:
            match await _ask(connection, ("ROLE",), deadline=deadline):
                case [b"master", *_]:
                    return connection
                case _:
                    raise StoreUnavailable(f"{where} is no primary: a failover is under way")
        except BaseException:
            connection.close()
            raise

    async def _primaries(self, deadline: float) -> list[Address]:
        """Return what the Sentinels name, what most of them name first; empty if they know no such service.

        Where more than half of them agree, it is that one alone: those that name another one may be cut off,
        and their primary with them, and what it still accepts is lost as soon as it hears of the new one.

        Raises:
            StoreError: None of them could be asked.
        """
        votes: Counter[Address] = Counter()
        failures: list[StoreError] = []
        questions = [asyncio.ensure_future(self._ask_one(sentinel, deadline)) for sentinel in self._sentinels]
        try:
            for answer in asyncio.as_completed(questions):
                try:
                    address = await answer
                except StoreError as error:
                    failures.append(error)
                    continue
                if address is not None:
                    votes[address] += 1
                    if votes[address] > len(self._sentinels) / 2:
                        return [address]
        finally:
            for question in questions:
                question.cancel()
            await asyncio.wait(questions)
        if len(failures) == len(questions):
            # A refusal that lasts says more than that another one is away.
            raise min(failures, key=lambda error: error.temporary)
        return [address for address, _ in votes.most_common()]

    async def _ask_one(self, sentinel: Address, deadline: float) -> Address | None:
        async with self._talk_to(sentinel, min(deadline, _soon())) as connection:
            return await self._named_by(connection, min(deadline, _soon()))

    @asynccontextmanager
    async def _talk_to(self, sentinel: Address, deadline: float) -> AsyncIterator[Connection]:
        where = f"the Sentinel {sentinel} of {self._where}"
        connection = await DirectDial(sentinel, self._sentinel_options, where, sentinel=True)(deadline)
        try:
            yield connection
        finally:
            connection.close()
            await connection.closed

    def _start_guard(self, connection: Connection, address: Address) -> None:
        guard = asyncio.get_running_loop().create_task(self._guard(connection, address))
        self._guards.add(guard)
        guard.add_done_callback(self._guards.discard)
        connection.closed.add_done_callback(lambda _: guard.cancel())

    async def _guard(self, connection: Connection, address: Address) -> None:
        """Close the connection once a Sentinel switches to another primary than its own."""
        # Others than the one that leads the failover may hear of it seconds later: so all are listened to.
        create_task = asyncio.get_running_loop().create_task
        listeners = [create_task(self._listen(sentinel, address)) for sentinel in self._sentinels]
        try:
            await asyncio.wait(listeners, return_when=asyncio.FIRST_COMPLETED)
            logger.warning("%s: the primary is no longer %s", self._where, address)
            connection.close()
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.wait(listeners)

    async def _listen(self, sentinel: Address, address: Address) -> None:
        while True:
            try:
                async with self._talk_to(sentinel, _soon()) as news:
                    return await self._wait_for_another(news, address)
            except SessionKitError as error:
                logger.info("cannot hear of a failover, trying again: %s", str(error))
            await asyncio.sleep(random.uniform(*_PAUSE))

    async def _wait_for_another(self, news: Connection, address: Address) -> None:
        """Return once another primary is named, by this Sentinel when it switches.

        At first they are all asked, and it takes most of them, or that none names this one any more: where
        they disagree, a new connection would be made to the same primary again.

        Raises:
            StoreError: The connection to the Sentinel is lost.
        """
        switched = news.watches.add(_SWITCH.encode())
        # A subscription is confirmed by a push, not by a reply: what is waited for is the PING's.
        await _ask(news, ("SUBSCRIBE", _SWITCH), ("PING",), deadline=_soon())
        # It may have switched before anybody listened.
        named = await self._primaries(_soon())
        while not named or address in named:
            await switched
            switched = news.watches.add(_SWITCH.encode())
            named = [await self._named_by(news, _soon()) or address]

    async def _named_by(self, sentinel: Connection, deadline: float) -> Address | None:
        name: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        [reply] = await sentinel.call(pack_one(name), 1, deadline)
        match reply:
            case [bytes(host), bytes(digits)] if host.isascii() and digits.isascii():
                port = read_number(digits.decode(), MAX_PORT)
                return None if port is None else Address(host.decode(), port)
            case ErrorReply(text=text) if "unknown command" in text:
                raise StoreUnavailable(
                    f"{sentinel.where} is none: the URL of a server is redis:// or rediss://", temporary=False
                )
            case ErrorReply():
                raise from_reply(reply, sentinel.where)
            case _:
                return None


def _soon() -> float:
    return asyncio.get_running_loop().time() + _ASKING_SECONDS


async def _ask(connection: Connection, *commands: Command, deadline: float) -> Reply:
    """Return the one reply to the commands."""
    [reply] = await connection.call(pack(commands), 1, deadline)
    if isinstance(reply, ErrorReply):
        raise from_reply(reply, connection.where)
    return reply
