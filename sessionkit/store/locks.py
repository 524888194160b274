"""The lock of every built-in driver, made of three atomic steps that the driver provides."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol
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
    from collections.abc import AsyncIterator, Callable

logger = logging.getLogger("sessionkit.locks")

_PAUSE = (0.05, 0.1)
_GRACE = 1.0
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
        self._grants: dict[str, _Grant] = {}
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
            grant = self._grants[token] = _Grant(key, loop)
            try:
                async with grant.limit:
                    started, fence = await self._take(key, token, lease, give_up)
                    grant.stage = _Stage.HELD
                    if self._closing:
                        raise _closed(key)
                    grant.until = started + lease
                    # Most are given back before a third of the lease is over, and cost no task.
                    timer = loop.call_later(lease / 3, self._start_renewing, grant, token, lease)
                    try:
                        yield Lease(key, fence)
                    finally:
                        timer.cancel()
                        if grant.renewing is not None:
                            grant.renewing.cancel()
                if loop.time() >= grant.until and not self._closing:
                    raise _lost(key)
            except TimeoutError:
                if not grant.limit.expired():
                    raise
                raise (_closed(key) if grant.stage is _Stage.TAKING else _lost(key)) from None
            finally:
                try:
                    if token in self._grants and grant.stage is _Stage.HELD:
                        grant.stage = _Stage.LEAVING
                        await self._leave(key, token, lease)
                finally:
                    self._grants.pop(token, None)
                    grant.end()

    async def aclose(self) -> None:
        """Free the locks that are held or being taken, and wait until they are; who holds one is told.

        A holder has a second to end before its lock is free. Each release that is still due is tried once
        more. Who closes the store while holding a lock of it knows, and is left to end.
        """
        self._closing = True
        here = asyncio.get_running_loop()
        others = [grant for grant in self._grants.values() if grant.task is not asyncio.current_task()]
        for grant in others:
            _call_on(grant.loop, grant.interrupt)
        if ending := [grant.ended() for grant in others if grant.loop is here]:
            await asyncio.wait(ending, timeout=_GRACE)
        for token, grant in list(self._grants.items()):
            if grant.stage is _Stage.HELD:
                del self._grants[token]
                self._release(grant.key, token, lease=0)
        while ending := [grant.ended() for grant in self._grants.values() if grant.loop is here]:
            await asyncio.wait(ending)
        while releases := [release for release in self._releases if release.get_loop() is here]:
            await asyncio.wait(releases)

    @asynccontextmanager
    async def _turn(self, key: str, give_up: float | None) -> AsyncIterator[None]:
        # One order for each event loop: asyncio's lock knows but one. The backend's lease is between them.
        turns = self._turns.setdefault(asyncio.get_running_loop(), {})
        turn = turns.get(key)
        if turn is None:
            turn = turns[key] = _Turn()
        turn.interested += 1
        try:
            try:
                if turn.interested == 1:
                    await turn.lock.acquire()  # without a pause, so even a wait of 0 gets it
                else:
                    async with asyncio.timeout_at(give_up):
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
                    return started, fence
                left = float("inf") if give_up is None else give_up - loop.time()
                if left <= 0:
                    raise _not_acquired(key)
                await self._keeper.wait_for_release(key, left)
        except BaseException:
            # It may have been taken all the same, by a request whose answer was lost.
            self._release(key, token, lease)
            raise

    def _start_renewing(self, grant: _Grant, token: str, lease: float) -> None:
        grant.limit.reschedule(grant.until)
        grant.renewing = grant.loop.create_task(self._renew(grant, token, lease))

    async def _renew(self, grant: _Grant, token: str, lease: float) -> None:
        """Renew the lease, of which a third is over, until this is cancelled."""
        key, loop = grant.key, grant.loop
        while not self._closing:
            started = loop.time()
            pause = lease / 3
            try:
                held = await self._keeper.extend_lease(key, token, lease)
            except SessionKitError as error:
                logger.warning("lock %s not renewed, trying again: %s", key, error, extra={"key": key})
                pause = lease / 10
            else:
                if grant.limit.expired():
                    return
                grant.until = started + lease if held else loop.time()
                grant.limit.reschedule(grant.until)
            await asyncio.sleep(pause)

    async def _leave(self, key: str, token: str, lease: float) -> None:
        """Free the lock; what fails or is cancelled is tried again without the caller."""
        try:
            await self._keeper.drop_lease(key, token)
        except BaseException as error:
            self._release(key, token, lease)
            if not isinstance(error, SessionKitError):
                raise

    def _release(self, key: str, token: str, lease: float) -> None:
        """Free the lock, whatever becomes of the caller.

        While the backend cannot be asked it goes on trying, until the lease has run out by itself.
        """
        loop = asyncio.get_running_loop()

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
                await asyncio.sleep(random.uniform(*_PAUSE))

        release = loop.create_task(drop())
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)


class _Stage(Enum):
    TAKING = "taking"
    HELD = "held"
    LEAVING = "leaving"
    OVER = "over"


class _Grant:
    """A lock on its way from being taken to being given back.

    Attributes:
        key: The lock's name.
        loop: Where it is held.
        task: Who holds it.
        stage: How far it is.
        limit: Ends the holder's body.
        until: When the lease ends, by the loop's clock.
        renewing: Renews it.
    """

    __slots__ = ("_ended", "key", "limit", "loop", "renewing", "stage", "task", "until")

    def __init__(self, key: str, loop: asyncio.AbstractEventLoop) -> None:
        self.key = key
        self.loop = loop
        self.task = asyncio.current_task()
        self.stage = _Stage.TAKING
        self.limit = asyncio.timeout(None)
        self.until = 0.0
        self.renewing: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    def interrupt(self) -> None:
        """End the taking or the body, unless that has ended."""
        if self.stage in (_Stage.TAKING, _Stage.HELD) and not self.limit.expired():
            self.limit.reschedule(self.loop.time())

    def ended(self) -> asyncio.Future[None]:
        """Return a future that is done once the lock is given back."""
        if self._ended is None:
            self._ended = self.loop.create_future()
        return self._ended

    def end(self) -> None:
        """Take note that it is."""
        self.stage = _Stage.OVER
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class _Turn:
    __slots__ = ("interested", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.interested = 0


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call soon on an event loop, which may be another thread's or have ended.

    Not at once: a task that is cancelled before it begins cannot say what that means.
    """
    if loop.is_running():
        loop.call_soon_threadsafe(callback)


def _lost(key: str) -> LeaseLost:
    # What the holder had begun may have been done.
    return LeaseLost(
        f"the lock {key!r} was lost while it was held: it expired, was taken over, or the store was closed;"
        " a holder that blocks the event loop for longer than its lease loses it",
        applied=Applied.MAYBE,
    )


def _closed(key: str) -> StoreUnavailable:
    return StoreUnavailable(f"the store of the lock {key!r} is closed", temporary=False)


def _not_acquired(key: str) -> LockNotAcquired:
    return LockNotAcquired(f"the lock {key!r} is held by another; waited as long as allowed")
