"""The seam between the store and the way its commands travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Command: TypeAlias = tuple[bytes | str | int, ...]


class ErrorReply(NamedTuple):
    """A server's refusal of one command: its first word, such as ``WRONGTYPE``, and the whole text.

    The text may quote arguments; it must not reach a log or an error.
    """

    code: str
    text: str


Reply: TypeAlias = "bytes | int | list[Reply] | ErrorReply | None"


class Transport(Protocol):
    """Carries commands to one server."""

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Must send the commands in one write and return their replies in order.

        A refused command is an ``ErrorReply`` in its place and does not stop the others. A cancelled call
        must not disturb the replies of other callers.

        Raises:
            StoreUnavailable: No connection; ``applied`` is NO where nothing was sent, else MAYBE.
            StoreTimeout: No answer within the deadline; likewise.
        """
        ...

    async def aclose(self) -> None:
        """Must close every connection; later calls of ``execute`` raise ``StoreUnavailable``."""
        ...
