"""The lock of every built-in driver, made of three atomic steps that the driver provides."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from sessionkit.errors import (
    Applied,
    ConfigurationError,
    LeaseLost,
    LockNotAcquired,
    SessionKitError,
    StoreError,
    StoreUnavailable,
)
from sessionkit.store.checks import check_key, milliseconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

logger = logging.getLogger("sessionkit.locks")

_PAUSE = (0.05, 0.1)
_LOOK_AGAIN = (0.005, 0.05)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lock while it is held.

    Attributes:
        key: The lock's name.
        fence: A number larger than that of every earlier holder of this lock. Send it along with what the
            lock protects, and let the receiver refuse a smaller one than it has seen.
        local: Whether it is between the tasks of this process only, as the backend could not be asked.
    """

    key: str
    fence: int
    local: bool = False


class LeaseKeeper(Protocol):
    """What a driver must provide; each step atomic among all that share the records."""

    async def take_lease(self, key: str, token: str, lease: float) -> int | None:
        """Must give the lock to ``token`` for ``lease`` seconds and return its fence, or None if it is held.

        Asked again by the token that holds it, it must extend the lease and return the same fence.
        """
        ...

    async def extend_lease(self, key: str, token: str, lease: float) -> bool:
        """Must extend the lease if ``token`` still holds it, and return whether it does."""
        ...

    async def drop_lease(self, key: str, token: str) -> None:
        """Must free the lock if ``token`` holds it, else do nothing."""
        ...

    async def wait_for_release(self, key: str, seconds: float) -> None:
        """Must return once the lock may be free, and after ``seconds`` at the latest.

        It may return early, and is then called again. A backend that cannot tell uses ``look_again_soon``.
        """
        ...


async def look_again_soon(seconds: float) -> None:
    """Pause for some hundredths of a second, at most for ``seconds``: a ``wait_for_release`` by the clock."""
    await asyncio.sleep(min(seconds, random.uniform(*_LOOK_AGAIN)))


