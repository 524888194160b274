"""A room that many may be in at once, or one alone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Room:
    """Lets in everybody, or, once they have left, one who is to be alone. Who comes meanwhile waits."""

    def __init__(self) -> None:
        self._inside = 0
        self._left = asyncio.Event()
        self._left.set()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def enter(self, *, alone: bool = False) -> AsyncIterator[None]:
        """Run the body inside; alone, it must not enter again, nor wait for anybody who is to."""
        if alone:
            async with self._alone:
                await self._left.wait()
                yield
            return
        while self._alone.locked():
            async with self._alone:
                pass
        self._inside += 1
        self._left.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._left.set()
