"""The resilient store passes the suite of every store, whether its primary is well or away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkit.errors import StoreUnavailable
from sessionkit.resilience import ResilientStore, RetryPolicy
from sessionkit.store import Delete, Put, Receipt, SessionStore, Where, check_keys, check_prefix
from sessionkit.testing import ManualClock, SessionStoreConformance
from sessionkit.testing.chaos import ChaosStore
from sessionkit.testing.conformance import (
    AtomicTests,
    BatchTests,
    ExpiryTests,
    LockTests,
    RecordTests,
    ScanTests,
    VersionTests,
)
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sessionkit.store import Absent, Record, Version


class TestHealthy(SessionStoreConformance):
    virtual_time = True

    def setup_method(self) -> None:
        self.clock = ManualClock()

    def open_store(self) -> SessionStore:
        return ResilientStore(MemoryStore(clock=self.clock), clock=self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class OfKnownKeys(ResilientStore):
    """What is left when all else is taken away that degraded mode does not promise.

    A key nobody wrote is unknown, which is an error: here it is absent. What is read says that it may be
    stale: here it does not. Keys cannot be listed: here those in the journal are.
    """

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        receipt = await super().put(
            key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
        )
        assert receipt.where is Where.JOURNALED
        return Receipt(receipt.version)

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        return [Receipt(receipt.version) for receipt in await super().put_many(puts)]

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        batch = list(writes)
        for write in batch:
            if isinstance(write, (Put, Delete)) and await self.get(write.key) is None:
                await super().delete(write.key)
        return Receipt((await super().write_all(batch, write_id=write_id)).version)

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        try:
            record = await super().get(key, renew_for=renew_for)
        except StoreUnavailable as error:
            if not error.temporary:
                raise
            return None
        return None if record is None else record._replace(stale=False)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        records = [(key, await self.get(key)) for key in check_keys(keys)]
        return {key: record for key, record in records if record is not None}

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        try:
            return await super().touch(key, expires_in=expires_in, if_version=if_version)
        except StoreUnavailable as error:
            if not error.temporary:
                raise
            return False

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        if if_version is None and await self.get(key) is None:
            return False
        return await super().delete(key, if_version=if_version)

    async def delete_many(self, keys: Iterable[str]) -> int:
        return sum([await self.delete(key) for key in check_keys(keys)])

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        check_prefix(prefix)
        for entry in self.journal:
            if entry.key.startswith(prefix) and await self.get(entry.key) is not None:
                yield entry.key


class TestDegraded(RecordTests, VersionTests, ExpiryTests, BatchTests, AtomicTests, ScanTests, LockTests):
    """The primary is away throughout; it returns in time for the journal to be written."""

    virtual_time = True

    def setup_method(self) -> None:
        self.clock = ManualClock()

    def open_store(self) -> SessionStore:
        link = ChaosStore(MemoryStore(clock=self.clock), seed=1, clock=self.clock)
        link.refuse()
        store = OfKnownKeys(link, retry=RetryPolicy(attempts=1), clock=self.clock)
        close = store.aclose

        async def heal_and_close() -> None:
            link.heal()
            await close()
            assert store.journal.depth == 0
            assert store.counts.conflicts == 0

        store.aclose = heal_and_close  # type: ignore[method-assign]
        return store

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
