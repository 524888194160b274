"""The updates that wait for one bot."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from sessionkit.testing.botapi.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PER_POLL = 100
NOT_BY_DEFAULT = frozenset({"chat_member", "message_reaction", "message_reaction_count"})

_UPDATE_IDS = 2**31 - 2**27
_A_SECOND = 1000


class FirstIds:
    """Numbers for the first updates of servers, each larger than all that earlier servers have used.

    A bot with a store that outlives a server would take updates of the same numbers for processed. So they
    grow by a thousand each second, and by as much from server to server. After 23 days they start over, as
    Telegram's numbers are below 2**31.
    """

    def __init__(self) -> None:
        self._next = 0

    def take(self) -> int:
        """Return a number for a server that starts now."""
        first = max(self._next, int(time.time() * _A_SECOND) % _UPDATE_IDS + 1)
        self._next = first + _A_SECOND
        return first


first_ids = FirstIds()
"""Those of this process."""


class UpdateQueue:
    """Keeps every update, in order, until it is confirmed.

    Args:
        first_id: The number of the first one.

    Attributes:
        allowed: The kinds of updates to queue; empty: Telegram's default, all but ``NOT_BY_DEFAULT``.
        on_added: Called with each update as it is queued.
    """

    def __init__(self, first_id: int) -> None:
        self.allowed: list[str] = []
        self.on_added: Callable[[dict[str, Any]], None] | None = None
        self._pending: dict[int, dict[str, Any]] = {}
        self._next_id = first_id
        self._poll: asyncio.Future[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def pending(self) -> list[dict[str, Any]]:
        """The updates not confirmed yet, oldest first."""
        return list(self._pending.values())

    def add(self, kind: str, content: dict[str, Any]) -> int | None:
        """Queue an update, unless the bot does not want its kind.

        Args:
            kind: The name of the update's field, such as ``message``.
            content: The field's value.

        Returns:
            Its ``update_id``, or None where it was not queued.
        """
        if kind not in self.allowed if self.allowed else kind in NOT_BY_DEFAULT:
            return None
        update_id = self._next_id
        self._next_id += 1
        update = self._pending[update_id] = {"update_id": update_id, kind: content}
        self._empty.clear()
        self.wake()
        if self.on_added:
            self.on_added(update)
        return update_id

    def confirm(self, *update_ids: int) -> None:
        """Forget these updates: the bot has them."""
        for update_id in update_ids:
            self._pending.pop(update_id, None)
        if not self._pending:
            self._empty.set()

    def confirm_before(self, offset: int) -> None:
        """Forget the updates before an offset; a negative one counts from the end of the queue."""
        ids = list(self._pending)
        self.confirm(*(ids[:offset] if offset < 0 else [old for old in ids if old < offset]))

    def clear(self) -> None:
        """Forget all updates."""
        self.confirm(*self._pending)

    async def poll(self, offset: int, limit: int, timeout: float) -> list[dict[str, Any]]:
        """Confirm what is before the offset, and return what is pending, or wait for something.

        What is returned stays pending until a later call confirms it.

        Args:
            offset: As Telegram's ``getUpdates``.
            limit: How many updates to return at most.
            timeout: Seconds to wait where nothing is pending.

        Raises:
            ApiError: A later poll, or ``conflict``, took this one's place.
        """
        self.conflict(
            "terminated by other getUpdates request; make sure that only one bot instance is running"
        )
        self.confirm_before(offset)
        if not self._pending and timeout > 0:
            poll = self._poll = asyncio.get_running_loop().create_future()
            await asyncio.wait([poll], timeout=timeout)
            if self._poll is poll:
                self._poll = None
            if poll.done():
                poll.result()
        return list(islice(self._pending.values(), limit))

    def conflict(self, reason: str) -> None:
        """End the poll that waits, if any, with Telegram's 409 error."""
        if self._poll and not self._poll.done():
            self._poll.set_exception(ApiError(409, f"Conflict: {reason}"))
        self._poll = None

    def wake(self) -> None:
        """End the poll that waits, if any, with what is pending."""
        if self._poll and not self._poll.done():
            self._poll.set_result(None)

    async def drained(self) -> None:
        """Wait until every update is confirmed."""
        await self._empty.wait()
