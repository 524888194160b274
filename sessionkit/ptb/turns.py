"""Turns: who wants the same name goes one after the other, in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sessionkit.errors import LockNotAcquired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection


class _Place:
    """A place in several queues."""

    __slots__ = ("ahead", "reached")

    def __init__(self) -> None:
        self.ahead = 0
        self.reached: asyncio.Future[None] | None = None


class Turns:
    """The queues of this process. A place is taken in all of them at once, so nobody waits in a circle."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[_Place]] = {}

    def taken(self, name: str) -> bool:
        """Whether it is anybody's turn for this name."""
        return name in self._queues

    @asynccontextmanager
    async def take(self, names: Collection[str], wait: float | None = None) -> AsyncIterator[None]:
        """Run the body when it is this caller's turn for each of the names.

        The place is taken before anything is waited for.

        Args:
            names: The names.
            wait: Seconds to wait; None: for ever.

        Raises:
            LockNotAcquired: Others took longer than that.
        """
        place = _Place()
        for name in names:
            queue = self._queues.setdefault(name, deque())
            queue.append(place)
            place.ahead += len(queue) > 1
        try:
            if place.ahead:
                place.reached = asyncio.get_running_loop().create_future()
                try:
                    async with asyncio.timeout(wait):
                        await place.reached
                except TimeoutError:
                    raise LockNotAcquired(f"{', '.join(names)}: others took longer than {wait} s") from None
            yield
        finally:
            for name in names:
                self._leave(name, place)

    def _leave(self, name: str, place: _Place) -> None:
        queue = self._queues[name]
        was_first = queue[0] is place
        queue.remove(place)
        if not queue:
            del self._queues[name]
        elif was_first:
            queue[0].ahead -= 1
            reached = queue[0].reached
            if not queue[0].ahead and reached is not None and not reached.done():
                reached.set_result(None)
