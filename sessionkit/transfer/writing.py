"""Records put into a store, and looked at again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessionkit.errors import BatchFailed, CorruptRecord, SessionKitError, VersionConflict
from sessionkit.store import ABSENT, Put
from sessionkit.transfer.records import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkit.store import Clock, SessionStore
    from sessionkit.transfer.records import MovedRecord


@dataclass
class Transfer:
    """What became of records that were put into a store.

    Attributes:
        written: How many were written.
        unchanged: How many were there already.
        expired: How many had expired on the way.
        conflicts: The keys under which the store has something else, which was kept.
        refused: The keys of records that the store cannot take, and why.
        sent: The number and digest of what should be there: all but these.
        found: The number and digest of what was there when it was read again.
    """

    written: int = 0
    unchanged: int = 0
    expired: int = 0
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    sent: Digest = field(default_factory=Digest)
    found: Digest = field(default_factory=Digest)

    @property
    def complete(self) -> bool:
        """Whether every record that has not expired is in the store, as was seen by reading it again."""
        return not (self.conflicts or self.refused) and self.sent == self.found


class TargetWriter:
    """Puts records into a store, and reads them again. It can be done again, as after a kill.

    Args:
        store: The store.
        overwrite: Whether to write over other records that are there.
        clock: Gives the time in seconds since the Unix epoch.

    Attributes:
        transfer: What became of the records so far.
    """

    def __init__(self, store: SessionStore, *, overwrite: bool = False, clock: Clock = time.time) -> None:
        self._store = store
        self._overwrite = overwrite
        self._clock = clock
        self.transfer = Transfer()

    async def write(self, records: Sequence[MovedRecord]) -> None:
        """Put a page of records into the store.

        Raises:
            StoreError: The store failed; some of them may be there.
        """
        now = self._clock()
        puts = []
        for record in records:
            if record.expires_at is not None and record.expires_at <= now:
                self.transfer.expired += 1
            elif len(record.value) > self._store.capabilities.max_value_bytes:
                self.transfer.refused.append(
                    f"{record.key}: {len(record.value)} bytes are too many for this store"
                )
            else:
                left = None if record.expires_at is None else record.expires_at - now
                puts.append(Put(record.key, record.value, left, None if self._overwrite else ABSENT))
        results: Sequence[object] = []
        if puts:
            try:
                results = await self._store.put_many(puts)
            except BatchFailed as failed:
                results = failed.results
            await self._look_again(puts, results, now)

    async def _look_again(self, puts: Sequence[Put], results: Sequence[object], written: float) -> None:
        there = await self._values([put.key for put in puts])
        for put, result in zip(puts, results, strict=True):
            value = there.get(put.key)
            if isinstance(result, SessionKitError) and not isinstance(
                result, (VersionConflict, CorruptRecord)
            ):
                raise result
            if isinstance(result, SessionKitError) and value != put.value:
                self.transfer.conflicts.append(put.key)
                continue
            if value is None and put.expires_in is not None and self._clock() - written >= put.expires_in:
                self.transfer.expired += 1
                continue
            self.transfer.sent.add(put.key, put.value)
            if value is not None:
                self.transfer.found.add(put.key, value)
            if isinstance(result, SessionKitError):
                self.transfer.unchanged += 1
            else:
                self.transfer.written += 1

    async def _values(self, keys: Sequence[str]) -> dict[str, bytes]:
        try:
            return {key: record.value for key, record in (await self._store.get_many(keys)).items()}
        except CorruptRecord:
            pass
        found = {}
        for key in keys:
            try:
                record = await self._store.get(key)
            except CorruptRecord:
                continue
            if record is not None:
                found[key] = record.value
        return found
