"""Write-behind that keeps every value until the store has acknowledged it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Final

import stamina

from sessionkit.errors import BatchFailed, SessionKitError
from sessionkit.store import Put

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sessionkit.store import SessionStore

logger = logging.getLogger("sessionkit.ptb")

_DELETED: Final = b""
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

    @property
    def pending(self) -> int:
        """How many keys have a value that the store has not acknowledged."""
        return len(self._pending)

    def loaded(self, values: Mapping[str, bytes]) -> None:
        """Take note of what is stored, so that unchanged values are not written again."""
        self._stored.update({key: _digest(value) for key, value in values.items()})

    def knows(self, key: str) -> bool:
        """Whether a value of this key is stored or waiting to be."""
        if key in self._pending:
            return self._pending[key].value is not None
        return self._stored.get(key, _DELETED) != _DELETED

    async def write(self, key: str, value: bytes | None) -> None:
        """Have the value stored, or the record deleted for None; an unchanged one costs nothing.

        Returns when the store has acknowledged this value or a newer one. Writes that are asked for at the
        same time travel together.

        Raises:
            SessionKitError: The store did not acknowledge it. The value is kept and tried again.
        """
        if key not in self._pending and self._stored.get(key) == _digest(value):
            return
        write = self._pending[key] = _Write(value)
        await self._batch()
        if self._pending.get(key) is write and write.error is not None:
            raise write.error

    async def send(self) -> None:
        """Send everything that is still pending; ``failures`` tells what came of it."""
        if self._pending:
            await self._batch()

    def failures(self) -> dict[str, SessionKitError]:
        """Return the error of each value that was sent and not acknowledged."""
        return {key: write.error for key, write in self._pending.items() if write.error is not None}

    async def flush(self) -> None:
        """Have everything stored that is still pending.

        Raises:
            SessionKitError: The store did not acknowledge all of it. What is left is kept and tried again.
        """
        await self.send()
        for error in self.failures().values():
            raise error

    async def aclose(self) -> None:
        """Stop trying again."""
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.wait([self._retry])

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
        failures = self.failures()
        if failures and self._retry is None:
            key, error = next(iter(failures.items()))
            logger.error(
                "not saved, trying again", extra={"keys": len(failures), "key": key, "error": str(error)}
            )
            self._retry = asyncio.create_task(self._try_again())

    async def _send(self, writes: Mapping[str, _Write]) -> None:
        deletes = [key for key, write in writes.items() if write.value is None]
        if deletes:
            try:
                await self._store().delete_many(deletes)
            except SessionKitError as error:
                self._settle(writes, deletes, [error] * len(deletes))
            else:
                self._settle(writes, deletes, [None] * len(deletes))
        puts = [Put(key, write.value) for key, write in writes.items() if write.value is not None]
        if puts:
            results: Sequence[object]
            try:
                results = await self._store().put_many(puts)
            except BatchFailed as failed:
                results = failed.results
            except SessionKitError as error:
                results = [error] * len(puts)
            self._settle(writes, [put.key for put in puts], results)

    def _settle(self, writes: Mapping[str, _Write], keys: Sequence[str], results: Sequence[object]) -> None:
        for key, result in zip(keys, results, strict=True):
            write = writes[key]
            if isinstance(result, SessionKitError):
                write.error = result
                continue
            self._stored[key] = _digest(write.value)
            # A newer value may have come while this one travelled; it stays pending.
            if self._pending.get(key) is write:
                del self._pending[key]

    async def _try_again(self) -> None:
        try:
            async for attempt in stamina.retry_context(
                on=SessionKitError,
                attempts=None,
                timeout=None,
                wait_initial=FIRST_PAUSE,
                wait_max=LONGEST_PAUSE,
            ):
                with attempt:
                    await self.flush()
            logger.info("saved after all")
        finally:
            self._retry = None


class _Write:
    """A value on its way; compared by identity, as a newer one may be equal."""

    __slots__ = ("error", "value")

    def __init__(self, value: bytes | None) -> None:
        self.value = value
        self.error: SessionKitError | None = None


def _digest(value: bytes | None) -> bytes:
    return _DELETED if value is None else hashlib.blake2b(value, digest_size=16).digest()
