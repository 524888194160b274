"""A room that many may be in at once, or one alone for a while."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Room:
    """Lets in everybody, or, once they have left, one who is to be alone.

    Who comes meanwhile waits, and is let in in the order of arrival.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._left = asyncio.Event()
        self._left.set()
        self._door = asyncio.Lock()
        # Who are to be alone wait for each other here, so that between two of them all others get in.
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def enter(self, *, alone_for: float | None = None) -> AsyncIterator[None]:
        """Run the body inside; alone, it must not enter again.

        Being alone is a courtesy: who is inside may wait for somebody who is kept out.

        Args:
            alone_for: Seconds in which the others may leave, so that it is alone, and for which it is alone
                then; if they do not leave it is inside with them, and afterwards with whoever comes. None: it
                need not be alone.
        """
        with ExitStack() as keeping_out:
            if alone_for is not None:
                await self._alone.acquire()
                keeping_out.callback(self._alone.release)
            await self._door.acquire()
            keeping_out.callback(self._door.release)
            if alone_for is None or not await self._is_left(alone_for):
                keeping_out.close()
            else:
                end = asyncio.get_running_loop().call_later(alone_for, keeping_out.close)
                keeping_out.callback(end.cancel)
            self._inside += 1
            self._left.clear()
            try:
                yield
            finally:
                self._inside -= 1
                if not self._inside:
                    self._left.set()

    async def _is_left(self, within: float) -> bool:
        """Return whether nobody is inside any more, after as many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._left.wait()
        return not self._inside
