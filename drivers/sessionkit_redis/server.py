"""The server as its store sees it: commands in, replies out, refusals raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkit.errors import Applied, StoreError, StoreUnavailable
from sessionkit_redis.errors import corrupt, from_reply
from sessionkit_redis.transport import ErrorReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkit.errors import CorruptRecord, SessionKitError
    from sessionkit_redis.scripts import Script
    from sessionkit_redis.transport import Command, Reply, Servers, Transport, Watched


class Server:
    """Commands and scripts over a transport.

    Args:
        transport: What carries them.
        where: The server's URL without credentials, for errors.

    Attributes:
        call: See ``Transport.call``.
    """

    def __init__(self, transport: Transport, where: str) -> None:
        self._transport = transport
        self.call = transport.call
        self.where = where

    async def run(self, script: Script, key: str, arguments: tuple[bytes | str | int, ...]) -> Reply:
        """Return the reply to one run of a script.

        Raises:
            SessionKitError: The server refused it, or cannot be asked.
        """
        command = script.by_name((key,), arguments)
        deadline = self._transport.deadline()
        [reply] = await self.call((command,), deadline)
        if isinstance(reply, ErrorReply):
            if reply.code == "NOSCRIPT":
                [reply] = await self.call((script.in_full(command),), deadline)
            return self.accept(reply, key)
        return reply

    async def run_many(self, script: Script, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to commands made by ``script.by_name``, refusals among them.

        Those that a server does not know by name are sent again in full, which is safe: a server that
        answers NOSCRIPT did nothing.

        Raises:
            StoreError: As ``Transport.call``; ``applied`` is MAYBE where only the second sending failed.
        """
        deadline = self._transport.deadline()
        replies = await self.call(commands, deadline)
        unknown = [at for at, reply in enumerate(replies) if _is_unknown_script(reply)]
        if unknown:
            try:
                again = await self.call([script.in_full(commands[at]) for at in unknown], deadline)
            except StoreError as error:
                if len(unknown) < len(commands):
                    error.applied = Applied.MAYBE
                raise
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return replies

    async def watch(self, key: str) -> Watched:
        """See ``Transport.watch``."""
        return await self._transport.watch(key)

    async def servers(self) -> Servers:
        """See ``Transport.servers``."""
        return await self._transport.servers()

    def accept(self, reply: Reply, key: str | None = None) -> Reply:
        """Return the reply, unless it is a refusal.

        Raises:
            SessionKitError: It is one.
        """
        if isinstance(reply, ErrorReply):
            raise self.refused(reply, key)
        return reply

    def number(self, reply: Reply) -> int:
        """Return a reply that is a number.

        Raises:
            StoreUnavailable: It is something else.
        """
        if not isinstance(reply, int):
            raise self.unexpected()
        return reply

    def refused(self, reply: ErrorReply, key: str | None) -> SessionKitError:
        """Return our error for a refusal."""
        if key is not None and "WRONGTYPE" in reply.words:
            return self.corrupt(key)
        return from_reply(reply, self.where)

    def corrupt(self, key: str) -> CorruptRecord:
        """Return the error for a key that holds something no sessionkit wrote."""
        return corrupt(key, self.where)

    def unexpected(self) -> StoreUnavailable:
        """Return the error for a reply that its command does not have."""
        return StoreUnavailable(
            f"{self.where} gave a reply that the command does not have: is it a Redis server?",
            temporary=False,
            applied=Applied.MAYBE,
        )

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, ErrorReply) and reply.code == "NOSCRIPT"
