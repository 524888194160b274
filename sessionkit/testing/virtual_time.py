"""An event loop in which time passes only when nothing else can run."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from sessionkit.testing.clock import START

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_RESOLUTION = time.get_clock_info("monotonic").resolution


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that begins at 0 seconds and leaps to its next timer instead of waiting for it.

    What is timed takes no real time and happens in the same order every time. Time stands still while
    something can run, a socket is ready or a function runs in an executor. Of other threads and processes
    the loop knows nothing: its timers run out before their answers come. Without a timer it waits for them;
    if nothing comes for ``patience`` real seconds, what runs it raises a ``RuntimeError`` with the tasks.
    """

    def __init__(self, *, patience: float = 1.0) -> None:
        self._virtual = _VirtualSelector(patience)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return how many seconds have passed in this loop."""
        return self._virtual.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> Future[T]:
        """See ``asyncio.loop.run_in_executor``."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.working.add(future)
        future.add_done_callback(self._virtual.working.discard)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """See ``asyncio.loop.shutdown_default_executor``; waits for the threads however long they take."""
        self._virtual.working.add(self)
        await super().shutdown_default_executor()
        self._virtual.working.discard(self)


def virtual_clock() -> float:
    """Return the time of the running loop in seconds since the Unix epoch: a ``Clock`` that stores take.

    Raises:
        RuntimeError: No ``VirtualTimeLoop`` is running.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise RuntimeError(f"{loop!r} has no virtual time; see run_in_virtual_time")
    return START + loop.time()


def run_in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Do as ``asyncio.run`` in a ``VirtualTimeLoop``, with its ``RuntimeError`` if all wait for ever."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


class _VirtualSelector(selectors.DefaultSelector):
    def __init__(self, patience: float) -> None:
        super().__init__()
        self.now, self.working, self._patience = 0.0, set[object](), patience

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.working and timeout != 0:
            return super().select(None)
        ready = super().select(self._patience if timeout is None else 0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError(f"no timer is set and nothing else comes: {asyncio.all_tasks()} wait for ever")
        self.now += timeout
        # After half a year a float has no room for the resolution by which asyncio finds a timer due.
        if self.now + _RESOLUTION == self.now:
            self.now = math.nextafter(self.now, math.inf)
        return ready
