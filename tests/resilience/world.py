"""A resilient store over a primary that fails when told to, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from sessionkit.resilience import ConflictFound, ResilientStore, State, StateChanged
from sessionkit.testing.chaos import ChaosStore
from sessionkit.testing.virtual_time import run_in_virtual_time, virtual_clock
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from sessionkit.resilience import Event

P = ParamSpec("P")


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop in which waiting takes no time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_in_virtual_time(test(*args, **kwargs))

    return run


class World:
    """A primary, the link to it, and the store in front."""

    def __init__(self, **options: object) -> None:
        self.primary = MemoryStore(clock=virtual_clock)
        self.link = ChaosStore(self.primary, seed=1, clock=virtual_clock)
        self.store = ResilientStore(self.link, clock=virtual_clock, **options)  # type: ignore[arg-type]
        self.events: list[Event] = []
        self.store.subscribe(self.events.append)

    async def heal(self) -> None:
        """Let the primary work again, and wait until the store has noticed."""
        self.link.heal()
        await self.settle()

    async def settle(self) -> None:
        """Wait until the store is healthy."""
        healthy = asyncio.Event()

        def look(_: Event) -> None:
            if self.store.state is State.HEALTHY:
                healthy.set()

        unsubscribe = self.store.subscribe(look)
        if self.store.state is not State.HEALTHY:
            async with asyncio.timeout(3600):
                await healthy.wait()
        unsubscribe()

    @property
    def states(self) -> list[State]:
        return [event.new for event in self.events if isinstance(event, StateChanged)]

    @property
    def conflicts(self) -> list[ConflictFound]:
        return [event for event in self.events if isinstance(event, ConflictFound)]


@asynccontextmanager
async def world(**options: object) -> AsyncIterator[World]:
    here = World(**options)
    try:
        yield here
    finally:
        here.link.heal()
        await here.store.aclose()
