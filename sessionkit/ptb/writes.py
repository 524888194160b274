"""Write-behind that keeps every value until the store has acknowledged it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Final

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, stop_never, wait_random_exponential

from sessionkit.errors import BatchFailed, SessionKitError, StoreError
from sessionkit.store import Put

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sessionkit.store import SessionStore

logger = logging.getLogger("sessionkit.ptb")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0


class WriteBuffer:
    """The values PTB handed over and the store has not acknowledged yet, the newest of each key.

    PTB hands a changed value over once and never again, so a value that could not be written stays here and
    is tried again until it is.

    Args:
        store: Gives the store; called for every batch.
    """

    def __init__(self, store: Callable[[], SessionStore]) -> None:
        self._store = store
        self._pending: dict[str, _Write] = {}
        self._stored: dict[str, bytes] = {}
        self._next_batch: asyncio.Task[None] | None = None
        self._batches: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None
        self._closing = False
        self._when_sent: list[Callable[[], object]] = []

    def loaded(self, key: str, mark: bytes) -> None:
        """Take note of what is stored, by its ``mark_of``, so that it is not written again unchanged."""
        self._stored[key] = mark

    def forget(self, key: str) -> None:
        """Take note that nothing is stored under a key any more."""
        self._stored.pop(key, None)

    def is_stored(self, key: str, mark: bytes) -> bool:
        """Whether the store has the value of this mark, and nothing newer is on its way."""
        return key not in self._pending and self._stored.get(key) == mark

    def knows(self, key: str) -> bool:
        """Whether a value of this key is stored or waiting to be."""
        if key in self._pending:
            return self._pending[key].value is not None
        return key in self._stored

    def hold(self, key: str, value: bytes, mark: bytes) -> None:
        """Take a value to be stored, and its mark."""
        self._hold(key, value, mark)

    def drop(self, key: str) -> None:
        """Take note of a record that is to be deleted."""
        self._hold(key, None, b"")

    async def settle(self, key: str) -> None:
        """Return when the store has acknowledged the value held for a key, or a newer one.

        What is held for other keys travels along.

        Raises:
            SessionKitError: The store did not acknowledge it. The value is kept and tried again.
        """
        if key in self._pending:
            await self._batch()
            write = self._pending.get(key)
            if write is not None and write.error is not None:
                raise write.error

    async def send(self) -> None:
        """Send everything that is still pending; ``failures`` tells what came of it."""
        if self._pending:
            await self._batch()

    def when_sent(self, callback: Callable[[], object]) -> None:
        """Have a callback called after every batch, whatever became of it."""
        self._when_sent.append(callback)

    def failures(self) -> dict[str, SessionKitError]:
        """Return the error of each value that was sent and not acknowledged."""
        return {key: write.error for key, write in self._pending.items() if write.error is not None}

    async def flush(self, patience: float | None = None) -> None:
        """Have everything stored that is still pending, trying again where that may help.

        Args:
            patience: Seconds after which it tries no more; None: it goes on.

        Raises:
            SessionKitError: Something is not stored: trying did not help, or cannot.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
            stop=stop_never if patience is None else stop_after_delay(patience),
            reraise=True,
        ):
            with attempt:
                await self.send()
                # What may pass first: as long as there is any, trying again is worth while.
                for error in sorted(self.failures().values(), key=_may_pass, reverse=True):
                    raise error

    async def aclose(self) -> None:
        """Stop trying again, and wait for what is under way."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        for task in [*self._batches, *([self._retry] if self._retry is not None else [])]:
            await asyncio.wait([task])
        self._closing = False

    def _hold(self, key: str, value: bytes | None, mark: bytes) -> None:
        older = self._pending.get(key)
        # What failed is not mended by a newer value that has not travelled yet.
        self._pending[key] = _Write(value, mark, None if older is None else older.error)

    async def _batch(self) -> None:
        if self._next_batch is None:
            self._next_batch = asyncio.create_task(self._send_batch())
            # The loop itself keeps no task alive whose waiters were all cancelled.
            self._batches.add(self._next_batch)
            self._next_batch.add_done_callback(self._batches.discard)
        # Shielded: others wait for the same batch.
        await asyncio.shield(self._next_batch)

    async def _send_batch(self) -> None:
        async with self._sending:
            self._next_batch = None
            await self._send(dict(self._pending))
        for callback in self._when_sent:
            callback()
        for key, error in self.failures().items():
            if self._retry is None and not self._closing and _may_pass(error):
                logger.error("%s is not saved, trying again: %s", key, error, extra={"key": key})
                self._retry = asyncio.create_task(self._try_again())

    async def _send(self, writes: Mapping[str, _Write]) -> None:
        # Puts first, and deletes only if some succeeded: a process killed in between leaves a conversation
        # that has ended but is still there, not one that is gone with what it gave.
        puts = [Put(key, write.value) for key, write in writes.items() if write.value is not None]
        results: Sequence[object] = []
        if puts:
            try:
                results = await self._store().put_many(puts)
            except BatchFailed as failed:
                results = failed.results
            except SessionKitError as error:
                results = [error] * len(puts)
            self._settle(writes, [put.key for put in puts], results)
        deletes = [key for key, write in writes.items() if write.value is None]
        if deletes:
            failures = [result for result in results if isinstance(result, SessionKitError)]
            stuck = puts and len(failures) == len(puts) and _may_pass(failures[0])
            outcome = failures[0] if stuck else None
            if outcome is None:
                try:
                    await self._store().delete_many(deletes)
                except SessionKitError as error:
                    outcome = error
            self._settle(writes, deletes, [outcome] * len(deletes))

    def _settle(self, writes: Mapping[str, _Write], keys: Sequence[str], results: Sequence[object]) -> None:
        for key, result in zip(keys, results, strict=True):
            write = writes[key]
            if isinstance(result, SessionKitError):
                write.error = result
                # A newer value that came while this one travelled is not stored either.
                self._pending[key].error = result
                continue
            if write.value is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = write.mark
            # A newer value may have come while this one travelled; it stays pending.
            if self._pending.get(key) is write:
                del self._pending[key]

    async def _try_again(self) -> None:
        try:
            await self.flush()
        except SessionKitError as error:
            logger.error("not saved, and trying again cannot help: %s", error)
        else:
            logger.info("saved after all")
        finally:
            self._retry = None


class _Write:
    """A value on its way; compared by identity, as a newer one may be equal."""

    __slots__ = ("error", "mark", "value")

    def __init__(self, value: bytes | None, mark: bytes, error: SessionKitError | None) -> None:
        self.value = value
        self.mark = mark
        self.error = error


def mark_of(plain: bytes) -> bytes:
    """Return what tells a value from every other: a hash of its plain record."""
    return hashlib.blake2b(plain, digest_size=16).digest()


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StoreError) and error.temporary
