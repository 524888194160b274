"""A store that fails on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from sessionkit.errors import BatchFailed, ConfigurationError, SessionKitError, StoreUnavailable
from sessionkit.store import (
    Absent,
    AtomicStore,
    Capabilities,
    Clock,
    Delete,
    Lease,
    Put,
    Receipt,
    Record,
    SessionStore,
    Version,
    check_expiry,
    check_key,
    check_keys,
    check_prefix,
    check_put,
    check_puts,
    check_version,
    check_writes,
    milliseconds,
    receipts_of,
)
from sessionkit.testing.chaos.checkpoints import Checkpoints
from sessionkit.testing.chaos.switches import StoreSwitches

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Iterable

_SCAN_PAGE: Final = 100


class ChaosStore(StoreSwitches, AtomicStore):
    """Any store, with faults that are switched on and off while it is used; see ``StoreSwitches``.

    A call of any method of ``AtomicStore`` but ``aclose`` is one operation, and so is each page of a scan,
    of 100 keys. Arguments are checked before any fault is met. Its errors are temporary, but for those that
    a test passes.

    A lock is an operation when it is asked for. While it is held the inner store renews and frees it,
    whatever is switched on; one whose answer is lost is freed at once.

    It owns the inner store, and closes it.
    """

    def __init__(self, store: SessionStore, *, seed: int | None = None, clock: Clock = time.time) -> None:
        """Wrap a store; nothing is switched on.

        Args:
            store: The inner store.
            seed: What all randomness comes from; without one it is drawn. ``repr`` shows it.
            clock: What ``roll_back`` reckons expiries by: the inner store's, where it has one of its own.
        """
        super().__init__(seed)
        self._store = store
        self._checkpoints = Checkpoints(clock)
        self._closed = False

    def __repr__(self) -> str:
        return f"ChaosStore({self._store!r}, seed={self.seed})"

    async def checkpoint(self) -> None:
        """Remember all records, as a replica that falls behind from now on; no fault is met.

        Raises:
            StoreError: From the inner store.
        """
        await self._checkpoints.take(self._store)

    async def roll_back(self) -> None:
        """Make the store hold again what it held at the last checkpoint: a failover that loses writes.

        Values, versions and expiries come back; what has expired meanwhile does not. No fault is met, and
        nothing else may use the store until it is done. What does not come back:

        - the expiry of a record of which the last put, or a renewal after it, did not pass through this
          object: it stays as it is where the record was not written since, else the record does not expire;
        - of a record that was written since, the ids of the writes before the one that is restored: a
          repetition of theirs is taken for a new write;
        - locks: they stay as they are.

        Raises:
            ConfigurationError: There is no checkpoint.
            StoreError: From the inner store, which is then somewhere in between.
        """
        await self._checkpoints.go_back(self._store)

    @property
    def capabilities(self) -> Capabilities:
        """See ``SessionStore.capabilities``: the inner store's."""
        return self._store.capabilities

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``."""
        check_key(key)
        check_expiry(renew_for)
        self._check_open()

        async def call() -> Record | None:
            record = await self._store.get(key, renew_for=renew_for)
            if record is not None and renew_for is not None:
                self._checkpoints.renewed(key, renew_for)
            return record

        return await self._meet_once(call, [key])

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        """See ``SessionStore.put``."""
        put = Put(key, value, expires_in, if_version, write_id)
        check_put(put, self.capabilities.max_value_bytes)
        self._check_open()

        async def call() -> Receipt:
            receipt = await self._store.put(
                key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
            )
            self._checkpoints.written(put, receipt)
            return receipt

        return await self._meet_once(call, [key])

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``."""
        check_key(key)
        check_version(if_version)
        self._check_open()

        async def call() -> bool:
            deleted = await self._store.delete(key, if_version=if_version)
            self._checkpoints.deleted(key)
            return deleted

        return await self._meet_once(call, [key])

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        """See ``SessionStore.touch``."""
        check_key(key)
        check_expiry(expires_in)
        check_version(if_version)
        self._check_open()

        async def call() -> bool:
            touched = await self._store.touch(key, expires_in=expires_in, if_version=if_version)
            if touched:
                self._checkpoints.renewed(key, expires_in)
            return touched

        return await self._meet_once(call, [key])

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``."""
        wanted = check_keys(keys)
        self._check_open()
        return await self._meet_once(lambda: self._store.get_many(wanted), wanted)

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``; ``fail_randomly`` and ``fail_key`` concern each put by itself."""
        batch = check_puts(puts, self.capabilities.max_value_bytes)
        self._check_open()

        async def call(chance: random.Random) -> list[Receipt]:
            mishaps = [self._mishap([put.key], chance) for put in batch]
            reaching = [
                put for put, mishap in zip(batch, mishaps, strict=True) if mishap is None or mishap.applied
            ]
            outcomes = iter(await self._put_all(reaching))
            results: list[Receipt | SessionKitError] = []
            for mishap in mishaps:
                if mishap is None:
                    results.append(next(outcomes))
                else:
                    if mishap.applied:
                        next(outcomes)
                    results.append(mishap.error)
            return receipts_of(results)

        return await self._meet(call)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``."""
        wanted = check_keys(keys)
        self._check_open()

        async def call() -> int:
            deleted = await self._store.delete_many(wanted)
            for key in wanted:
                self._checkpoints.deleted(key)
            return deleted

        return await self._meet_once(call, wanted)

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        """See ``AtomicStore.write_all``; it fails, or is lost, as a whole.

        Raises:
            ConfigurationError: Also if the inner store is not atomic.
        """
        inner = self._store
        if not (isinstance(inner, AtomicStore) and inner.capabilities.atomic):
            raise ConfigurationError(f"{inner!r} cannot write several records all or none")
        batch = check_writes(writes, write_id, inner.capabilities.max_value_bytes)
        self._check_open()

        async def call() -> Receipt:
            receipt = await inner.write_all(batch, write_id=write_id)
            self._checkpoints.written_all(batch, receipt)
            return receipt

        return await self._meet_once(call, [write.key for write in batch])

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``."""
        check_prefix(prefix)
        self._check_open()
        keys = self._store.scan(prefix)
        try:
            while page := await self._meet_once(lambda: _next_page(keys), late=False):
                for key in page:
                    yield key
                if len(page) < _SCAN_PAGE:
                    break
        finally:
            if isinstance(keys, AsyncGenerator):
                await keys.aclose()

    @asynccontextmanager
    async def lock(self, key: str, *, lease: float = 30.0, wait: float | None = 10.0) -> AsyncIterator[Lease]:
        """See ``SessionStore.lock``."""
        check_key(key)
        milliseconds(lease)
        self._check_open()
        async with AsyncExitStack() as held:

            async def call() -> Lease:
                return await held.enter_async_context(self._store.lock(key, lease=lease, wait=wait))

            yield await self._meet_once(call, [key], late=False)

    async def ping(self) -> float:
        """See ``SessionStore.ping``; latency counts."""
        self._check_open()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._meet_once(self._store.ping, late=False)
        return loop.time() - started

    async def aclose(self) -> None:
        """Close the inner store; no fault is met, and what hangs is dropped, as by ``heal(drop=True)``."""
        self._closed = True
        self.heal(drop=True)
        if self._late:
            await asyncio.wait(self._late)
        await self._store.aclose()

    async def _put_all(self, puts: list[Put]) -> list[Receipt | SessionKitError]:
        try:
            results: list[Receipt | SessionKitError] = [*await self._store.put_many(puts)]
        except BatchFailed as error:
            results = error.results
        for put, result in zip(puts, results, strict=True):
            if isinstance(result, Receipt):
                self._checkpoints.written(put, result)
        return results

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self!r} is closed", temporary=False)


async def _next_page(keys: AsyncIterator[str]) -> list[str]:
    page: list[str] = []
    async for key in keys:
        page.append(key)
        if len(page) == _SCAN_PAGE:
            break
    return page
