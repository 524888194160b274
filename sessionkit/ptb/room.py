"""A room that many may be in at once, or one alone for as long as they need not wait too long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
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
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def enter(self, *, alone_within: float | None = None) -> AsyncIterator[None]:
        """Run the body inside; alone, it must not enter again, nor wait for anybody who is to.

        Args:
            alone_within: Seconds in which the others may leave, so that it is alone; if they do not, it is
                inside with them, as one of them may wait for somebody who is kept out. None: it need not be.
        """
        if alone_within is not None:
            async with self._alone:
                with suppress(TimeoutError):
                    async with asyncio.timeout(alone_within):
                        await self._left.wait()
                if not self._inside:
                    yield
                    return
        async with self._alone:  # in the order they came, whoever has been alone meanwhile
            pass
        self._inside += 1
        self._left.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._left.set()
