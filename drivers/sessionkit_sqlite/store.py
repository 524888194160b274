"""``SqliteStore``: the asynchronous face of the file."""

from __future__ import annotations

import math
import os
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

from sessionkit.errors import (
    Applied,
    BatchFailed,
    ConfigurationError,
    InvalidKey,
    SessionKitError,
    StoreError,
)
from sessionkit.store import (
    MAX_VALUE_BYTES,
    Capabilities,
    Locks,
    Put,
    Receipt,
    Scope,
    SessionStore,
    check_key,
    check_keys,
    check_put,
    check_version,
    milliseconds,
)
from sessionkit_sqlite import operations
from sessionkit_sqlite.leases import Leases
from sessionkit_sqlite.reader import Reader
from sessionkit_sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from sessionkit.store import Absent, Clock, Lease, Record, Version

_CAPABILITIES: Final = Capabilities(durable=True, scope=Scope.HOST, max_value_bytes=MAX_VALUE_BYTES)
_CHUNK: Final = 250
_CHUNK_BYTES: Final = 1024 * 1024


class SqliteStore(SessionStore):
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
    def capabilities(self) -> Capabilities:
        """Durable, shared on this host, values up to ``MAX_VALUE_BYTES``."""
        return _CAPABILITIES

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``. With ``renew_for`` it is a write, and waits for the disk like one."""
        check_key(key)
        if renew_for is None:
            return await self._reader.run(partial(operations.get, key))
        milliseconds(renew_for)
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
        check_put(key, value, expires_in, if_version, write_id, MAX_VALUE_BYTES)
        return await self._writer.run(
            partial(operations.put, Put(key, value, expires_in, if_version, write_id))
        )

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``."""
        check_key(key)
        check_version(if_version)
        return await self._writer.run(partial(operations.delete, key, if_version))

    async def touch(self, key: str, *, expires_in: float | None) -> bool:
        """See ``SessionStore.touch``."""
        check_key(key)
        if expires_in is not None:
            milliseconds(expires_in)
        return await self._writer.run(partial(operations.touch, key, expires_in))

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``."""
        records: dict[str, Record] = {}
        for chunk in _key_chunks(keys):
            records |= await self._reader.run(partial(operations.get_many, chunk))
        return records

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``. A chunk of the batch that fails as a whole ends it.

        The puts after that chunk are reported with its error and were not attempted.
        """
        every = list(puts)
        for put in every:
            check_put(*put, MAX_VALUE_BYTES)
        results: list[Receipt | SessionKitError] = []
        for chunk in _put_chunks(every):
            try:
                results += await self._writer.run(partial(operations.put_many, chunk))
            except SessionKitError as error:
                if not results:
                    raise
                results += [error] * len(chunk)
                again = isinstance(error, StoreError) and error.temporary
                unattempted = StoreError(f"not attempted: {error}", temporary=again)
                results += [unattempted] * (len(every) - len(results))
                break
        receipts = [result for result in results if isinstance(result, Receipt)]
        if len(receipts) < len(every):
            raise BatchFailed(results)
        return receipts

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``."""
        removed = 0
        for chunk in _key_chunks(keys):
            try:
                removed += await self._writer.run(partial(operations.delete_many, chunk))
            except StoreError as error:
                if removed:
                    error.applied = Applied.MAYBE
                raise
        return removed

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``. Between pages nothing is held, neither a snapshot nor a lock."""
        _check_prefix(prefix)
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


def _key_chunks(keys: Iterable[str]) -> Iterator[Sequence[str]]:
    """Check all keys, then cut them to what one statement takes and one job should."""
    every = check_keys(keys)
    return (every[at : at + _CHUNK] for at in range(0, len(every), _CHUNK))


def _put_chunks(puts: Sequence[Put]) -> Iterator[Sequence[Put]]:
    """Cut the puts so that none of the jobs keeps other callers waiting for long."""
    start = size = 0
    for at, put in enumerate(puts):
        if at > start and (at - start == _CHUNK or size + len(put.value) > _CHUNK_BYTES):
            yield puts[start:at]
            start, size = at, 0
        size += len(put.value)
    if start < len(puts):
        yield puts[start:]


def _check_prefix(prefix: str) -> None:
    try:
        prefix.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidKey(f"a prefix is text without lone surrogates, not {ascii(prefix)[:80]}") from None
