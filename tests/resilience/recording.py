"""A primary that writes down every change, and the way to it that knows whose call each change was."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from sessionkit.errors import Applied, SessionKitError, StoreTimeout
from sessionkit.store import (
    Absent,
    Capabilities,
    Lease,
    Put,
    Receipt,
    Record,
    SessionStore,
    Version,
    receipts_of,
)
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from tests.resilience.history import Request

T = TypeVar("T")


@dataclass(eq=False)
class Call:
    """One call of one instance to the primary.

    Attributes:
        instance: Its name; "" where nobody called, as when a failover takes records back.
        request: What it was made for; None: for a replay.
        began: When it was sent, in seconds.
        late: Whether the network carried it out after its caller had given up.
        answered: Whether the answer reached the instance.
    """

    instance: str
    request: Request | None = None
    began: float = 0.0
    late: bool = False
    answered: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Change:
    """Something the primary did.

    Attributes:
        tick: Its place among all that happened.
        at: When, in seconds.
        kind: What.
        key: The record's key.
        version: The version it made, removed or renewed.
        replaced: The version that stood there before a put, or None.
        if_version: The condition it was made under.
        expires_at: When the record ends now.
        call: Whose it was.
        epoch: How many failovers there had been.
    """

    tick: int
    at: float
    kind: Literal["put", "delete", "touch"]
    key: str
    version: Version
    replaced: Version | None
    if_version: Version | Absent | None
    expires_at: float
    call: Call
    epoch: int

    def __repr__(self) -> str:
        version = self.version[-2:].hex()
        condition = (
            self.if_version[-2:].hex() if isinstance(self.if_version, bytes) else repr(self.if_version)
        )
        who = self.call.instance or "failover"
        how = " late" if self.call.late else " replay" if self.call.request is None else ""
        return (
            f"<{who}{how}: {self.kind} {self.key} {version} if {condition},"
            f" {self.expires_at - self.at:.3f} s #{self.tick}>"
        )


NOBODY: Final = Call("")
CALL: ContextVar[Call] = ContextVar("CALL", default=NOBODY)
REQUEST: ContextVar[Request | None] = ContextVar("REQUEST", default=None)


class RecordingStore(MemoryStore):
    """A memory store that tells of each change.

    Args:
        tell: Called with all of a ``Change`` but its tick and epoch.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(clock=virtual_clock)
        self._tell = tell

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        record = await super().get(key, renew_for=renew_for)
        if record is not None and renew_for is not None:
            self._note("touch", key, record.version, None, None, renew_for)
        return record

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        before = await super().get(key)
        receipt = await super().put(
            key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
        )
        after = await super().get(key)
        assert after is not None
        if after.version == receipt.version and (before is None or before.version != receipt.version):
            replaced = None if before is None else before.version
            self._note("put", key, receipt.version, replaced, if_version, expires_in)
        return receipt

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        before = await super().get(key)
        deleted = await super().delete(key, if_version=if_version)
        if before is not None:
            self._note("delete", key, before.version, None, if_version, None)
        return deleted

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        there = await super().touch(key, expires_in=expires_in, if_version=if_version)
        record = await super().get(key)
        if record is not None:
            self._note("touch", key, record.version, None, if_version, expires_in)
        return there

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        results: list[Receipt | SessionKitError] = []
        for key, value, expires_in, if_version, write_id in puts:
            try:
                results.append(
                    await self.put(
                        key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
                    )
                )
            except SessionKitError as error:
                results.append(error)
        return receipts_of(results)

    async def delete_many(self, keys: Iterable[str]) -> int:
        return sum([await self.delete(key) for key in keys])

    def _note(
        self,
        kind: str,
        key: str,
        version: Version,
        replaced: Version | None,
        if_version: Version | Absent | None,
        expires_in: float | None,
    ) -> None:
        now = virtual_clock()
        expires_at = math.inf if expires_in is None else now + expires_in
        self._tell(now, kind, key, version, replaced, if_version, expires_at, CALL.get())


