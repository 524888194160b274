"""``SqliteStore``: the asynchronous face of the file."""

from __future__ import annotations

import math
import os
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

from sessionkit.errors import ConfigurationError
from sessionkit.store import (
    MAX_VALUE_BYTES,
    AtomicStore,
    Capabilities,
    FileStore,
    Locks,
    Put,
    RecodingStore,
    Scope,
    check_expiry,
    check_key,
    check_keys_in_turns,
    check_prefix,
    check_put,
    check_puts_in_turns,
    check_recode,
    check_version,
    check_writes,
    cut_puts,
    delete_in_pages,
    new_version,
    put_in_pages,
)
from sessionkit_sqlite import operations
from sessionkit_sqlite.leases import Leases
from sessionkit_sqlite.reader import Reader
from sessionkit_sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from sessionkit.store import Absent, Clock, Delete, Lease, Receipt, Record, Version

_CAPABILITIES: Final = Capabilities(
    durable=True, scope=Scope.HOST, max_value_bytes=MAX_VALUE_BYTES, atomic=True
)
_PAGE: Final = 250
_PAGE_BYTES: Final = 1024 * 1024


class SqliteStore(AtomicStore, FileStore, RecodingStore):
    """A ``SessionStore`` in one SQLite file, which several processes on one machine may share.

    A write returns once it is on the disk: it survives the death of the process and of the machine's power.
    All methods are those of ``SessionStore`` and keep its contract.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Clock = time.time, timeout: float = 5.0
    ) -> None:
        """Name the file; it is opened, and created where there is none, by the first call.

        Args:
            path: The file; a relative path is taken from the working directory of now.
            clock: The time in seconds since the Unix epoch, by which records and locks expire. It is called
                from other threads.
            timeout: Seconds an operation may take, including the wait for another process's write lock.

        Raises:
            ConfigurationError: The path names no file, or the timeout is not a positive number.
        """
        name = os.fspath(path)
        if not isinstance(name, str) or not name or name == ":memory:" or "\0" in name:
            raise ConfigurationError(f"{name!r} names no file; for a store in memory use the memory driver")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout is a number of seconds above 0, not {timeout!r}")
        self._path = os.path.abspath(name)
        self._writer = Writer(self._path, clock=clock, timeout=timeout)
        self._reader = Reader(self._path, clock=clock, timeout=timeout)
        self._locks = Locks(Leases(self._writer))
        # A store that is forgotten must not keep its threads for ever.
        weakref.finalize(self, _stop, self._writer, self._reader).atexit = False

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r})"

    @property
    def path(self) -> str:
        """See ``FileStore.path``."""
        return self._path

    @property
    def place(self) -> str:
        """See ``PlacedStore.place``."""
        return f"sqlite://{os.path.realpath(self._path)}"

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared on this host, values up to ``MAX_VALUE_BYTES``, several written all or none."""
        return _CAPABILITIES

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``. With ``renew_for`` it is a write, and waits for the disk like one."""
        check_key(key)
        if renew_for is None:
            return await self._reader.run(partial(operations.get, key))
        check_expiry(renew_for)
        return await self._writer.run(partial(operations.renew, key, renew_for))

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
        return await self._writer.run(partial(operations.put, put))

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``."""
        check_key(key)
        check_version(if_version)
        return await self._writer.run(partial(operations.delete, key, if_version))

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        """See ``SessionStore.touch``."""
        check_key(key)
        check_version(if_version)
        check_expiry(expires_in)
        return await self._writer.run(partial(operations.touch, key, expires_in, if_version))

    async def recode(self, key: str, value: bytes, *, if_version: Version) -> bool:
        """See ``RecodingStore.recode``."""
        check_recode(key, value, if_version, MAX_VALUE_BYTES)
        return await self._writer.run(partial(operations.recode, key, value, if_version))

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``."""
        records: dict[str, Record] = {}
        for page in _key_pages(await check_keys_in_turns(keys)):
            records |= await self._reader.run(partial(operations.get_many, page))
        return records

    async def time_left(self, keys: Iterable[str]) -> dict[str, float | None]:
        """See ``TimedStore.time_left``."""
        found: dict[str, float | None] = {}
        for page in _key_pages(await check_keys_in_turns(keys)):
            found |= await self._reader.run(partial(operations.time_left, page))
        return found

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``."""
        pages = cut_puts(await check_puts_in_turns(puts, MAX_VALUE_BYTES), _PAGE, _PAGE_BYTES)
        return await put_in_pages(pages, lambda page: self._writer.run(partial(operations.put_many, page)))

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``."""
        pages = _key_pages(await check_keys_in_turns(keys))
        return await delete_in_pages(
            pages, lambda page: self._writer.run(partial(operations.delete_many, page))
        )

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        """See ``AtomicStore.write_all``."""
        batch = check_writes(writes, write_id, MAX_VALUE_BYTES)
        return await self._writer.run(partial(operations.write_all, batch, write_id or new_version()))

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``. Between pages nothing is held, neither a snapshot nor a lock."""
        check_prefix(prefix)
        after: str | None = None
        while True:
            keys, after = await self._reader.run(partial(operations.scan_page, prefix, after))
            for key in keys:
                yield key
            if after is None:
                return

    def lock(
        self, key: str, *, lease: float = 30.0, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[Lease]:
        """See ``SessionStore.lock``."""
        return self._locks.hold(key, lease=lease, wait=wait)

    async def ping(self) -> float:
        """See ``SessionStore.ping``. It asks the file, by the same way as a read."""
        started = time.perf_counter()
        await self._reader.run(operations.ping)
        return time.perf_counter() - started

    async def aclose(self) -> None:
        """See ``SessionStore.aclose``.

        It waits for what was accepted: about the timeout at most, as long as the disk answers.
        """
        await self._locks.aclose()
        _stop(self._writer, self._reader)
        await self._writer.stopped()
        await self._reader.stopped()


def _stop(writer: Writer, reader: Reader) -> None:
    writer.stop()
    reader.stop()


def _key_pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut the keys to what one statement takes and one job should."""
    return (keys[at : at + _PAGE] for at in range(0, len(keys), _PAGE))
