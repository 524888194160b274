"""Writing that keeps every value until the store has acknowledged it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, stop_never, wait_random_exponential

from sessionkit.errors import (
    Applied,
    BatchFailed,
    CodecError,
    CorruptRecord,
    SessionKitError,
    StoreError,
    VersionConflict,
)
from sessionkit.store import ABSENT, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sessionkit.ptb.cells import Write
    from sessionkit.ptb.flights import Flights
    from sessionkit.ptb.ledger import Ledger
    from sessionkit.store import SessionStore

logger = logging.getLogger("sessionkit.ptb")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0


class Writer:
    """Writes what waits in a ledger, each record by compare-and-set against what was last seen of it.

    PTB hands a changed value over once and never again, so a value that could not be written stays in
    the ledger and is tried again until it is. Where somebody else wrote, the two are merged and it is tried
    again.

    Args:
        store: Gives the store; called for every batch.
        ledger: What is to be written.
        flights: Keeps its writes apart from others' of the same record.
        expiry: Gives the seconds after which a record of this key expires, or None.
    """

    def __init__(
        self,
        store: Callable[[], SessionStore],
        ledger: Ledger,
        flights: Flights,
        expiry: Callable[[str], float | None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._flights = flights
        self._expiry = expiry
        self._next_batch: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None
        self._closing = False
        self._when_sent: list[Callable[[], object]] = []

    async def settle(self, key: str) -> None:
        """Return when the store has acknowledged the value held for a key, or a newer one.

        What is held for other keys travels along.

        Raises:
            SessionKitError: The store did not acknowledge it. The value is kept and tried again, unless what
                is there cannot be read, and so not be merged or deleted.
        """
        if key in self._ledger.waiting:
            await self.send()
            error = self.failures().get(key) or self._ledger.refused.get(key)
            if error is not None:
                raise error

    async def send(self) -> None:
        """Send everything that still waits, deletions last; ``failures`` tells what came of it."""
        if not self._ledger.waiting:
            return
        if self._next_batch is None:
            self._next_batch = self._flights.start(self._send_all())
        # Shielded: others wait for the same batch.
        await asyncio.shield(self._next_batch)

    async def commit(self, keys: Iterable[str]) -> None:
        """Send what waits for these keys in one round trip; ``failures`` tells what came of it.

        What travels for one of them already is waited for first.
        """
        left = [key for key in keys if key in self._ledger.waiting]
        while left:
            ready = [key for key in left if self._ledger.cell(key).flight is None]
            if ready:
                # As long as all is well, deletions need not wait for the puts: they leave together, in order.
                flight = self._flights.take_off(ready)
                sending = self._fly(ready, flight, at_once=not self.failures())
                await asyncio.shield(self._flights.start(sending))
            else:
                await asyncio.wait(self._flights.of(left))
            left = [key for key in left if key not in ready and key in self._ledger.waiting]

    def when_sent(self, callback: Callable[[], object]) -> None:
        """Have a callback called after every batch, whatever became of it."""
        self._when_sent.append(callback)

    def failures(self) -> dict[str, SessionKitError]:
        """Return the error of each value that was sent and not acknowledged."""
        failures: dict[str, SessionKitError] = {}
        for key in self._ledger.failed:
            newest = self._ledger.cell(key).newest
            if newest is not None and newest.error is not None:
                failures[key] = newest.error
        return failures

    async def flush(self, patience: float | None = None) -> None:
        """Have everything stored that still waits, trying again where that may help.

        Args:
            patience: Seconds after which it tries no more; None: it goes on.

        Raises:
            SessionKitError: Something is not stored: trying did not help, or cannot.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(may_pass),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
            stop=stop_never if patience is None else stop_after_delay(patience),
            reraise=True,
        ):
            with attempt:
                await self.send()
                # What may pass first: as long as there is any, trying again is worth while.
                for error in sorted(self.failures().values(), key=may_pass, reverse=True):
                    raise error

    async def aclose(self) -> None:
        """Stop trying again, and wait for what is under way."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        await self._flights.aclose()
        if self._retry is not None:
            await asyncio.wait([self._retry])
        self._closing = False

    async def _send_all(self) -> None:
        async with self._sending:
            self._next_batch = None
            while away := self._flights.of(self._ledger.waiting):
                await asyncio.wait(away)
            keys = list(self._ledger.waiting)
            await self._fly(keys, self._flights.take_off(keys), at_once=False)

    async def _fly(self, keys: Sequence[str], flight: asyncio.Future[None], *, at_once: bool) -> None:
        """Send what waits for these keys until it has arrived or failed."""
        try:
            left: Sequence[str] = keys
            while left:
                left = await self._attempt(left, at_once=at_once)
        finally:
            self._flights.land(keys, flight)
        for callback in self._when_sent:
            callback()
        self._try_again_soon()

    async def _attempt(self, keys: Sequence[str], *, at_once: bool) -> list[str]:
        """Send the first value that waits for each key, and return the keys that need another attempt."""
        writes = {key: self._ledger.cell(key).waiting[0] for key in keys}
        puts = [key for key, write in writes.items() if write.value is not None]
        deletes = [key for key, write in writes.items() if write.value is None]
        if puts and deletes and at_once:
            # Tasks begin in this order, and so do their commands.
            put, delete = await asyncio.gather(self._put(puts, writes), self._delete(deletes))
            results = put | delete
        else:
            # Puts first, and deletes only if some succeeded: a process killed in between leaves a
            # conversation that has ended but is still there, not one that is gone with what it gave.
            results = await self._put(puts, writes) if puts else {}
            errors = [error for error in results.values() if may_pass(error)]
            if deletes and puts and len(errors) == len(puts):
                results |= dict.fromkeys(deletes, errors[0])
            elif deletes:
                results |= await self._delete(deletes)
        return await self._settle(writes, results)

    async def _settle(self, writes: dict[str, Write], results: dict[str, object]) -> list[str]:
        again: list[str] = []
        conflicts: list[str] = []
        for key, write in writes.items():
            cell, result = self._ledger.cell(key), results[key]
            match result:
                case VersionConflict():
                    conflicts.append(key)
                case CorruptRecord():
                    self._ledger.keep_unreadable(key, result)
                    self._ledger.drop_waiting(key)
                    self._ledger.refused[key] = result
                case CodecError() if key in self._ledger.refused:
                    self._ledger.drop_waiting(key)
                case SessionKitError():
                    in_doubt = isinstance(result, StoreError) and result.applied is Applied.MAYBE
                    cell.failed(write, result, in_doubt=in_doubt)
                    self._ledger.failed.add(key)
                case _:
                    cell.arrived(write)
                    if cell.waiting:
                        again.append(key)
        if conflicts:
            try:
                await self._ledger.resolve(conflicts)
            except SessionKitError as error:
                for key in conflicts:
                    self._ledger.cell(key).failed(writes[key], error, in_doubt=False)
                self._ledger.failed.update(conflicts)
            else:
                again += [key for key in conflicts if self._ledger.cell(key).waiting]
        return again

    async def _put(self, keys: Sequence[str], writes: dict[str, Write]) -> dict[str, object]:
        puts: list[Put] = []
        for key in keys:
            write, version = writes[key], self._ledger.cell(key).version
            assert write.value is not None
            # What was never read is merged with what is there, and never overwritten blindly.
            if_version = ABSENT if version is None else version
            puts.append(Put(key, write.value, self._expiry(key), if_version, write.write_id))
        results: Sequence[object]
        try:
            results = await self._store().put_many(puts)
        except BatchFailed as failed:
            results = failed.results
        except SessionKitError as error:
            results = [error] * len(puts)
        return dict(zip(keys, results, strict=True))

    async def _delete(self, keys: Sequence[str]) -> dict[str, object]:
        if len(keys) == 1:
            return {keys[0]: await self._delete_one(keys[0])}
        return dict(zip(keys, await asyncio.gather(*map(self._delete_one, keys)), strict=True))

    async def _delete_one(self, key: str) -> object:
        version = self._ledger.cell(key).version
        try:
            if not isinstance(version, bytes):
                found = await self._ledger.look_at(key)
                if found is None:
                    return False
                if version is ABSENT:  # others have made it since
                    return VersionConflict(key, current=found)
                version = found
            return await self._store().delete(key, if_version=version)
        except SessionKitError as error:
            return error

    def _try_again_soon(self) -> None:
        for key, error in self.failures().items():
            if self._retry is None and not self._closing and may_pass(error):
                logger.error("%s is not saved, trying again: %s", key, error, extra={"key": key})
                self._retry = asyncio.create_task(self._try_again())

    async def _try_again(self) -> None:
        try:
            await self.flush()
        except SessionKitError as error:
            logger.error("not saved, and trying again cannot help: %s", error)
        else:
            logger.info("saved after all")
        finally:
            self._retry = None


def may_pass(error: object) -> bool:
    """Whether the same may succeed later without anybody changing anything."""
    return isinstance(error, StoreError) and error.temporary
