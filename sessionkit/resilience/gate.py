"""Whether an operation may go to the primary."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessionkit.errors import CircuitOpen, StoreError, StoreUnavailable
from sessionkit.resilience.states import State
from sessionkit.store import check_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkit.resilience.journal import Journal
    from sessionkit.resilience.recovery import Recovery


class Gate:
    """Lets operations through to the primary, or not.

    Args:
        journal: Loaded before the first one.
        recovery: Knows the state, and replays what waits for a key that is asked for.
        raises: Whether an operation that may not pass is refused instead of being served from here.
    """

    def __init__(self, journal: Journal, recovery: Recovery, *, raises: bool) -> None:
        self._journal = journal
        self._recovery = recovery
        self._raises = raises
        self._loading: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._loaded = journal.file is None

    async def is_open(self) -> bool:
        """Return whether the primary may be asked.

        Raises:
            CircuitOpen: It may not, and nothing else is to be asked.
            StoreUnavailable: The store is closed.
        """
        recovery = self._recovery
        if not self._loaded and not self._is_closed:
            async with self._loading_turn():
                if not self._loaded and not self._is_closed:
                    await self._journal.load()
                    await recovery.start()
                    self._loaded = True
        if self._is_closed:
            raise closed()
        recovery.ensure_probing()
        if recovery.state in {State.HEALTHY, State.REPLAYING}:
            return True
        if self._raises:
            raise CircuitOpen(
                f"the store failed, and is left alone until a probe succeeds: {recovery.reason}"
            )
        return False

    async def is_open_for(self, key: str) -> bool:
        """Return whether the primary may be asked for a key: then nothing waits for it any more.

        Raises:
            CircuitOpen: As ``is_open``.
            StoreUnavailable: As ``is_open``.
        """
        check_key(key)
        if not await self.is_open():
            return False
        if key in self._journal:
            try:
                await self._recovery.replay_key(key)
            except StoreError as error:
                self._recovery.open(str(error))
        return key not in self._journal and await self.is_open()

    async def is_open_for_all(self, keys: Sequence[str]) -> bool:
        """Return whether the primary may be asked for all of these keys at once, as ``is_open_for`` of one.

        Raises:
            CircuitOpen: As ``is_open``.
            StoreUnavailable: As ``is_open``.
        """
        if not await self.is_open():
            return False
        # While one is replayed, another may be journaled.
        while waiting := [key for key in keys if key in self._journal]:
            for key in waiting:
                if not await self.is_open_for(key):
                    return False
        return await self.is_open()

    @property
    def _is_closed(self) -> bool:
        return self._recovery.state is State.DRAINING

    def _loading_turn(self) -> asyncio.Lock:
        # One for each event loop: asyncio's lock knows but one.
        loop = asyncio.get_running_loop()
        if self._loading is None or self._loading[0] is not loop:
            self._loading = (loop, asyncio.Lock())
        return self._loading[1]


def closed() -> StoreUnavailable:
    """Return the error of a store that is closed."""
    return StoreUnavailable("the store is closed", temporary=False)
