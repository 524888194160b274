"""The journal of an outage: acknowledged writes that the primary does not have yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from sessionkit.errors import ConfigurationError, JournalFull

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sessionkit.resilience.entries import Entry

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024


class JournalFile(Protocol):
    """Where a journal is kept so that it outlives its process; later calls for a key follow earlier ones."""

    async def load(self) -> tuple[list[Entry], list[Entry]]:
        """Must return the entries that wait and those that were set aside.

        Raises:
            ConfigurationError: Another process has it open.
            StoreError: It cannot be read.
        """
        ...

    async def save(self, entry: Entry) -> None:
        """Must keep the entry in place of an earlier one of its key, synced to disk when it returns.

        Raises:
            StoreError: It is not certain that it is kept.
        """
        ...

    async def forget(self, key: str) -> None:
        """Must drop the entry of a key.

        Raises:
            StoreError: It is not certain that it is dropped.
        """
        ...

    async def set_aside(self, entry: Entry) -> None:
        """Must move the entry to those that were set aside.

        Raises:
            StoreError: It is not certain that it was moved.
        """
        ...

    async def aclose(self) -> None:
        """Must release the file."""
        ...


class Journal:
    """One entry per key, in the order of their last writes, in this process's memory and maybe in a file.

    Nothing that was acknowledged is ever evicted: at the bound writes are refused.

    Args:
        max_bytes: The most that keys and values may take, with 400 bytes for each entry.
        file: Where it is kept, too; None: an outage that the process does not survive takes it along.

    Attributes:
        file: As given.
        max_bytes: As given.
        bytes: How many it takes.
        full: Whether a write was refused for want of room, and no entry was settled since.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, *, file: JournalFile | None = None) -> None:
        if max_bytes <= 0:
            raise ConfigurationError(f"a journal's max_bytes is above 0, not {max_bytes!r}")
        self.max_bytes = max_bytes
        self.file = file
        self.bytes = 0
        self.full = False
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

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, key: str) -> Entry | None:
        """Return what waits for a key."""
        return self._entries.get(key)

    def next_seq(self) -> int:
        """Return the place of a new write."""
        self._last_seq += 1
        return self._last_seq

    async def load(self) -> None:
        """Take up what the file holds from an earlier process.

        Raises:
            ConfigurationError: Another process has it open.
            StoreError: It cannot be read.
        """
        if self.file is None:
            return
        waiting, aside = await self.file.load()
        # What was set aside is given another chance: its cause may have been mended since.
        for entry in sorted((*aside, *waiting), key=lambda entry: entry.seq):
            self._set(entry)
            self._last_seq = max(self._last_seq, entry.seq)

    async def add(self, entry: Entry) -> None:
        """Take an entry in place of the one of its key; when this returns it is as durable as the journal.

        It counts from the moment of the call, so that whoever asks next sees it.

        Raises:
            JournalFull: There is no room; the journal is as it was.
            StoreError: The file failed; the entry is not acknowledged, and waits all the same.
        """
        old = self._entries.get(entry.key)
        grows = entry.size - (0 if old is None else old.size)
        if grows > 0 and self.bytes + grows > self.max_bytes:
            self.full = True
            raise JournalFull(
                f"the journal is full ({self.depth} keys, {self.bytes} of {self.max_bytes} bytes):"
                " the write is not kept, and will be again once the primary is back"
            )
        self._set(entry)
        if self.file is not None:
            await self.file.save(entry)

    def note(self, entry: Entry) -> None:
        """Replace the entry of its key by one that says more about what was sent, in memory only."""
        self._entries[entry.key] = entry

    async def settle(self, entry: Entry, follower: Entry | None) -> None:
        """Drop an entry that the primary has, or keep what was written since.

        Args:
            entry: What was replayed.
            follower: What stands in its place if it was written again meanwhile; None: nothing was.

        Raises:
            StoreError: The file failed; the entry may be replayed once more, which changes nothing.
        """
        if follower is None:
            self._drop(entry.key)
            if self.file is not None:
                await self.file.forget(entry.key)
        else:
            self._set(follower)
            if self.file is not None:
                await self.file.save(follower)

    async def set_aside(self, entry: Entry) -> None:
        """Move an entry out of the way of the others; its bytes still count.

        Raises:
            StoreError: The file failed.
        """
        self._drop(entry.key)
        self.bytes += entry.size
        if (earlier := self._quarantined.pop(entry.key, None)) is not None:
            self.bytes -= earlier.size
        self._quarantined[entry.key] = entry
        if self.file is not None:
            await self.file.set_aside(entry)

    async def aclose(self) -> None:
        """Release the file."""
        if self.file is not None:
            await self.file.aclose()

    def _set(self, entry: Entry) -> None:
        old = self._entries.pop(entry.key, None)
        # At the end: the order is that of the last writes.
        self._entries[entry.key] = entry
        self.bytes += entry.size - (0 if old is None else old.size)

    def _drop(self, key: str) -> None:
        self.bytes -= self._entries.pop(key).size
        self.full = False
