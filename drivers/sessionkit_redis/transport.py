"""The seam between the store and the way its commands travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast

import hiredis

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

Command: TypeAlias = tuple[bytes | str | int, ...]


# hiredis's types say a tuple of one; it takes any number.
pack_one = cast("Callable[[Command], bytes]", hiredis.pack_command)
"""Returns one command as it travels."""


class ErrorReply(NamedTuple):
    """A server's refusal of one command: its first word, such as ``WRONGTYPE``, and the whole text.

    The text may quote arguments; it must not reach a log or an error.
    """

    code: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text's words: a script's error carries the code of the call that failed somewhere in it."""
        return [word.strip("-:") for word in self.text.split()]

    def __repr__(self) -> str:
        return f"ErrorReply({self.code!r})"


Reply: TypeAlias = "bytes | int | list[Reply] | dict[Reply, Reply] | ErrorReply | None"


class Watched(NamedTuple):
    """A string as it was, and how to hear of its next change.

    Attributes:
        value: What stood under the key, None if nothing did, empty if that cannot be told now.
        expires_in: Seconds it would have stood there for, or None.
        changed: Done, or cancelled, once something else may stand there. That may be early, and an expiry may
            not do it. Whoever stops waiting cancels it.
    """

    value: bytes | None
    expires_in: float | None
    changed: asyncio.Future[None]


class Node(Protocol):
    """One server of those behind a ``Transport``."""

    def call(self, commands: Sequence[Command], deadline: float | None = None) -> Awaitable[list[Reply]]:
        """See ``Transport.call``; all commands go to this server."""
        ...

    @property
    def connections_made(self) -> int:
        """Must grow with each new connection for short commands: another process may answer from then on."""
        ...


class Servers(NamedTuple):
    """Which servers hold the records between them.

    Attributes:
        nodes: The servers.
        owners: Equal at two times only if no record has changed its server between them.
        moving: Whether records are on their way from one to another.
    """

    nodes: Sequence[Node]
    owners: object = None
    moving: bool = False


class Transport(Protocol):
    """Carries commands to the server, or servers, that keep the records."""

    def call(self, commands: Sequence[Command], deadline: float | None = None) -> Awaitable[list[Reply]]:
        """Must send the commands at once and, awaited, give their replies in order.

        Each command is of one key or of none, and on a single server of any number of them (see ``keys_of``).
        A refused command is an ``ErrorReply`` in its place and does not stop the others. A cancelled call
        must not disturb the replies of other callers.

        Args:
            commands: At least one.
            deadline: When the caller must be told, by the event loop's clock; None for the transport's own
                time limit from now.

        Raises:
            Backpressure: Too much is waiting already; nothing was sent.
            StoreUnavailable: No connection; ``applied`` is NO where nothing was sent, else MAYBE.
            StoreTimeout: No answer by the deadline; likewise.
        """
        ...

    def deadline(self) -> float:
        """Must return the deadline of a call that starts now."""
        ...

    async def watch(self, key: str) -> Watched:
        """Must read the string under the key and arrange to hear of its change.

        Raises:
            StoreError: As ``call``.
        """
        ...

    async def servers(self) -> Servers:
        """Must return which servers hold the records between them, as it is now.

        Raises:
            StoreError: As ``call``.
        """
        ...

    async def aclose(self) -> None:
        """Must close every connection; later calls raise ``StoreUnavailable``."""
        ...


def pack(commands: Sequence[Command]) -> bytes:
    """Return the commands as they travel."""
    return b"".join(map(pack_one, commands))


def keys_of(command: Command) -> Sequence[bytes | str]:
    """Return the keys that a command is of."""
    name = command[0]
    if name in {"EVALSHA", "EVAL"}:
        keys = command[3 : 3 + int(command[2])]
    else:
        keys = command[1:2] if name in _KEYED else ()
    return [str(key) if isinstance(key, int) else key for key in keys]


_KEYED = frozenset({"DEL", "GET", "PTTL"})
