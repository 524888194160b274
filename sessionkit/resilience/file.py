"""A journal's file: a store of its own on this machine's disk, for one process at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from sessionkit.errors import ConfigurationError, CorruptRecord, StoreUnavailable
from sessionkit.resilience.entries import Entry
from sessionkit.store import FileStore, read_all

if TYPE_CHECKING:
    from collections.abc import Collection

    from sessionkit.store import SessionStore

_PREFIX: Final = "journal:"


class StoreFile:
    """A ``JournalFile`` in a durable store.

    Args:
        store: Keeps the entries; closed with the journal. It must be synced to disk before it acknowledges,
            and carry out the writes of one key in the order they were asked.
        lock_path: A file that is locked while the journal is open, so that no two processes share one.

    Raises:
        ConfigurationError: The store does not outlive this process.
    """

    def __init__(self, store: SessionStore, lock_path: Path) -> None:
        if not store.capabilities.durable:
            raise _no_file(store)
        self._store = store
        self._lock_path = lock_path
        self._lock = FileLock(lock_path, timeout=0, thread_local=False)

    @classmethod
    def of(cls, store: SessionStore) -> StoreFile:
        """Return the journal in a store that lies in one file; its lock is ``<file>.lock``.

        Args:
            store: Such as that of ``sqlite:///journal.db``.

        Raises:
            ConfigurationError: The store does not lie in a file.
        """
        if not isinstance(store, FileStore):
            raise _no_file(store)
        # One file has one lock, by whichever links it is reached.
        path = Path(store.path).resolve()
        return cls(store, path.with_name(f"{path.name}.lock"))

    def lies_in(self, store: SessionStore) -> bool:
        """Return whether the journal is in the file of this store."""
        mine = self._store
        return (
            isinstance(mine, FileStore)
            and isinstance(store, FileStore)
            and Path(mine.path).resolve() == Path(store.path).resolve()
        )

    async def load(self) -> list[Entry]:
        """See ``JournalFile.load``."""
        self._take_lock()
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

    async def save(self, entry: Entry) -> None:
        """See ``JournalFile.save``."""
        await self._store.put(_name(entry.key), entry.encode())

    async def forget(self, keys: Collection[str]) -> None:
        """See ``JournalFile.forget``."""
        await self._store.delete_many(map(_name, keys))

    async def aclose(self) -> None:
        """See ``JournalFile.aclose``."""
        try:
            await self._store.aclose()
        finally:
            self._lock.release()

    def _take_lock(self) -> None:
        if self._lock.is_locked:
            return
        if not self._lock_path.parent.is_dir():
            raise ConfigurationError(
                f"the journal's directory {self._lock_path.parent} does not exist; create it or correct the"
                " path"
            )
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigurationError(
                f"the journal is open already, in another process or store, which holds {self._lock_path}:"
                " give each instance a journal of its own"
            ) from None
        except OSError as error:
            raise StoreUnavailable(
                f"the journal's lock {self._lock_path} cannot be taken: {error.strerror}", temporary=False
            ) from None


def _name(key: str) -> str:
    # A key may be too long for another one to hold it; it stands in the entry.
    return _PREFIX + hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _no_file(store: SessionStore) -> ConfigurationError:
    return ConfigurationError(
        f"{store!r} cannot keep a journal: that is a file on this machine, such as sqlite:///journal.db"
    )
