"""Waiting for a resilient store to get somewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessionkit.resilience import StateChanged

if TYPE_CHECKING:
    from sessionkit.resilience import Event, ResilientStore, State

PATIENCE = 60


async def became(store: ResilientStore, *states: State) -> None:
    """Return once the store is in one of the states, or has been in one since the call."""
    reached = asyncio.Event()

    def look(event: Event) -> None:
        if isinstance(event, StateChanged) and event.new in states:
            reached.set()

    forget = store.subscribe(look)
    if store.state not in states:
        async with asyncio.timeout(PATIENCE):
            await reached.wait()
    forget()


async def turns(number: int = 1000) -> None:
    """Let everything go on that waits for nothing outside of this process."""
    for _ in range(number):
        await asyncio.sleep(0)
