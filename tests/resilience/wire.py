"""The way from an instance to the shared primary, and to its disk: what fails, and who called."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from sessionkit.errors import Applied, StoreTimeout
from sessionkit.store import Absent, AtomicStore, Capabilities, Delete, Lease, Put, Receipt, Record, Version
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore
from tests.resilience.recording import CALL, NOBODY, REQUEST, Call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class Through(AtomicStore):
    """Passes every call on to a store that it does not own; each goes through ``pass_on``."""

    def __init__(self, inner: AtomicStore) -> None:
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

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        batch = list(writes)
        keys = [write.key for write in batch]
        return await self.pass_on("write_all", keys, lambda: self._inner.write_all(batch, write_id=write_id))

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

    def __init__(self, inner: AtomicStore, instance: str) -> None:
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

    def __init__(self, inner: AtomicStore, instance: str, mortality: Mortality, limit: float) -> None:
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
        return replace(super().capabilities, durable=True)


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
