"""Flights: what waits to be written of a record travels to the store once at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable

    from sessionkit.ptb.ledger import Ledger


class Flights:
    """Keeps writes of the same record apart, whoever sends them, and sees every one to its end.

    Args:
        ledger: What waits to be written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sending: set[asyncio.Task[None]] = set()

    def of(self, keys: Iterable[str]) -> set[asyncio.Future[None]]:
        """Return what travels for these keys; each is done when it has arrived or failed."""
        return {cell.flight for cell in self._ledger.concerned(keys) if cell.flight is not None}

    def take_off(self, keys: Collection[str]) -> asyncio.Future[None]:
        """Keep everybody else from sending what waits for these keys, until ``land`` is called."""
        flight = asyncio.get_running_loop().create_future()
        for cell in self._ledger.concerned(keys):
            cell.flight = flight
        return flight

    def land(self, keys: Collection[str], flight: asyncio.Future[None]) -> None:
        """Let others send what waits for these keys."""
        for key, cell in zip(keys, self._ledger.concerned(keys), strict=True):
            cell.flight = None
            if not cell.waiting:
                self._ledger.waiting.discard(key)
                self._ledger.failed.discard(key)
        flight.set_result(None)

    def start(self, sending: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start what sends something, and keep it until it has ended."""
        task = asyncio.create_task(sending)
        # The loop itself keeps no task alive whose waiters were all cancelled.
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def aclose(self) -> None:
        """Wait for what was started."""
        for task in list(self._sending):
            await asyncio.wait([task])