class Locks:
    """Locks over one ``LeaseKeeper``: local order first, then the backend's lease, renewed while held."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Turn]] = WeakKeyDictionary()
        self._held: dict[str, _Held] = {}
        self._takes: set[asyncio.Task[tuple[float, int]]] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self._closing = False

    @asynccontextmanager
    async def hold(self, key: str, *, lease: float, wait: float | None) -> AsyncIterator[Lease]:
        """Hold the lock while the body runs; see ``SessionStore.lock``."""
        check_key(key)
        milliseconds(lease)
        if wait is not None and not wait >= 0:
            raise ConfigurationError(f"wait is None or a number of seconds from 0 up, not {wait!r}")
        loop = asyncio.get_running_loop()
        give_up = None if wait is None else loop.time() + wait
        token = secrets.token_hex(16)
        async with self._turn(key, give_up):
            if self._closing:
                raise _closed(key)
            # A task of ours, as it must end, and free what it took, when the store is closed.
            take = loop.create_task(self._take(key, token, lease, give_up))
            self._takes.add(take)
            take.add_done_callback(self._takes.discard)
            try:
                started, fence = await take
                async with _limit(key, started + lease) as limit:
                    if self._closing:
                        raise _closed(key)
                    body = self._held[token].body = _Body(limit)
                    renewal = _Renewal(lambda: self._renew(key, token, lease, limit), lease / 3)
                    try:
                        yield Lease(key, fence)
                    finally:
                        body.over = True
                        renewal.cancel()
            finally:
                if self._held.pop(token, None) is not None:
                    await asyncio.shield(self._release(key, token, lease))

    async def aclose(self) -> None:
        """Free the locks that are held or being taken, and wait until they are; who holds one is told.

        Each release that is still due is tried once more. Who closes the store while holding a lock of it
        knows, and is left to end.
        """
        self._closing = True
        here = asyncio.get_running_loop()
        for take in list(self._takes):
            _call_on(take.get_loop(), take.cancel)
        while takes := [take for take in self._takes if take.get_loop() is here]:
            await asyncio.wait(takes)
        while self._held:
            token, held = self._held.popitem()
            if held.body is not None and held.body.task is not asyncio.current_task():
                _call_on(held.body.loop, held.body.end)
            self._release(held.key, token, lease=0)
        while releases := [release for release in self._releases if release.get_loop() is here]:
            await asyncio.wait(releases)

    @asynccontextmanager
    async def _turn(self, key: str, give_up: float | None) -> AsyncIterator[None]:
        # One order for each event loop: asyncio's lock knows but one. The backend's lease is between them.
        turns = self._turns.setdefault(asyncio.get_running_loop(), {})
        turn = turns.setdefault(key, _Turn())
        turn.interested += 1
        try:
            try:
                # A free lock is acquired without a pause, so even a wait of 0 gets it.
                async with asyncio.timeout_at(None if turn.interested == 1 else give_up):
                    await turn.lock.acquire()
            except TimeoutError:
                raise _not_acquired(key) from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.interested -= 1
            if not turn.interested:
                del turns[key]

    async def _take(self, key: str, token: str, lease: float, give_up: float | None) -> tuple[float, int]:
        """Take the lock, and return when its lease began and its fence."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                # Counted from before the request leaves: our lease must end no later than the backend's.
                started = loop.time()
                fence = await self._keeper.take_lease(key, token, lease)
                if fence is not None:
                    self._held[token] = _Held(key)
                    return started, fence
                left = float("inf") if give_up is None else give_up - loop.time()
                if left <= 0:
                    raise _not_acquired(key)
                await self._keeper.wait_for_release(key, left)
        except BaseException as error:
            # It may have been taken all the same, by a request whose answer was lost.
            self._release(key, token, lease)
            if self._closing and isinstance(error, asyncio.CancelledError):
                raise _closed(key) from None
            raise

    async def _renew(self, key: str, token: str, lease: float, limit: asyncio.Timeout) -> None:
        """Renew the lease, of which a third is over, until this is cancelled."""
        loop = asyncio.get_running_loop()
        while not self._closing:
            started = loop.time()
            pause = lease / 3
            try:
                held = await self._keeper.extend_lease(key, token, lease)
            except SessionKitError as error:
                logger.warning("lock %s not renewed, trying again: %s", key, error, extra={"key": key})
                pause = lease / 10
            else:
                if limit.expired():
                    return
                limit.reschedule(started + lease if held else loop.time())
            await asyncio.sleep(pause)

    def _release(self, key: str, token: str, lease: float) -> asyncio.Future[None]:
        """Free the lock, whatever becomes of the caller; the future is done after the first attempt.

        While the backend cannot be asked it goes on trying, until the lease has run out by itself.
        """
        loop = asyncio.get_running_loop()
        tried: asyncio.Future[None] = loop.create_future()

        async def drop() -> None:
            runs_out = loop.time() + lease
            while True:
                try:
                    await self._keeper.drop_lease(key, token)
                except SessionKitError as error:
                    again = isinstance(error, StoreError) and error.temporary and not self._closing
                    if not again or loop.time() >= runs_out:
                        logger.warning("lock %s not released: %s", key, error, extra={"key": key})
                        return
                else:
                    return
                finally:
                    if not tried.done():
                        tried.set_result(None)
                await asyncio.sleep(random.uniform(*_PAUSE))

        release = loop.create_task(drop())
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)
        return tried


@dataclass(slots=True)
class _Held:
    key: str
    body: _Body | None = None


class _Renewal:
    """Keeps a lease from its first third on; most are given back before, and cost no task.

    Args:
        renew: Does it.
        after: Seconds until it begins.
    """

    def __init__(self, renew: Callable[[], Coroutine[Any, Any, None]], after: float) -> None:
        self._renew = renew
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(after, self._start)

    def cancel(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = self._loop.create_task(self._renew())


class _Body:
    """What runs under a lock, and can be ended when that is lost."""

    def __init__(self, limit: asyncio.Timeout) -> None:
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        self.over = False
        self._limit = limit

    def end(self) -> None:
        if not self.over and not self._limit.expired():
            self._limit.reschedule(self.loop.time())


class _Turn:
    __slots__ = ("interested", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.interested = 0


@asynccontextmanager
async def _limit(key: str, until: float) -> AsyncIterator[asyncio.Timeout]:
    limit = asyncio.timeout_at(until)
    try:
        async with limit:
            yield limit
    except TimeoutError:
        if not limit.expired():
            raise
        raise _lost(key) from None
    if limit.expired():
        raise _lost(key)


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call soon on an event loop, which may be another thread's or have ended.

    Not at once: a task that is cancelled before it begins cannot say what that means.
    """
    if loop.is_running():
        loop.call_soon_threadsafe(callback)


def _lost(key: str) -> LeaseLost:
    # What the holder had begun may have been done.
    return LeaseLost(
        f"the lock {key!r} was lost while it was held: it expired, was taken over, or the store was closed",
        applied=Applied.MAYBE,
    )


def _closed(key: str) -> StoreUnavailable:
    return StoreUnavailable(f"the store of the lock {key!r} is closed", temporary=False)


def _not_acquired(key: str) -> LockNotAcquired:
    return LockNotAcquired(f"the lock {key!r} is held by another; waited as long as allowed")
