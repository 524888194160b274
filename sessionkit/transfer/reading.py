"""The records of a store, page by page, with the life they have left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sessionkit.errors import CorruptRecord
from sessionkit.store import TimedStore
from sessionkit.transfer.records import MovedRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sessionkit.store import Clock, Record, SessionStore

_PAGE: Final = 100


class SourceReader:
    """Reads the records whose keys start with a prefix. The keys are those at its first look.

    Args:
        store: The store. One that is no ``TimedStore`` cannot tell what life its records have left: they are
            taken for such that do not expire.
        prefix: What the keys start with.
        clock: Gives the time in seconds since the Unix epoch.

    Attributes:
        damaged: The keys that hold something else than a record.
    """

    def __init__(self, store: SessionStore, prefix: str, *, clock: Clock = time.time) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock
        self.damaged: list[str] = []

    async def keys(self) -> list[str]:
        """Return the keys, sorted.

        Raises:
            StoreError: The store could not be asked.
        """
        return sorted({key async for key in self._store.scan(self._prefix)})

    async def pages(self, keys: Sequence[str]) -> AsyncIterator[list[MovedRecord]]:
        """Yield the records of these keys, some at a time; one that is gone by then is left out.

        Raises:
            StoreError: The store could not be asked.
        """
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            found = await self._read(page)
            if not isinstance(self._store, TimedStore):
                yield [MovedRecord(key, record.value, None) for key, record in found.items()]
                continue
            left = await self._store.time_left(found)
            now = self._clock()
            yield [
                MovedRecord(key, record.value, None if (seconds := left[key]) is None else now + seconds)
                for key, record in found.items()
                if key in left
            ]

    async def _read(self, page: Sequence[str]) -> dict[str, Record]:
        try:
            return await self._store.get_many(page)
        except CorruptRecord:
            pass
        found: dict[str, Record] = {}
        for key in page:
            try:
                record = await self._store.get(key)
            except CorruptRecord:
                self.damaged.append(key)
                continue
            if record is not None:
                found[key] = record
        return found
