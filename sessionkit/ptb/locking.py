"""The store's locks of one unit of work: taken together, and given back without waiting."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from sessionkit.errors import LockNotAcquired, SessionKitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator

    from sessionkit.store import SessionStore

logger = logging.getLogger("sessionkit.ptb")


class StoreLocks:
    """Takes several locks of a store for one body.

    Each lock is held by a task of its own. So several are taken in one round trip, and the body's end need
    not wait until they are given back.

    Args:
        store: Gives the store.
        lease: Seconds after which the locks of a process that was killed are free again.
    """

    def __init__(self, store: Callable[[], SessionStore], lease: float) -> None:
        self._store = store
        self._lease = lease
        self._holders: dict[asyncio.Task[None], str] = {}

    @asynccontextmanager
    async def hold(self, names: Collection[str], wait: float | None) -> AsyncIterator[Callable[[], None]]:
        """Hold the locks while the body runs, or until it calls what it is given.

        All are tried at once. Where that fails those that were had are given back, and they are waited for
        one after the other in sorted order, as everybody does, so that nobody waits in a circle.

        Args:
            names: The locks' names.
            wait: Seconds to wait for another holder; None: for ever.

        Raises:
            LockNotAcquired: Another holder kept one for so long.
            LeaseLost: Out of the body, which is cancelled: a lock expired or was taken over.
            StoreError: The store cannot be asked.
        """
        order = sorted(names)
        holds: list[_Hold] = []
        try:
            if len(order) > 1:
                while before_us := [task for task, name in self._holders.items() if name in names]:
                    await asyncio.wait(before_us)  # our own last turn, being given back
                holds = [_Hold(self, name, 0) for name in order]
                try:
                    await _had(holds)
                except LockNotAcquired:
                    await _let_go(holds)
                    holds = []
            if not holds:
                for name in order:
                    holds.append(_Hold(self, name, wait))
                    await _had(holds[-1:])
            with _guarded(holds):
                yield lambda: _give_back(holds)
        finally:
            for hold in holds:
                hold.release()

    async def aclose(self) -> None:
        """Wait until all locks are given back."""
        while self._holders:
            await asyncio.wait(self._holders)

    def start(self, hold: _Hold, name: str, wait: float | None) -> asyncio.Task[None]:
        """Start the task that holds one lock."""
        task = asyncio.create_task(hold.run(self._store(), name, self._lease, wait))
        self._holders[task] = name
        task.add_done_callback(self._holders.pop)
        return task


class _Hold:
    """One lock, held by a task of its own."""

    def __init__(self, locks: StoreLocks, name: str, wait: float | None) -> None:
        loop = asyncio.get_running_loop()
        self.had: asyncio.Future[None] = loop.create_future()
        self.lost: SessionKitError | None = None
        self.when_lost: Callable[[], object] = lambda: None
        self._over = asyncio.Event()
        self.task = locks.start(self, name, wait)

    async def run(self, store: SessionStore, name: str, lease: float, wait: float | None) -> None:
        try:
            async with store.lock(name, lease=lease, wait=wait):
                if not self.had.cancelled():
                    self.had.set_result(None)
                    await self._over.wait()
        except SessionKitError as error:
            if not self.had.done():
                self.had.set_exception(error)
            elif not self._over.is_set():
                self.lost = error
                self.when_lost()
            else:
                logger.warning("lock %s not given back in good order: %s", name, error, extra={"key": name})
        finally:
            self.had.cancel()

    def release(self) -> None:
        """Give the lock back soon, or do not take it any more."""
        if not self.had.done() or self.had.cancelled():
            self.had.cancel()
            self.task.cancel()
        elif not self.had.exception():
            self._over.set()


@contextmanager
def _guarded(holds: list[_Hold]) -> Iterator[None]:
    """Cancel the body, once, when a lock is lost, and raise why."""
    body = asyncio.current_task()
    assert body is not None
    before, cancels = body.cancelling(), 0

    def end() -> None:
        nonlocal cancels
        if not cancels:
            cancels = 1
            body.cancel()

    for hold in holds:
        hold.when_lost = end
        if hold.lost is not None:
            end()
    try:
        yield
    except asyncio.CancelledError:
        lost = [hold.lost for hold in holds if hold.lost is not None]
        if cancels and body.uncancel() <= before:
            raise lost[0] from None
        raise
    finally:
        for hold in holds:
            hold.when_lost = lambda: None


def _give_back(holds: list[_Hold]) -> None:
    for hold in holds:
        hold.when_lost = lambda: None
        hold.release()


async def _had(holds: list[_Hold]) -> None:
    """Return when all are held; raise what the first one to fail did once all are decided."""
    await asyncio.wait([hold.had for hold in holds])
    for hold in holds:
        hold.had.result()


async def _let_go(holds: list[_Hold]) -> None:
    for hold in holds:
        hold.release()
    await asyncio.wait([hold.task for hold in holds])
