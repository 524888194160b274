"""A store on one Redis or Valkey server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from sessionkit.errors import BatchFailed, VersionConflict
from sessionkit.store import (
    ABSENT,
    Absent,
    Capabilities,
    Lease,
    Locks,
    Put,
    Receipt,
    Record,
    Scope,
    SessionStore,
    Version,
    check_key,
    check_keys,
    check_put,
    check_version,
    milliseconds,
    new_version,
)
from sessionkit_redis.errors import corrupt, from_reply
from sessionkit_redis.layout import read_record
from sessionkit_redis.scripts import (
    CORRUPT,
    DELETE_AT,
    DROP_LEASE,
    EXTEND_LEASE,
    PERSIST,
    PUT,
    TAKE_LEASE,
    Script,
    run,
)
from sessionkit_redis.transport import ErrorReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from sessionkit.errors import SessionKitError
    from sessionkit_redis.transport import Command, Reply, Transport

_CAPABILITIES = Capabilities(durable=True, scope=Scope.NETWORK)
_LOCK_SUFFIX = "#lock"
_PAGE = 500

T = TypeVar("T")


class RedisStore(SessionStore):
    """A ``SessionStore`` of one string per record, with Redis's own expiry.

    Args:
        transport: What carries its commands.
        where: The server's URL without credentials, for errors.
    """

    def __init__(self, transport: Transport, where: str) -> None:
        self._transport = transport
        self._where = where
        self._locks = Locks(self)

    def __repr__(self) -> str:
        return f"<RedisStore {self._where}>"

    @property
    def capabilities(self) -> Capabilities:
        """See ``SessionStore.capabilities``."""
        return _CAPABILITIES

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``."""
        check_key(key)
        if renew_for is None:
            reply = await self._execute("GET", key)
        else:
            reply = await self._execute("GETEX", key, "PX", milliseconds(renew_for))
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
        [result] = await self._put([Put(key, value, expires_in, if_version, write_id)])
        if isinstance(result, Receipt):
            return result
        raise result

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``."""
        check_key(key)
        check_version(if_version)
        if if_version is None:
            return await self._execute("DEL", key) == 1
        reply = await self._run(DELETE_AT, key, if_version)
        if isinstance(reply, bytes):
            raise _conflict(key, reply)
        if reply == CORRUPT:
            raise corrupt(key, self._where)
        return reply == 1

    async def touch(self, key: str, *, expires_in: float | None) -> bool:
        """See ``SessionStore.touch``."""
        check_key(key)
        if expires_in is None:
            return await self._run(PERSIST, key) == 1
        return await self._execute("PEXPIRE", key, milliseconds(expires_in)) == 1

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``."""
        wanted = check_keys(keys)
        found: dict[str, Record] = {}
        for page in _pages(wanted):
            # Not MGET: it answers nil, as for an absent key, where a key holds something that is no string.
            replies = await self._transport.execute([("GET", key) for key in page])
            for key, reply in zip(page, replies, strict=True):
                if reply is not None:
                    found[key] = self._record(key, reply)
        return found

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``."""
        results = await self._put(list(puts))
        receipts = [result for result in results if isinstance(result, Receipt)]
        if len(receipts) == len(results):
            return receipts
        raise BatchFailed(results)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``."""
        deleted = 0
        for page in _pages(check_keys(keys)):
            deleted += self._number(await self._execute("DEL", *page))
        return deleted

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``."""
        pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix) + "*"
        cursor = b"0"
        while True:
            reply = await self._execute("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE)
            match reply:
                case [bytes(cursor), list(found)]:
                    for raw in found:
                        key = _key_of_record(raw)
                        if key is not None:
                            yield key
            if cursor == b"0":
                return

    def lock(
        self, key: str, *, lease: float = 30.0, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[Lease]:
        """See ``SessionStore.lock``."""
        return self._locks.hold(key, lease=lease, wait=wait)

    async def ping(self) -> float:
        """See ``SessionStore.ping``."""
        started = time.perf_counter()
        await self._execute("PING")
        return time.perf_counter() - started

    async def aclose(self) -> None:
        """See ``SessionStore.aclose``."""
        await self._locks.aclose()
        await self._transport.aclose()

    async def take_lease(self, key: str, token: str, lease: float) -> int | None:
        """See ``LeaseKeeper.take_lease``."""
        return (
            self._number(await self._run(TAKE_LEASE, key + _LOCK_SUFFIX, token, milliseconds(lease))) or None
        )

    async def extend_lease(self, key: str, token: str, lease: float) -> bool:
        """See ``LeaseKeeper.extend_lease``."""
        return await self._run(EXTEND_LEASE, key + _LOCK_SUFFIX, token, milliseconds(lease)) == 1

    async def drop_lease(self, key: str, token: str) -> None:
        """See ``LeaseKeeper.drop_lease``."""
        await self._run(DROP_LEASE, key + _LOCK_SUFFIX, token)

    async def _put(self, puts: Sequence[Put]) -> list[Receipt | SessionKitError]:
        for put in puts:
            check_put(*put, self.capabilities.max_value_bytes)
        results: list[Receipt | SessionKitError] = []
        for page in _pages(puts):
            versions = [put.write_id or new_version() for put in page]
            commands = [_put_command(put, version) for put, version in zip(page, versions, strict=True)]
            replies = await run(self._transport, PUT, commands)
            for put, version, reply in zip(page, versions, replies, strict=True):
                if reply == 1:
                    results.append(Receipt(version))
                elif isinstance(reply, bytes):
                    results.append(_conflict(put.key, reply))
                elif isinstance(reply, ErrorReply):
                    results.append(from_reply(reply, self._where, put.key))
                else:
                    results.append(corrupt(put.key, self._where))
        return results

    async def _execute(self, *command: bytes | str | int) -> Reply:
        [reply] = await self._transport.execute([command])
        return self._accepted(reply, str(command[1]) if len(command) > 1 else None)

    async def _run(self, script: Script, key: str, *arguments: bytes | str | int) -> Reply:
        [reply] = await run(self._transport, script, [script.by_name(key, *arguments)])
        return self._accepted(reply, key)

    def _accepted(self, reply: Reply, key: str | None = None) -> Reply:
        if isinstance(reply, ErrorReply):
            raise from_reply(reply, self._where, key)
        return reply

    def _record(self, key: str, reply: Reply) -> Record:
        accepted = self._accepted(reply, key)
        record = read_record(accepted) if isinstance(accepted, bytes) else None
        if record is None:
            raise corrupt(key, self._where)
        return record

    def _number(self, reply: Reply) -> int:
        accepted = self._accepted(reply)
        assert isinstance(accepted, int)
        return accepted


def _put_command(put: Put, version: Version) -> Command:
    expiry = "" if put.expires_in is None else milliseconds(put.expires_in)
    expected = b"" if put.if_version is None else b"absent" if put.if_version is ABSENT else put.if_version
    return PUT.by_name(put.key, version, put.value, expiry, expected)


def _conflict(key: str, current: bytes) -> VersionConflict:
    return VersionConflict(
        f"{key!r} is not at the version expected", current=Version(current) if current else ABSENT
    )


def _key_of_record(raw: Reply) -> str | None:
    """Return the key, or None for a driver's own key and for one that no sessionkit made."""
    try:
        key = raw.decode() if isinstance(raw, bytes) else ""
    except UnicodeDecodeError:
        return None
    return None if "#" in key else key or None


def _pages(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _PAGE] for start in range(0, len(items), _PAGE))
