"""A job: what one caller wants done in another thread, and what becomes of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from sessionkit.errors import SessionKitError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

Work: TypeAlias = Callable[[sqlite3.Connection, int], T]
"""What a caller wants done: a function of the connection and the time in microseconds."""


class Job(Generic[T]):
    """A caller's work and the future it awaits.

    The outcome is provisional until the lane posts it: a group that fails to commit overwrites it.
    """

    __slots__ = ("_claim", "_settle", "future", "loop", "work")

    def __init__(self, work: Work[T], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self._settle: Callable[[], object] = self.future.cancel
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Settle once, between two threads, whether the lane runs the job or its caller gave up on it."""
        return self._claim.acquire(blocking=False)

    def succeed(self, result: T) -> None:
        """Note what the work returned."""
        self._settle = partial(self.future.set_result, result)

    def fail(self, error: BaseException) -> None:
        """Note what the work raised."""
        # An error of ours explains itself, and its traceback would keep the batch alive.
        shown = error.with_traceback(None) if isinstance(error, SessionKitError) else error
        self._settle = partial(self.future.set_exception, shown)

    def post(self) -> None:
        """Hand the outcome to the caller, if it still waits; on the caller's loop only."""
        if not self.future.done():
            self._settle()


class Tick:
    """The jobs that tasks submit in one tick of their loop: they meet in one batch and share one timer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        end: Callable[[], None],
        give_up: Callable[[Iterable[Job[Any]]], None],
    ) -> None:
        self.loop = loop
        self.jobs: set[Job[Any]] = set()
        self._timer = loop.call_later(timeout, give_up, self.jobs)
        self._open = True
        loop.call_soon(self._end, end)

    def _end(self, end: Callable[[], None]) -> None:
        self._open = False
        self._cancel_if_empty()
        end()

    def remove(self, job: Job[Any]) -> None:
        """Forget a job whose caller waits no longer."""
        self.jobs.discard(job)
        self._cancel_if_empty()

    def _cancel_if_empty(self) -> None:
        if not self.jobs and not self._open:
            self._timer.cancel()
