"""A bounded store in this process's memory."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from cachetools import TLRUCache

from sessionkit.errors import (
    BatchRefused,
    ConfigurationError,
    SessionKitError,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.store import (
    ABSENT,
    MAX_VALUE_BYTES,
    RING_SIZE,
    Absent,
    AtomicStore,
    Capabilities,
    Clock,
    Delete,
    Lease,
    LocalLeases,
    Locks,
    Put,
    Receipt,
    RecodingStore,
    Record,
    Scope,
    Version,
    check_expiry,
    check_key,
    check_keys,
    check_prefix,
    check_put,
    check_puts,
    check_recode,
    check_version,
    check_writes,
    new_version,
    receipts_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
_ENTRY_OVERHEAD = 500
_SCAN_PAGE = 1000


class _Entry(NamedTuple):
    record: Record
    ring: tuple[Version, ...]
    expires_at: float
    size: int


class MemoryStore(AtomicStore, RecodingStore):
    """A ``SessionStore`` in this process's memory.

    Args:
        max_bytes: The most it holds, counting keys, values and an overhead of about 500 bytes a record.
        evict: At the bound, True drops the records that were least recently used; False refuses new ones, as
            an acknowledged record must not vanish.
        clock: Gives the time in seconds; only differences count.
    """

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        evict: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        if max_bytes <= 0:
            raise ConfigurationError(f"max_bytes is above 0, not {max_bytes}")
        self._entries: TLRUCache[str, _Entry, float] = TLRUCache(
            max_bytes, lambda _key, entry, _now: entry.expires_at, clock, lambda entry: entry.size
        )
        self._max_bytes = max_bytes
        # What would not fit into an empty store is too large, and does not wait for room.
        most = max(1, min(MAX_VALUE_BYTES, max_bytes - _ENTRY_OVERHEAD))
        self._capabilities = Capabilities(
            durable=False, scope=Scope.INSTANCE, max_value_bytes=most, atomic=True
        )
        self._evict = evict
        self._clock = clock
        self._locks = Locks(LocalLeases(clock))
        self._closed = False

    def __repr__(self) -> str:
        return f"MemoryStore(max_bytes={self._max_bytes})"

    @property
    def capabilities(self) -> Capabilities:
        """See ``SessionStore.capabilities``."""
        return self._capabilities

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``."""
        check_key(key)
        check_expiry(renew_for)
        self._check_open()
        entry = self._entries.get(key)
        if entry is None:
            return None
        if renew_for is not None:
            self._entries[key] = entry._replace(expires_at=self._clock() + renew_for)
        return entry.record

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
        check_put(put, MAX_VALUE_BYTES)
        self._check_open()
        return self._put(put)

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``."""
        check_key(key)
        check_version(if_version)
        self._check_open()
        entry = self._entries.get(key)
        if entry is None:
            return False
        if if_version is not None and entry.record.version != if_version:
            raise VersionConflict(key, current=entry.record.version)
        del self._entries[key]
        return True

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        """See ``SessionStore.touch``."""
        check_key(key)
        check_expiry(expires_in)
        check_version(if_version)
        self._check_open()
        entry = self._entries.get(key)
        if entry is None:
            return False
        if if_version is not None and entry.record.version != if_version:
            raise VersionConflict(key, current=entry.record.version)
        self._entries[key] = entry._replace(expires_at=self._expiry(expires_in))
        return True

    async def recode(self, key: str, value: bytes, *, if_version: Version) -> bool:
        """See ``RecodingStore.recode``."""
        check_recode(key, value, if_version, MAX_VALUE_BYTES)
        self._check_open()
        old = self._entries.get(key)
        if old is None:
            return False
        if old.record.version != if_version:
            raise VersionConflict(key, current=old.record.version)
        entry = old._replace(
            record=Record(value, if_version), size=old.size - len(old.record.value) + len(value)
        )
        self._check_room(entry.size, _size(old))
        self._entries[key] = entry
        return True

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``."""
        wanted = check_keys(keys)
        self._check_open()
        found = ((key, self._entries.get(key)) for key in wanted)
        return {key: entry.record for key, entry in found if entry is not None}

    async def time_left(self, keys: Iterable[str]) -> dict[str, float | None]:
        """See ``TimedStore.time_left``."""
        wanted = check_keys(keys)
        self._check_open()
        now = self._clock()
        found = ((key, self._entries.get(key)) for key in wanted)
        return {
            key: None if entry.expires_at == math.inf else entry.expires_at - now
            for key, entry in found
            if entry is not None
        }

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``."""
        batch = check_puts(puts, MAX_VALUE_BYTES)
        self._check_open()
        results: list[Receipt | SessionKitError] = []
        for put in batch:
            try:
                results.append(self._put(put))
            except StoreError as error:
                results.append(error)
        return receipts_of(results)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``."""
        wanted = check_keys(keys)
        self._check_open()
        return sum(self._entries.pop(key, None) is not None for key in wanted)

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        """See ``AtomicStore.write_all``."""
        batch = check_writes(writes, write_id, MAX_VALUE_BYTES)
        self._check_open()
        version = write_id or new_version()
        old = {write.key: self._entries.get(write.key) for write in batch}
        if any(isinstance(write, Put) and version in _ring(old[write.key]) for write in batch):
            return Receipt(version)
        conflicts = {write.key: conflict for write in batch if (conflict := _conflict(write, old[write.key]))}
        if conflicts:
            raise BatchRefused(conflicts)
        new = {
            write.key: self._entry(write, version, old[write.key])
            for write in batch
            if isinstance(write, Put)
        }
        self._check_room(sum(map(_size, new.values())), sum(map(_size, old.values())))
        # Before the first is put, so that none is evicted for one that leaves.
        for key in old:
            self._entries.pop(key, None)
        for key, entry in new.items():
            self._entries[key] = entry
        return Receipt(version)

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``."""
        check_prefix(prefix)
        self._check_open()
        for position, key in enumerate(list(self._entries)):
            if position % _SCAN_PAGE == _SCAN_PAGE - 1:
                await asyncio.sleep(0)
            if key.startswith(prefix) and key in self._entries:
                yield key

    def lock(
        self, key: str, *, lease: float = 30.0, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[Lease]:
        """See ``SessionStore.lock``."""
        self._check_open()
        return self._locks.hold(key, lease=lease, wait=wait)

    async def ping(self) -> float:
        """See ``SessionStore.ping``."""
        self._check_open()
        return 0.0

    async def aclose(self) -> None:
        """Forget every record; later calls raise ``StoreUnavailable``."""
        await self._locks.aclose()
        self._closed = True
        self._entries.clear()

    def _put(self, put: Put) -> Receipt:
        old = self._entries.get(put.key)
        version = put.write_id or new_version()
        if version in _ring(old):
            return Receipt(version)
        conflict = _conflict(put, old)
        if conflict is not None:
            raise conflict
        entry = self._entry(put, version, old)
        self._check_room(entry.size, _size(old))
        self._entries[put.key] = entry
        return Receipt(version)

    def _entry(self, put: Put, version: Version, old: _Entry | None) -> _Entry:
        return _Entry(
            Record(put.value, version),
            (version, *_ring(old)[: RING_SIZE - 1]),
            self._expiry(put.expires_in),
            len(put.key) + len(put.value) + _ENTRY_OVERHEAD,
        )

    def _check_room(self, wanted: int, replaced: int) -> None:
        needed = wanted if self._evict else self._entries.currsize + wanted - replaced
        if needed > self._max_bytes:
            raise StoreUnavailable(
                f"the memory store is full ({self._max_bytes} bytes): raise max_bytes, or let it evict=true"
            )

    def _expiry(self, expires_in: float | None) -> float:
        return math.inf if expires_in is None else self._clock() + expires_in

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the memory store is closed", temporary=False)


def _ring(entry: _Entry | None) -> tuple[Version, ...]:
    return () if entry is None else entry.ring


def _size(entry: _Entry | None) -> int:
    return 0 if entry is None else entry.size


def _conflict(write: Put | Delete, old: _Entry | None) -> VersionConflict | None:
    """Return what is in the way of a write, if its condition does not hold."""
    if write.if_version is None or (old is None and isinstance(write, Delete)):
        return None
    current = ABSENT if old is None else old.record.version
    return None if write.if_version == current else VersionConflict(write.key, current=current)
