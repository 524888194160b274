"""What clients ask of an instance, and what they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from sessionkit.errors import Applied, BatchFailed, BatchRefused, StoreError, VersionConflict
from sessionkit.resilience import Kind
from sessionkit.store import ABSENT, Absent, Delete, Put, Receipt, Version, Where
from sessionkit.testing.virtual_time import virtual_clock
from tests.resilience.history import Fate, History, Operation, Request
from tests.resilience.recording import REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sessionkit.resilience import ResilientStore
    from sessionkit.store import Record, SessionStore
    from tests.resilience.asks import Ask
    from tests.resilience.laws import Laws

T = TypeVar("T")


class Client:
    """All the clients of one instance.

    Args:
        name: The instance's name.
        primary: What all instances share, to look at.
        history: Where everything is written down.
        laws: What judges the answers.

    Attributes:
        store: The instance's store.
        counts: What happened.
    """

    store: ResilientStore

    def __init__(self, name: str, primary: SessionStore, history: History, laws: Laws) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self._primary = primary
        self._history = history
        self._laws = laws
        self._latest: dict[str, Version | Absent] = {}

    async def perform(self, ask: Ask) -> None:
        """Ask for something and judge the answer; errors of the store are answers."""
        self.counts[ask.kind] += 1
        await getattr(self, f"_{ask.kind}")(ask)

    async def _get(self, ask: Ask) -> None:
        renew = ask.expires_in
        operation = self._operation("get", ask.keys[0], expires_in=renew, renews=renew is not None)
        await self._ask([operation], lambda: self.store.get(operation.key, renew_for=renew), self._read)

    async def _put(self, ask: Ask) -> None:
        operation = self._write(ask, ask.keys[0])
        write = self._put_of(operation)

        def call() -> Awaitable[Receipt]:
            key, value, expires_in, if_version, write_id = write
            return self.store.put(key, value, expires_in=expires_in, if_version=if_version, write_id=write_id)

        await self._ask([operation], call, lambda request, receipt: self._written(request, [receipt]))

    async def _put_many(self, ask: Ask) -> None:
        operations = [self._write(ask, key) for key in ask.keys]
        writes = [self._put_of(operation) for operation in operations]
        await self._ask(operations, lambda: self.store.put_many(writes), self._written)

    async def _write_all(self, ask: Ask) -> None:
        keys = list(dict.fromkeys(ask.keys))
        puts = max(1, len(keys) - ask.deletes)
        first = self._write(ask, keys[0])
        operations = [first, *(self._write(ask, key, first.version) for key in keys[1:puts])]
        operations += [self._operation("delete", key, if_version=self._seen(ask, key)) for key in keys[puts:]]
        writes = [self._write_of(operation) for operation in operations]
        await self._ask(
            operations, lambda: self.store.write_all(writes, write_id=first.version), self._written_all
        )

    async def _delete(self, ask: Ask) -> None:
        key = ask.keys[0]
        if_version = self._seen(ask, key)
        operation = self._operation("delete", key, if_version=if_version)
        await self._ask([operation], lambda: self.store.delete(key, if_version=if_version), self._deleted)

    async def _delete_many(self, ask: Ask) -> None:
        keys = list(dict.fromkeys(ask.keys))
        operations = [self._operation("delete", key) for key in keys]
        await self._ask(operations, lambda: self.store.delete_many(keys), self._deleted)

    async def _touch(self, ask: Ask) -> None:
        operation = self._operation("touch", ask.keys[0], expires_in=ask.expires_in, renews=True)
        await self._ask(
            [operation],
            lambda: self.store.touch(operation.key, expires_in=operation.expires_in),
            self._touched,
        )

    async def _get_many(self, ask: Ask) -> None:
        keys = list(dict.fromkeys(ask.keys))
        operations = [self._operation("get", key) for key in keys]
        await self._ask(operations, lambda: self.store.get_many(keys), self._read_many)

    async def _scan(self, ask: Ask) -> None:
        operations = [self._operation("get", key) for key in ask.keys]

        async def call() -> set[str]:
            found: AsyncIterator[str] = self.store.scan("")
            return {key async for key in found}

        await self._ask(operations, call, self._scanned)

    # What clients are told.

    async def _ask(
        self,
        operations: list[Operation],
        call: Callable[[], Awaitable[T]],
        told: Callable[[Request, T], Awaitable[None]],
    ) -> None:
        request = Request(operations, asyncio.current_task())
        REQUEST.set(request)
        for operation in operations:
            self._history.begin(operation, virtual_clock())
        try:
            result = await call()
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
            self._end(operations, Fate.UNKNOWN)
            raise
        except BatchFailed as failed:
            await self._written(request, failed.results)
        except StoreError as error:
            self._failed(operations, error)
        else:
            await told(request, result)

    def _failed(self, operations: list[Operation], error: StoreError) -> None:
        self.counts[type(error).__name__] += 1
        self._history.tell(f"{operations}: {error!r}", virtual_clock())
        self._end(operations, Fate.REFUSED if error.applied is Applied.NO else Fate.UNKNOWN)
        for operation in operations:
            refusal = error.refusals.get(operation.key) if isinstance(error, BatchRefused) else error
            if isinstance(refusal, VersionConflict):
                self._latest[operation.key] = refusal.current
                if isinstance(refusal.current, bytes):
                    self._history.told[self.name, operation.key].add(refusal.current)
            if operation.fate is Fate.REFUSED:
                self._laws.judge_refusal(operation)

    def _end(self, operations: list[Operation], fate: Fate) -> None:
        for operation in operations:
            self._history.end(operation, fate, virtual_clock())

    async def _read(self, request: Request, record: Record | None) -> None:
        [operation] = request.operations
        await self._judge(request, operation, record)

    async def _read_many(self, request: Request, records: dict[str, Record]) -> None:
        for operation in request.operations:
            await self._judge(request, operation, records.get(operation.key))

    async def _scanned(self, request: Request, keys: set[str]) -> None:
        for operation in request.operations:
            # A renewal that waits keeps no record on a list: that may be over before it comes through.
            waiting = self.store.journal.get(operation.key)
            renewed = waiting is not None and waiting.kind is Kind.TOUCH
            if operation.key in keys or (renewed and await self._primary.get(operation.key) is None):
                self._history.end(operation, Fate.DONE, virtual_clock())
            else:
                await self._judge(request, operation, None)

    async def _touched(self, request: Request, there: bool) -> None:
        [operation] = request.operations
        if there:
            self._end([operation], Fate.DONE)
        else:
            operation.renews = False
            await self._judge(request, operation, None)

    async def _judge(self, request: Request, operation: Operation, record: Record | None) -> None:
        there = await self._primary.get(operation.key) is not None
        now = virtual_clock()
        operation.renews &= record is not None
        self._history.end(operation, Fate.DONE, now)
        self.counts["read stale"] += record is not None and record.stale
        answered = request.asked_primary(operation.key)
        self._laws.judge_read(operation, record, answered=answered, there=there, now=now)
        self._latest[operation.key] = ABSENT if record is None else record.version
        self._history.tell(f"{operation}: {record}", now)
        if record is not None:
            self._history.see(self.name, operation.key, record.version)

    async def _written(self, request: Request, results: Sequence[object]) -> None:
        for operation, result in zip(request.operations, results, strict=True):
            if isinstance(result, Receipt):
                assert result.version == operation.version
                journaled = result.where is Where.JOURNALED
                self._end([operation], Fate.JOURNALED if journaled else Fate.DONE)
                self._latest[operation.key] = result.version
            else:
                assert isinstance(result, StoreError)
                self._failed([operation], result)

    async def _written_all(self, request: Request, receipt: Receipt) -> None:
        fate = Fate.JOURNALED if receipt.where is Where.JOURNALED else Fate.DONE
        self.counts["write_all journaled"] += fate is Fate.JOURNALED
        self._end(request.operations, fate)
        for operation in request.operations:
            self._latest[operation.key] = ABSENT if operation.version is None else operation.version

    async def _deleted(self, request: Request, _: object) -> None:
        self._end(request.operations, Fate.DONE)
        for operation in request.operations:
            self._latest[operation.key] = ABSENT

    # What is asked.

    def _seen(self, ask: Ask, key: str) -> Version | None:
        """Return the version a deletion is on the condition of."""
        seen = self._latest.get(key) if ask.condition == "seen" else None
        return seen if isinstance(seen, bytes) else None

    def _write(self, ask: Ask, key: str, version: Version | None = None) -> Operation:
        seen = self._latest.get(key) if ask.condition == "seen" else None
        if_version = ABSENT if ask.condition == "absent" else seen
        number = self._history.tick()
        version = version or Version(number.to_bytes(8))
        value = b"%d:" % number + b"x" * ask.size
        return self._operation(
            "put",
            key,
            version=version,
            value=value,
            if_version=if_version,
            expires_in=ask.expires_in,
            renews=True,
        )

    def _operation(self, kind: str, key: str, **rest: object) -> Operation:
        return Operation(self.name, key, kind, **rest)  # type: ignore[arg-type]

    def _write_of(self, operation: Operation) -> Put | Delete:
        """Return what a ``write_all`` is told."""
        if operation.version is not None:
            return self._put_of(operation)._replace(write_id=None)
        assert not isinstance(operation.if_version, Absent)
        return Delete(operation.key, operation.if_version)

    def _put_of(self, operation: Operation) -> Put:
        return Put(
            operation.key,
            operation.value,
            operation.expires_in,
            operation.if_version,
            operation.version,
        )
