"""From an address to a connection that is ready for commands."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from typing import TYPE_CHECKING, Final, Protocol

from sessionkit.errors import Applied, StoreError, StoreTimeout, StoreUnavailable
from sessionkit_redis.connection import Client, Connection
from sessionkit_redis.errors import from_exception, from_login_reply
from sessionkit_redis.options import NO_LOGIN
from sessionkit_redis.transport import ErrorReply, pack_one

if TYPE_CHECKING:
    from sessionkit_redis.addresses import Address
    from sessionkit_redis.options import Login, RedisOptions
    from sessionkit_redis.transport import Command, Reply

logger = logging.getLogger("sessionkit.redis")

# A connection that a firewall forgot for its idleness would cost its next caller a whole deadline.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Dial(Protocol):
    """Makes a connection to wherever its server is now."""

    async def __call__(self, deadline: float, predecessor: Connection | None = None) -> Connection:
        """Must return a connection on which the login is done.

        Args:
            deadline: When to give up, by the event loop's clock.
            predecessor: The connection in whose place it comes. What that still owes must be over, so that
                nothing of it is done after what is asked next.

        Raises:
            StoreUnavailable: The server cannot be reached, or refused; nothing was asked of it yet.
            StoreTimeout: It did not answer by the deadline.
        """
        ...

    async def aclose(self) -> None:
        """Must end what it has left running on this event loop."""
        ...


class DirectDial:
    """A ``Dial`` to one address.

    Args:
        address: Where the server is.
        options: How to talk to it.
        where: Its URL without credentials, for errors.
        sentinel: Whether it is a Sentinel.
    """

    def __init__(
        self, address: Address, options: RedisOptions, where: str, *, sentinel: bool = False
    ) -> None:
        self.address = address
        self._options = options
        self._where = where
        self._sentinel = sentinel

    async def __call__(self, deadline: float, predecessor: Connection | None = None) -> Connection:
        """See ``Dial``."""
        login = await self._options.login(self._where, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect(deadline)
        except Exception as error:
            raise self._hinted(from_exception(error, self._where, Applied.NO)) from None
        try:
            await self._greet(connection, login, deadline)
            if predecessor is not None and predecessor.owes:
                await _end(predecessor, connection, deadline)
        except StoreError as error:
            connection.close()
            raise self._hinted(error) from None
        except BaseException:
            connection.close()
            raise
        logger.info("connected to %s", self._where)
        return connection

    async def aclose(self) -> None:
        """See ``Dial``."""

    def _hinted(self, error: StoreError) -> StoreError:
        """Say what else may be wrong where a server hangs up on the first words, or over TLS falls silent."""
        silent = isinstance(error, StoreTimeout)
        hung_up = error.temporary and error.applied is not Applied.NO and not silent
        if silent and self._options.tls:
            hint = ": is this its TLS port?"
        elif hung_up and self._options.tls:
            hint = ": does it want a certificate of the client (ssl_cert_file)?"
        elif hung_up and not self.address.path:
            scheme = self._where.partition("://")[0].rpartition(" ")[2]
            hint = f": does it want TLS ({scheme.replace('redis', 'rediss')}://)?"
        else:
            return error
        return type(error)(f"{error}{hint}", applied=Applied.NO)

    def _new_connection(self) -> Connection:
        return Connection(self._where, self._options.timeout / 2)

    async def _connect(self, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        address, tls = self.address, self._options.tls
        if address.path:
            _, connection = await loop.create_unix_connection(self._new_connection, address.path)
            return connection
        _, connection = await loop.create_connection(
            self._new_connection,
            sock=await _connected(address, deadline),
            ssl=tls,
            server_hostname=address.host if tls else None,
        )
        return connection

    async def _greet(self, connection: Connection, login: Login, deadline: float) -> None:
        """Log in, speak RESP3, choose the database and say who we are, in one round trip."""
        options = self._options
        hello: Command = ("HELLO", 3)
        if login != NO_LOGIN:
            hello += ("AUTH", login.username or "default", login.password or "")
        commands: list[Command] = [(*hello, "SETNAME", options.client_name)]
        if options.db:
            commands.append(("SELECT", options.db))
        needed = len(commands)
        # Unknown before Redis 7.2, and not needed: its refusal is not looked at.
        commands.append(("CLIENT", "SETINFO", "LIB-NAME", "sessionkit"))
        # For the connection that may come after this one: see `_end`.
        commands.append(("INFO", "server"))
        # Each is a call of its own, as a server that refuses the first may hang up instead of answering more.
        calls = [connection.call(pack_one(command), 1, deadline) for command in commands]
        replies: list[Reply] = []
        for number, answer in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            if isinstance(answer, BaseException):
                raise answer
            [reply] = answer
            if number < needed and isinstance(reply, ErrorReply):
                raise from_login_reply(reply, self._where, sentinel=self._sentinel)
            if isinstance(reply, dict) and reply.get(b"mode") == b"sentinel" and not self._sentinel:
                scheme = "rediss" if options.tls else "redis"
                raise StoreUnavailable(
                    f"{self._where} is a Sentinel: its URL is {scheme}+sentinel://host:port/service",
                    temporary=False,
                )
            replies.append(reply)
        connection.client = _read_client(replies[0], replies[-1])


def _read_client(hello: Reply, info: Reply) -> Client | None:
    number = hello.get(b"id") if isinstance(hello, dict) else None
    run_id = re.search(rb"^run_id:(\w+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    return Client(run_id[1], number) if isinstance(number, int) and run_id is not None else None


async def _end(predecessor: Connection, connection: Connection, deadline: float) -> None:
    """Let the server drop what it has received from the predecessor and not come to yet.

    That would be done after what is asked now otherwise, and undo it. Where the server refuses, the answer
    says at least that it has come back to its connections.
    """
    old, new = predecessor.client, connection.client
    # To another server, or to this one before it started anew, the number was somebody else's.
    if old is not None and new is not None and old.run_id == new.run_id:
        await connection.call(pack_one(("CLIENT", "KILL", "ID", old.id)), 1, deadline)


async def _connected(address: Address, deadline: float) -> socket.socket:
    """Return a socket connected to the first of a host's addresses that answers.

    Each may take its share of the time, so that one that is silent leaves some to the others. asyncio's own
    way (``happy_eyeballs_delay``) loses the socket if it is cancelled in the moment in which it connects.

    Raises:
        OSError: None can be reached.
        TimeoutError: The last one did not answer in time.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, place) in zip(range(len(found), 0, -1), found, strict=True):
        now = loop.time()
        try:
            async with asyncio.timeout_at(now + (deadline - now) / left):
                return await _connected_to(place, family, kind, protocol)
        except OSError:  # which a TimeoutError is
            if left == 1:
                raise
    raise OSError(f"{address.host} has no address")


async def _connected_to(
    place: tuple[str | int | bytes, ...], family: int, kind: int, protocol: int
) -> socket.socket:
    connecting = socket.socket(family, kind, protocol)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, place)
        keep_alive(connecting)
    except BaseException:
        connecting.close()
        raise
    return connecting


def keep_alive(connected: socket.socket) -> None:
    """Let the system notice a peer that is gone, and show firewalls that the connection is in use."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
