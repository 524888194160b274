"""A store on Redis or Valkey."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from sessionkit.errors import Applied, BatchRefused, ConfigurationError, StoreError, VersionConflict
from sessionkit.store import (
    ABSENT,
    MAX_VALUE_BYTES,
    Absent,
    AtomicStore,
    Capabilities,
    Delete,
    Lease,
    Locks,
    Put,
    Receipt,
    RecodingStore,
    Record,
    Scope,
    Version,
    check_expiry,
    check_key,
    check_keys_in_turns,
    check_prefix,
    check_puts_in_turns,
    check_recode,
    check_version,
    check_write,
    check_writes,
    cut_puts,
    delete_in_pages,
    milliseconds,
    new_version,
    put_in_pages,
)
from sessionkit_redis.layout import read_record
from sessionkit_redis.leases import Leases
from sessionkit_redis.scanning import scan_keys
from sessionkit_redis.scripts import CORRUPT, DELETE_AT, PUT, RECODE, RENEW, TOUCH, WRITE_ALL
from sessionkit_redis.server import Server
from sessionkit_redis.transport import ErrorReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from sessionkit.errors import SessionKitError
    from sessionkit_redis.transport import Reply, Transport

_PAGE = 500
_NO_EXPIRY = -1  # what PTTL says of a record that does not expire; of an absent one it says -2
_PAGE_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


class RedisStore(AtomicStore, RecodingStore):
    """A ``SessionStore`` of one string per record, with Redis's own expiry; ``open_driver`` makes it.

    Args:
        transport: What carries its commands.
        where: The server's URL without credentials, for errors.
        place: See ``PlacedStore.place``.
        atomic: Whether one server has all the records, and so can write several of them all or none.

    Attributes:
        place: As given.
    """

    def __init__(self, transport: Transport, where: str, place: str, *, atomic: bool) -> None:
        self.place = place
        self._capabilities = Capabilities(durable=True, scope=Scope.NETWORK, atomic=atomic)
        self._server = Server(transport, where)
        self._locks = Locks(Leases(self._server))

    def __repr__(self) -> str:
        return f"RedisStore({self._server.where!r})"

    @property
    def capabilities(self) -> Capabilities:
        """See ``SessionStore.capabilities``."""
        return self._capabilities

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``."""
        check_key(key)
        if renew_for is None:
            [reply] = await self._server.call((("GET", key),))
        else:
            reply = await self._server.run(RENEW, key, (milliseconds(renew_for),))
        return None if reply is None else self._record(key, reply)

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
        expiry = check_write(key, value, expires_in, if_version, write_id, MAX_VALUE_BYTES)
        version = write_id or new_version()
        reply = await self._server.run(PUT, key, _put_arguments(version, value, expiry, if_version))
        if reply == 1:
            return Receipt(version)
        raise self._not_put(key, reply)

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``."""
        check_key(key)
        check_version(if_version)
        if if_version is None:
            return await self._delete_page((key,)) == 1
        return self._happened(key, await self._server.run(DELETE_AT, key, (if_version,)))

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        """See ``SessionStore.touch``."""
        check_key(key)
        expiry = check_expiry(expires_in)
        check_version(if_version)
        expires = "" if expiry is None else expiry
        arguments = (expires,) if if_version is None else (expires, if_version)
        return self._happened(key, await self._server.run(TOUCH, key, arguments))

    async def recode(self, key: str, value: bytes, *, if_version: Version) -> bool:
        """See ``RecodingStore.recode``."""
        check_recode(key, value, if_version, MAX_VALUE_BYTES)
        return self._happened(key, await self._server.run(RECODE, key, (if_version, value)))

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``."""
        found: dict[str, Record] = {}
        for page in _pages(await check_keys_in_turns(keys)):
            # Not MGET: it answers nil, as for an absent key, where a key holds something that is no string.
            replies = await self._server.call([("GET", key) for key in page])
            for key, reply in zip(page, replies, strict=True):
                if reply is not None:
                    found[key] = self._record(key, reply)
        return found

    async def time_left(self, keys: Iterable[str]) -> dict[str, float | None]:
        """See ``TimedStore.time_left``."""
        found: dict[str, float | None] = {}
        for page in _pages(await check_keys_in_turns(keys)):
            replies = await self._server.call([("PTTL", key) for key in page])
            for key, reply in zip(page, replies, strict=True):
                left = self._server.number(self._server.accept(reply, key))
                if left >= _NO_EXPIRY:
                    found[key] = None if left == _NO_EXPIRY else left / 1000
        return found

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``."""
        batch = await check_puts_in_turns(puts, MAX_VALUE_BYTES)
        pages = _cut_at_repeats(cut_puts(batch, _PAGE, _PAGE_BYTES))
        return await put_in_pages(pages, self._put_page)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``."""
        return await delete_in_pages(_pages(await check_keys_in_turns(keys)), self._delete_page)

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        """See ``AtomicStore.write_all``; in a cluster it raises ``ConfigurationError``."""
        if not self._capabilities.atomic:
            raise ConfigurationError(
                f"{self._server.where}: the nodes of a cluster cannot write several records all or none; use"
                " one server, or Sentinels, or put_many, of which each put stands for itself"
            )
        batch = check_writes(writes, write_id, MAX_VALUE_BYTES)
        version = write_id or new_version()
        if not batch:
            return Receipt(version)  # Managed servers refuse a script without keys.
        arguments = [part for write in batch for part in _write_arguments(write)]
        command = WRITE_ALL.by_name(tuple(write.key for write in batch), (version, *arguments))
        [reply] = await self._server.run_many(WRITE_ALL, [command])
        if reply == 1:
            return Receipt(version)
        raise self._not_written(batch, self._server.accept(reply))

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``."""
        check_prefix(prefix)
        async for key in scan_keys(self._server, prefix):
            yield key

    def lock(
        self, key: str, *, lease: float = 30.0, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[Lease]:
        """See ``SessionStore.lock``."""
        return self._locks.hold(key, lease=lease, wait=wait)

    async def ping(self) -> float:
        """See ``SessionStore.ping``."""
        longest = 0.0
        for node in (await self._server.servers()).nodes:
            started = time.perf_counter()
            [reply] = await node.call([("PING",)])
            self._server.accept(reply)
            longest = max(longest, time.perf_counter() - started)
        return longest

    async def aclose(self) -> None:
        """See ``SessionStore.aclose``."""
        await self._locks.aclose()
        await self._server.aclose()

    async def _put_page(self, page: Sequence[Put]) -> list[Receipt | SessionKitError]:
        versions = [put.write_id or new_version() for put in page]
        commands = [
            PUT.by_name(
                (put.key,), _put_arguments(version, put.value, check_expiry(put.expires_in), put.if_version)
            )
            for put, version in zip(page, versions, strict=True)
        ]
        replies = await self._server.run_many(PUT, commands)
        return [
            Receipt(version) if reply == 1 else self._not_put(put.key, reply)
            for put, version, reply in zip(page, versions, replies, strict=True)
        ]

    def _not_put(self, key: str, reply: Reply) -> SessionKitError:
        if isinstance(reply, bytes):
            return _conflict(key, reply)
        if isinstance(reply, ErrorReply):
            return self._server.refused(reply, key)
        return self._server.corrupt(key) if reply == CORRUPT else self._server.unexpected()

    def _not_written(self, batch: Sequence[Put | Delete], reply: Reply) -> SessionKitError:
        refusals: dict[str, SessionKitError] = {}
        for refusal in reply if isinstance(reply, list) else ():
            match refusal:
                case [int(place), current] if 0 < place <= len(batch):
                    key = batch[place - 1].key
                    refusals[key] = self._not_put(key, current)
                case _:
                    return self._server.unexpected()
        return BatchRefused(refusals) if refusals else self._server.unexpected()

    def _happened(self, key: str, reply: Reply) -> bool:
        if isinstance(reply, bytes):
            raise _conflict(key, reply)
        if reply == CORRUPT:
            raise self._server.corrupt(key)
        return self._server.number(reply) == 1

    async def _delete_page(self, page: Sequence[str]) -> int:
        replies = await self._server.call([("DEL", key) for key in page])
        try:
            return sum(
                self._server.number(self._server.accept(reply, key))
                for key, reply in zip(page, replies, strict=True)
            )
        except StoreError as error:
            if 1 in replies:
                error.applied = Applied.MAYBE
            raise

    def _record(self, key: str, reply: Reply) -> Record:
        record = read_record(reply) if isinstance(reply, bytes) else None
        if record is None:
            self._server.accept(reply, key)
            raise self._server.corrupt(key)
        return record


def _cut_at_repeats(pages: Iterable[Sequence[Put]]) -> Iterator[Sequence[Put]]:
    """Cut pages further, so that no key stands twice in one.

    What a server refuses of a page, not knowing the script or not having the slot, is sent again after the
    rest: a put of the same key that was accepted would be overwritten by the one before it.
    """
    for page in pages:
        start, keys = 0, set[str]()
        for at, put in enumerate(page):
            if put.key in keys:
                yield page[start:at]
                start, keys = at, set()
            keys.add(put.key)
        yield page[start:]


def _put_arguments(
    version: Version, value: bytes, expiry: int | None, if_version: Version | Absent | None
) -> tuple[bytes | str | int, ...]:
    expires = "" if expiry is None else expiry
    if if_version is None:
        return version, value, expires
    return version, value, expires, b"absent" if if_version is ABSENT else if_version


def _write_arguments(write: Put | Delete) -> tuple[bytes | str | int, bytes | str | int, bytes | str]:
    expected = b"absent" if write.if_version is ABSENT else write.if_version or ""
    if isinstance(write, Delete):
        return "", "delete", expected
    expiry = check_expiry(write.expires_in)
    return write.value, "" if expiry is None else expiry, expected


def _conflict(key: str, current: bytes) -> VersionConflict:
    return VersionConflict(key, current=Version(current) if current else ABSENT)


def _pages(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _PAGE] for start in range(0, len(items), _PAGE))