class Through(SessionStore):
    """Passes every call on to a store that it does not own; each goes through ``pass_on``."""

    def __init__(self, inner: SessionStore) -> None:
        self._inner = inner

    async def pass_on(self, method: str, keys: Iterable[str], call: Callable[[], Awaitable[T]]) -> T:
        return await call()

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        return await self.pass_on("get", [key], lambda: self._inner.get(key, renew_for=renew_for))

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        def call() -> Awaitable[Receipt]:
            return self._inner.put(
                key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
            )

        return await self.pass_on("put", [key], call)

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        return await self.pass_on("delete", [key], lambda: self._inner.delete(key, if_version=if_version))

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        def call() -> Awaitable[bool]:
            return self._inner.touch(key, expires_in=expires_in, if_version=if_version)

        return await self.pass_on("touch", [key], call)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        wanted = list(keys)
        return await self.pass_on("get_many", wanted, lambda: self._inner.get_many(wanted))

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        batch = list(puts)
        return await self.pass_on("put_many", [put.key for put in batch], lambda: self._inner.put_many(batch))

    async def delete_many(self, keys: Iterable[str]) -> int:
        wanted = list(keys)
        return await self.pass_on("delete_many", wanted, lambda: self._inner.delete_many(wanted))

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        async def call() -> list[str]:
            return [key async for key in self._inner.scan(prefix)]

        for key in await self.pass_on("scan", [], call):
            yield key

    def lock(
        self, key: str, *, lease: float = 30.0, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[Lease]:
        return self._inner.lock(key, lease=lease, wait=wait)

    async def ping(self) -> float:
        return await self.pass_on("ping", [], self._inner.ping)

    async def aclose(self) -> None:
        """Close nothing: others use the inner store."""


class Tap(Through):
    """Behind the faulty link of an instance: what comes through without a caller came late."""

    def __init__(self, inner: SessionStore, instance: str) -> None:
        super().__init__(inner)
        self._instance = instance

    async def pass_on(self, method: str, keys: Iterable[str], call: Callable[[], Awaitable[T]]) -> T:
        if CALL.get() is not NOBODY:
            return await call()
        token = CALL.set(Call(self._instance, late=True))
        try:
            return await call()
        finally:
            CALL.reset(token)


@dataclass(eq=False)
class Mortality:
    """What ends the process that some objects belong to: from then on they do nothing any more."""

    dead: bool = False
    tasks: set[asyncio.Task[object]] = field(default_factory=set)

    def kill(self) -> None:
        self.dead = True
        for task in self.tasks:
            task.cancel()


class Attempts(Through):
    """In front of the faulty link: what a driver does, which limits every attempt in time.

    Attributes:
        pings: How many are under way.
        most_pings: How many were at most.
    """

    def __init__(self, inner: SessionStore, instance: str, mortality: Mortality, limit: float) -> None:
        super().__init__(inner)
        self._instance = instance
        self._mortality = mortality
        self._limit = limit
        self.pings = 0
        self.most_pings = 0

    async def pass_on(self, method: str, keys: Iterable[str], call: Callable[[], Awaitable[T]]) -> T:
        if self._mortality.dead:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        request = REQUEST.get()
        if request is not None and request.task is not task:
            request = None
        mine = Call(self._instance, request, virtual_clock())
        token = CALL.set(mine)
        self._mortality.tasks.add(task)
        self.pings += method == "ping"
        self.most_pings = max(self.most_pings, self.pings)
        try:
            async with asyncio.timeout(self._limit):
                result = await call()
        except TimeoutError:
            raise StoreTimeout("no answer in time", applied=Applied.MAYBE) from None
        finally:
            self.pings -= method == "ping"
            self._mortality.tasks.discard(task)
            CALL.reset(token)
        mine.answered = True
        if request is not None:
            request.answered.update(keys)
            request.answered_all |= method == "scan"
        return result


class Disk(MemoryStore):
    """Outlives the processes of a machine, as a file does; use it through ``DiskHandle``."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(durable=True, scope=super().capabilities.scope)


class DiskHandle(Through):
    """One process's open file: slow, in order, and of no use to the process once it is dead."""

    def __init__(self, disk: Disk, mortality: Mortality) -> None:
        super().__init__(disk)
        self._mortality = mortality
        self._turn = asyncio.Lock()

    async def pass_on(self, method: str, keys: Iterable[str], call: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._mortality.tasks.add(task)
        try:
            async with self._turn:
                await self._spin()
                result = await call()
                await self._spin()
            return result
        finally:
            self._mortality.tasks.discard(task)

    async def _spin(self) -> None:
        if self._mortality.dead:
            raise asyncio.CancelledError
        await asyncio.sleep(0.002)
        if self._mortality.dead:
            raise asyncio.CancelledError
