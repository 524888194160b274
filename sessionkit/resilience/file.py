"""A journal's file: a store of its own on this machine's disk, for one process at a time."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.resilience.entries import Entry
from sessionkit.store import read_all

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkit.errors import SessionKitError
    from sessionkit.store import SessionStore

_WAITING: Final = "waiting:"
_ASIDE: Final = "aside:"


class StoreFile:
    """A ``JournalFile`` in a durable store, such as ``sqlite:///journal.db``.

    Args:
        store: Keeps the entries; closed with the journal. It must be synced to disk before it acknowledges,
            and carry out the writes of one key in the order they were asked.
        lock_path: A file beside it, locked while the journal is open, so that no two processes share one.

    Raises:
        ConfigurationError: The store does not outlive this process.
    """

    def __init__(self, store: SessionStore, lock_path: Path) -> None:
        if not store.capabilities.durable:
            raise ConfigurationError(
                "the journal's store does not outlive the process: give it a file, such as sqlite:///journal.db"
            )
        self._store = store
        self._lock_path = lock_path
        # Not bound to a thread: it is taken in one that is not the event loop's.
        self._lock = FileLock(lock_path, timeout=0, thread_local=False)

    async def load(self) -> tuple[list[Entry], list[Entry]]:
        """See ``JournalFile.load``."""
        try:
            await asyncio.to_thread(self._lock.acquire)
        except Timeout:
            raise ConfigurationError(
                f"the journal is open in another process, which holds {self._lock_path}:"
                " give each instance a journal of its own"
            ) from None
        except OSError as error:
            raise StoreUnavailable(
                f"the journal's lock {self._lock_path} cannot be taken: {error.strerror}", temporary=False
            ) from None
        return await self._read(_WAITING), await self._read(_ASIDE)

    async def save(self, entry: Entry) -> None:
        """See ``JournalFile.save``."""
        await self._store.put(_WAITING + _name(entry.key), entry.encode())

    async def forget(self, key: str) -> None:
        """See ``JournalFile.forget``."""
        await self._store.delete_many([_WAITING + _name(key), _ASIDE + _name(key)])

    async def set_aside(self, entry: Entry) -> None:
        """See ``JournalFile.set_aside``."""
        await self._store.put(_ASIDE + _name(entry.key), entry.encode())
        await self._store.delete(_WAITING + _name(entry.key))

    async def aclose(self) -> None:
        """See ``JournalFile.aclose``."""
        await self._store.aclose()
        await asyncio.to_thread(self._lock.release)

    async def _read(self, prefix: str) -> list[Entry]:
        def refuse(_key: str, error: SessionKitError) -> None:
            raise error

        return [Entry.decode(record.value) async for _, record in read_all(self._store, prefix, refuse)]


def _name(key: str) -> str:
    # A key may be too long for another one to hold it; it stands in the entry.
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
