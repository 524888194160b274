"""All records of a store at one moment, to go back to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from sessionkit.errors import ConfigurationError
from sessionkit.store import RING_SIZE, Delete, Put, Receipt, Record, SessionStore, Version, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkit.store import Clock


class _Known(NamedTuple):
    """What was seen of a record: the ids of its last writes, and when it expires by our clock."""

    ring: tuple[Version, ...]
    deadline: float


class Checkpoints:
    """Remembers the records of a store, with their versions and the deadlines that it was told of."""

    def __init__(self, clock: Clock) -> None:
        """Begin without a checkpoint.

        Args:
            clock: What deadlines are counted by.
        """
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._taken: dict[str, tuple[Record, _Known | None]] | None = None

    def written(self, put: Put, receipt: Receipt) -> None:
        """Take note of a put; one that is repeated has changed nothing."""
        ring = self._ring(put.key)
        if receipt.version not in ring:
            self._known[put.key] = _Known(
                (receipt.version, *ring[: RING_SIZE - 1]), self._deadline(put.expires_in)
            )

    def written_all(self, writes: Iterable[Put | Delete], receipt: Receipt) -> None:
        """Take note of writes that were done together; a repetition has changed nothing."""
        batch = list(writes)
        if any(isinstance(write, Put) and receipt.version in self._ring(write.key) for write in batch):
            return
        for write in batch:
            if isinstance(write, Put):
                self.written(write, receipt)
            else:
                self.deleted(write.key)

    def renewed(self, key: str, expires_in: float | None) -> None:
        """Take note of a record's new expiry."""
        ring = self._known[key].ring if key in self._known else ()
        self._known[key] = _Known(ring, self._deadline(expires_in))

    def deleted(self, key: str) -> None:
        """Take note that there is no record."""
        self._known.pop(key, None)

    async def take(self, store: SessionStore) -> None:
        """Remember all records of the store, in place of those of an earlier checkpoint."""
        self._taken = {
            key: (record, self._known_of(key, record)) for key, record in (await _records(store)).items()
        }

    async def go_back(self, store: SessionStore) -> None:
        """Make the store hold what it held at the checkpoint.

        Raises:
            ConfigurationError: There is no checkpoint.
        """
        if self._taken is None:
            raise ConfigurationError("roll_back: there is no checkpoint; 'await store.checkpoint()' first")
        now = self._clock()
        wanted = {
            key: (record, known)
            for key, (record, known) in self._taken.items()
            if known is None or known.deadline > now
        }
        current = await _records(store)
        # A record that is at its version still stays, as it has the ids of its last writes.
        kept = {key for key in wanted if key in current and current[key].version == wanted[key][0].version}
        await store.delete_many([key for key in current if key not in kept])
        self._known.clear()
        puts = []
        for key, (record, known) in wanted.items():
            expires_in = None if known is None or known.deadline == math.inf else known.deadline - now
            if key not in kept:
                puts.append(Put(key, record.value, expires_in, write_id=record.version))
            elif known is not None:
                await store.touch(key, expires_in=expires_in)
                self._known[key] = known
        for put, receipt in zip(puts, await store.put_many(puts), strict=True):
            self.written(put, receipt)

    def _ring(self, key: str) -> tuple[Version, ...]:
        known = self._known.get(key)
        return known.ring if known is not None and known.deadline > self._clock() else ()

    def _known_of(self, key: str, record: Record) -> _Known | None:
        known = self._known.get(key)
        written_by_others = known is not None and known.ring and known.ring[0] != record.version
        return None if written_by_others else known

    def _deadline(self, expires_in: float | None) -> float:
        return math.inf if expires_in is None else self._clock() + expires_in


async def _records(store: SessionStore) -> dict[str, Record]:
    # What is no record of ours is neither remembered nor removed.
    return {key: record async for key, record in read_all(store, "", lambda _key, _error: None)}
