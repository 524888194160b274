"""The journal of an outage: acknowledged writes that the primary does not have yet."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from sessionkit.errors import Applied, ConfigurationError, JournalFull, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from sessionkit.resilience.entries import Entry

logger = logging.getLogger("sessionkit.resilience")

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024

_MOST_LATE: Final = 100
"""Few enough to go in one page: what is saved meanwhile must come after all of them."""


class JournalFile(Protocol):
    """Where a journal is kept so that it outlives its process; calls for one key take effect in order."""

    async def load(self) -> list[Entry]:
        """Must return the entries that are kept, in any order.

        Raises:
            ConfigurationError: Another process has it open.
            CorruptRecord: One cannot be read; all are kept.
            StoreError: It cannot be read.
        """
        ...

    async def save(self, *entries: Entry) -> None:
        """Must keep the entries in place of earlier ones of their keys, all or none, synced when it returns.

        Args:
            entries: One or more, each of another key.

        Raises:
            StoreError: It is not certain that they are kept.
        """
        ...

    async def forget(self, keys: Collection[str]) -> None:
        """Must drop the entries of these keys, synced to disk when it returns.

        Raises:
            StoreError: It is not certain that they are dropped.
        """
        ...

    async def aclose(self) -> None:
        """Must release the file."""
        ...


class Journal:
    """One entry per key, in the order of their last writes, in this process's memory and maybe in a file.

    Nothing that was acknowledged is ever evicted: at the bound writes are refused.

    Args:
        max_bytes: The most that keys and values may take, with 800 bytes for each entry.
        file: Where it is kept, too; None: an outage that the process does not survive takes it along.

    Attributes:
        file: As given.
        max_bytes: As given.
        bytes: How many it takes.
        full: Whether a write was refused for want of room, and no entry was settled since.
        leftovers: The keys of which nothing waits, and something is left that the next start would replay:
            they were set aside, or the file failed to drop them.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, *, file: JournalFile | None = None) -> None:
        if type(max_bytes) is not int or max_bytes <= 0:
            raise ConfigurationError(f"a journal's max_bytes is a whole number above 0, not {max_bytes!r}")
        self.max_bytes = max_bytes
        self.file = file
        self.bytes = 0
        self.full = False
        self.leftovers: set[str] = set()
        self._entries: dict[str, Entry] = {}
        self._quarantined: dict[str, Entry] = {}
        self._last_seq = 0

    @property
    def depth(self) -> int:
        """How many keys have writes that wait."""
        return len(self._entries)

    @property
    def quarantined(self) -> Mapping[str, Entry]:
        """The entries set aside, by key."""
        return self._quarantined

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def oldest(self, number: int) -> list[str]:
        """Return the keys whose last writes are the oldest, at most so many."""
        return list(islice(self._entries, number))

    def get(self, key: str) -> Entry | None:
        """Return what waits for a key."""
        return self._entries.get(key)

    def next_seq(self) -> int:
        """Return the place of a new write."""
        self._last_seq += 1
        return self._last_seq

    async def load(self) -> None:
        """Take up what the file holds from an earlier process.

        What was set aside is given another chance: its cause may have been mended since.

        Raises:
            ConfigurationError: Another process has it open.
            CorruptRecord: An entry cannot be read; none is taken up, and all are kept.
            StoreError: It cannot be read.
        """
        if self.file is None:
            return
        for entry in sorted(await self.file.load(), key=lambda entry: entry.seq):
            self._set(entry)
            self._last_seq = entry.seq

    async def add(self, *entries: Entry) -> None:
        """Take entries in place of those of their keys; when this returns they are as durable as the journal.

        They count from the moment of the call, all at once, so that whoever asks next sees them.

        Args:
            entries: Each of another key.

        Raises:
            JournalFull: There is no room for all; the journal is as it was.
            StoreError: The file failed; the entries are not acknowledged, and wait all the same.
        """
        grows = sum(map(self._growth, entries))
        if grows > 0 and self.bytes + grows > self.max_bytes:
            if not self.full and sum(entry.size for entry in entries) <= self.max_bytes:
                self.full = True
                logger.warning("the journal is full, %d keys: writes are refused", self.depth)
            raise JournalFull(
                f"the journal is full ({self.depth} keys, {self.bytes} of {self.max_bytes} bytes), and this"
                " write is refused; there will be room once the primary is back"
            )
        for entry in entries:
            self._set(entry)
        if self.file is not None and entries:
            try:
                await self.file.save(*entries)
            except StoreError as error:
                # They may reach the primary yet.
                error.applied = Applied.MAYBE
                raise

    def note(self, entry: Entry) -> None:
        """Replace the entry of its key by one that says more about what was sent, in memory only."""
        self._entries[entry.key] = entry

    async def settle(self, key: str, left_of: Callable[[Entry], Entry | None]) -> None:
        """Drop an entry that the primary has, and keep what was written since.

        The key counts as waiting until the file has dropped the entry. A later write of it cannot be
        acknowledged by the primary before that, and be undone after a crash by a replay.

        Args:
            key: The key of what was replayed.
            left_of: Told what waits for the key now, returns what of that still has to be written.
        """
        if left_of(self._entries[key]) is None:
            await self._forget(key)
        # It may have been written again meanwhile.
        left = left_of(self._entries[key])
        if left is None:
            self._drop(key)
            return
        if self.bytes + left.size - self._entries[key].size > self.max_bytes:
            left = replace(left, base_value=None)  # of all it holds, what a merge can do without
        self._set(left)
        if self.file is not None:
            try:
                await self.file.save(left)
            except StoreError as error:
                # What stands there is the same write, and what it says of its base is enough for a replay.
                logger.warning("%s: the journal's file does not say yet what it is based on: %s", key, error)

    def set_aside(self, entry: Entry) -> None:
        """Move an entry out of the way of the others until the next start, or the next write of its key.

        Its bytes still count, and a file keeps it where it is.
        """
        self._drop(entry.key)
        self._quarantined[entry.key] = entry
        self.leftovers.add(entry.key)
        self.bytes += entry.size

    async def outdate(self, key: str) -> None:
        """Drop what is left of earlier writes of a key, as the primary has a later one.

        Raises:
            StoreError: The file may have it still, and the next start would replay it.
        """
        if self.file is not None:
            await self.file.forget([key])
        self._drop_leftover(key)

    async def aclose(self) -> None:
        """Release the file."""
        if self.file is None:
            return
        try:
            while self._unforgotten():
                before = len(self.leftovers)
                await self._forget()
                if len(self.leftovers) == before:
                    break  # it still cannot
        finally:
            await self.file.aclose()

    async def _forget(self, *keys: str) -> None:
        """Have the file drop these keys, with those that it failed to drop earlier."""
        if self.file is None:
            return
        late = self._unforgotten()[:_MOST_LATE]
        try:
            await self.file.forget([*keys, *late])
        except StoreError as error:
            # No reason to leave the primary alone. Until they are dropped, a start would replay them again.
            logger.warning("the journal's file keeps what is settled for now: %s", error)
            self.leftovers.update(keys)
        else:
            self.leftovers.difference_update(key for key in late if key not in self._quarantined)

    def _unforgotten(self) -> list[str]:
        return [key for key in self.leftovers if key not in self._quarantined]

    def _growth(self, entry: Entry) -> int:
        old = self._entries.get(entry.key) or self._quarantined.get(entry.key)
        return entry.size - (0 if old is None else old.size)

    def _set(self, entry: Entry) -> None:
        self._drop_leftover(entry.key)
        old = self._entries.pop(entry.key, None)
        # At the end: the order is that of the last writes.
        self._entries[entry.key] = entry
        self.bytes += entry.size - (0 if old is None else old.size)

    def _drop_leftover(self, key: str) -> None:
        self.leftovers.discard(key)
        if (aside := self._quarantined.pop(key, None)) is not None:
            self.bytes -= aside.size
            self.full = False

    def _drop(self, key: str) -> None:
        self.bytes -= self._entries.pop(key).size
        self.full = False
