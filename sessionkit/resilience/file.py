"""A journal's file: a store of its own on this machine's disk, for one process at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from filelock import FileLock, Timeout

from sessionkit.errors import ConfigurationError, CorruptRecord, StoreUnavailable
from sessionkit.resilience.entries import Entry
from sessionkit.store import FileStore, PlacedStore, Put, read_all

if TYPE_CHECKING:
    from collections.abc import Collection

    from sessionkit.store import AtomicStore, SessionStore

_PREFIX: Final = "journal:"
_OWNER: Final = "journal-of"


class StoreFile:
    """A ``JournalFile`` in a durable store.

    Args:
        store: Keeps the entries; closed with the journal. It must be synced to disk before it acknowledges,
            and carry out the writes of one key in the order they were asked.
        lock_path: A file that is locked while the journal is open, so that no two processes share one.
        primary: The store that the entries are written for; a journal of another one is refused as long as it
            holds any.

    Raises:
        ConfigurationError: The store does not outlive this process, or cannot write records all or none.
    """

    def __init__(self, store: SessionStore, lock_path: Path, primary: SessionStore | None = None) -> None:
        if not (store.capabilities.durable and store.capabilities.atomic):
            raise _no_file(store)
        self._store = cast("AtomicStore", store)
        self._lock_path = lock_path
        self._place = primary.place if isinstance(primary, PlacedStore) else None
        self._lock = FileLock(lock_path, timeout=0, thread_local=False)

    @classmethod
    def of(cls, store: SessionStore, primary: SessionStore | None = None) -> StoreFile:
        """Return the journal in a store that lies in one file; its lock is ``<file>.lock``.

        Args:
            store: Such as that of ``sqlite:///outage.db``.
            primary: As for the class.

        Raises:
            ConfigurationError: The store does not lie in a file.
        """
        if not isinstance(store, FileStore):
            raise _no_file(store)
        # One file has one lock, by whichever links it is reached.
        path = Path(store.path).resolve()
        return cls(store, path.with_name(f"{path.name}.lock"), primary)

    def lies_in(self, store: SessionStore) -> bool:
        """Return whether the journal is in the file of this store."""
        mine = self._store
        return (
            isinstance(mine, FileStore)
            and isinstance(store, FileStore)
            and Path(mine.path).resolve() == Path(store.path).resolve()
        )

    async def load(self) -> list[Entry]:
        """See ``JournalFile.load``.

        Raises:
            ConfigurationError: Also where it holds entries that were written for another store.
        """
        self._take_lock()
        entries = await self.read()
        await self._claim(entries)
        return entries

    async def read(self) -> list[Entry]:
        """Return the entries without opening the journal; another process may be changing it.

        Raises:
            CorruptRecord: One cannot be read.
            StoreError: The file cannot be read.
        """
        damaged: list[CorruptRecord] = []
        entries: list[Entry] = []
        async for _, record in read_all(self._store, _PREFIX, lambda _, error: damaged.append(error)):
            try:
                entries.append(Entry.decode(record.value))
            except CorruptRecord as error:
                damaged.append(error)
        if damaged:
            raise CorruptRecord(
                f"the journal {self._store!r} cannot be used, and was left as it is: {damaged[0]}"
                f" ({len(damaged)} damaged, {len(entries)} sound). Restore it, or move it away to start"
                " without what it holds"
            )
        return entries

    async def save(self, *entries: Entry) -> None:
        """See ``JournalFile.save``."""
        puts = [Put(_name(entry.key), entry.encode()) for entry in entries]
        if len(puts) == 1:
            await self._store.put(puts[0].key, puts[0].value)
        else:
            await self._store.write_all(puts)

    async def forget(self, keys: Collection[str]) -> None:
        """See ``JournalFile.forget``."""
        await self._store.delete_many(map(_name, keys))

    async def owner(self) -> str | None:
        """Return the place of the store that the entries are for, or None if it is not known."""
        claimed = await self._store.get(_OWNER)
        return None if claimed is None else claimed.value.decode()

    async def move_to(self, primary: PlacedStore) -> None:
        """Make the entries ones for this store, wherever they were meant for.

        Raises:
            ConfigurationError: Another process has the journal open.
        """
        self._take_lock()
        await self._store.put(_OWNER, primary.place.encode())

    async def aclose(self) -> None:
        """See ``JournalFile.aclose``."""
        try:
            await self._store.aclose()
        finally:
            self._lock.release()

    async def _claim(self, entries: list[Entry]) -> None:
        """Make the journal this primary's, if it is nobody else's."""
        if self._place is None:
            return
        owner = await self.owner()
        if owner not in {self._place, None} and entries:
            self._lock.release()
            raise ConfigurationError(
                f"the journal {self._store!r} holds writes of {len(entries)} keys for {owner}, and this store"
                f" is {self._place}: start once with the store that they are for, or, if that has moved here,"
                " say so by `sessionkit journal --move-to`"
            )
        if owner != self._place:
            await self._store.put(_OWNER, self._place.encode())

    def _take_lock(self) -> None:
        if self._lock.is_locked:
            return
        if not self._lock_path.parent.is_dir():
            raise ConfigurationError(
                f"the journal's directory {self._lock_path.parent} does not exist; create it or correct the"
                " path"
            )
        try:
            # What cannot be opened may count as locked.
            self._lock_path.touch()
            self._lock.acquire()
        except Timeout:
            raise ConfigurationError(
                f"the journal is open already, in another process or store, which holds {self._lock_path}:"
                " give each process a journal of its own, and open one store in it for all that need one"
            ) from None
        except OSError as error:
            raise StoreUnavailable(
                f"the journal's lock {self._lock_path} cannot be taken: {error.strerror}; make its directory"
                " writable for the bot, or name another one",
                temporary=False,
            ) from None


def _name(key: str) -> str:
    # A key may be too long for another one to hold it; it stands in the entry.
    return _PREFIX + hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _no_file(store: SessionStore) -> ConfigurationError:
    return ConfigurationError(
        f"{store!r} cannot keep a journal: that is a file on this machine, whose records are written all or"
        " none, such as sqlite:///outage.db"
    )
