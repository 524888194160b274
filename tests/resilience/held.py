"""A primary whose operations are applied, and answered, when a test says so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from sessionkit.errors import StoreError, StoreUnavailable
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sessionkit.store import Absent, Delete, Put, Receipt, Record, Version

T = TypeVar("T")


class Held:
    """One operation that is on its way."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.goes: asyncio.Future[None] = loop.create_future()
        self.applied = asyncio.Event()
        self.answer: asyncio.Future[None] = loop.create_future()

    async def apply(self) -> None:
        """Return once the store has done it."""
        self.goes.set_result(None)
        await self.applied.wait()

    async def refuse(self) -> None:
        """Have it fail without being done."""
        self.goes.set_exception(StoreUnavailable("refused"))
        await turns()

    async def reply(self, error: StoreError | None = None) -> None:
        """Let the answer through, or this error instead."""
        if error is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(error)
        await turns()


class HeldStore(MemoryStore):
    """Holds writes while it is told to.

    Attributes:
        holds: Whether it does.
        down: Whether what is not held is refused.
        blind: Whether reads are.
        held: What is on its way.
    """

    def __init__(self) -> None:
        super().__init__(clock=virtual_clock)
        self.holds = False
        self.down = False
        self.blind = False
        self.held: asyncio.Queue[Held] = asyncio.Queue()

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        if self.blind:
            raise StoreUnavailable("blind")
        return await super().get(key, renew_for=renew_for)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        put = super().put
        return await self._do(
            lambda: put(key, value, expires_in=expires_in, if_version=if_version, write_id=write_id)
        )

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        put_many = super().put_many
        return await self._do(lambda: put_many(puts))

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        delete = super().delete
        return await self._do(lambda: delete(key, if_version=if_version))

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        write_all = super().write_all
        return await self._do(lambda: write_all(writes, write_id=write_id))

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        touch = super().touch
        return await self._do(lambda: touch(key, expires_in=expires_in, if_version=if_version))

    async def ping(self) -> float:
        if self.down:
            raise StoreUnavailable("down")
        return await super().ping()

    async def _do(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self.holds:
            held = Held()
            self.held.put_nowait(held)
            await held.goes
            try:
                return await operation()
            finally:
                held.applied.set()
                await held.answer
        if self.down:
            raise StoreUnavailable("down")
        return await operation()


async def turns() -> None:
    """Let what is ready run."""
    for _ in range(12):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[T]) -> None:
    """Return once a task is cancelled."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
