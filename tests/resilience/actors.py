"""One instance of a bot over its own faulty link to the shared primary, and what clients ask of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sessionkit.errors import Applied, BatchFailed, StoreError, StoreUnavailable, VersionConflict
from sessionkit.resilience import (
    CircuitBreaker,
    ConflictFound,
    Journal,
    Kind,
    Quarantined,
    ResilientStore,
    RetryPolicy,
    State,
    StateChanged,
    StoreFile,
)
from sessionkit.store import ABSENT, Put, Receipt, Version, Where
from sessionkit.testing.chaos import ChaosStore
from sessionkit.testing.virtual_time import virtual_clock
from tests.resilience.history import Fate, History, Operation, Request
from tests.resilience.recording import REQUEST, Attempts, Disk, DiskHandle, Mortality, Tap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from sessionkit.resilience import Event, Policy
    from sessionkit.store import Absent, Record, SessionStore
    from tests.resilience.laws import Laws

T = TypeVar("T")
ATTEMPT_SECONDS = 2.0
RETRY = RetryPolicy(attempts=3, budget_floor=3, budget_ratio=0.2)
BREAKER = CircuitBreaker(failures=3, first_pause=0.5, longest_pause=4.0)


class Ask(NamedTuple):
    """What a client asks for: an operation, on keys, with what it needs.

    Attributes:
        condition: "any"; "seen": the version the client had in its hands last; "absent".
    """

    kind: str
    keys: tuple[str, ...]
    size: int = 0
    expires_in: float | None = None
    condition: str = "any"


class Actor:
    """An instance, from one start of its process to the next.

    Args:
        name: Its name.
        primary: What all instances share.
        clock_seed: What its link's randomness comes from.
        history: Where everything is written down.
        laws: What judges the answers.
        outage: As of ``ResilientStore``.
        max_bytes: The bound of its journal; None: the default.
        lock_path: The lock of its journal's file; None: it has none.
        on_conflict: As of ``ResilientStore``.

    Attributes:
        counts: What happened, over all its processes.
    """

    def __init__(
        self,
        name: str,
        primary: SessionStore,
        seed: int,
        history: History,
        laws: Laws,
        *,
        outage: str = "fallback",
        max_bytes: int | None = None,
        lock_path: Path | None = None,
        on_conflict: Policy = "primary_wins",
    ) -> None:
        self.name = name
        self.raises = outage == "raise"
        self.counts: Counter[str] = Counter()
        self.link = ChaosStore(Tap(primary, name), seed=seed, clock=virtual_clock)
        self._primary = primary
        self._history = history
        self._laws = laws
        self._outage = outage
        self._max_bytes = max_bytes
        self._lock_path = lock_path
        self._on_conflict = on_conflict
        self._disk = Disk()
        self._latest: dict[str, Version | Absent] = {}
        self.open()

    @property
    def durable(self) -> bool:
        return self._lock_path is not None

    def open(self) -> None:
        """Start the process."""
        self._mortality = Mortality()
        self.attempts = Attempts(self.link, self.name, self._mortality, ATTEMPT_SECONDS)
        self.store = ResilientStore(
            self.attempts,
            journal=self._journal(),
            retry=RETRY,
            breaker=BREAKER,
            deadline=6.0,
            outage=self._outage,  # type: ignore[arg-type]
            on_conflict=self._on_conflict,
            clock=virtual_clock,
        )
        self.store.subscribe(self._heard)

    def _journal(self) -> Journal | None:
        if self.raises:
            return None
        file = None
        if self._lock_path is not None:
            file = StoreFile(DiskHandle(self._disk, self._mortality), self._lock_path)
        return Journal(file=file) if self._max_bytes is None else Journal(self._max_bytes, file=file)

    async def kill(self) -> None:
        """End the process without a word, and start another one."""
        self._history.kills.append((self.name, virtual_clock()))
        self.counts["kills"] += 1
        self._history.tell(f"{self.name} is killed", virtual_clock())
        self._collect()
        self._mortality.kill()
        await asyncio.sleep(0)
        await self.store.journal.aclose()  # as the system frees the locks of the dead
        self.open()

    async def reopen(self) -> None:
        """Close the store, and open another one."""
        try:
            await self.store.aclose()
        except StoreUnavailable:
            assert not self.durable
            self.counts["lost_at_close"] += 1
            self._history.lose(self.name)
        else:
            if not self.durable and self.store.journal.depth + len(self.store.journal.quarantined):
                self._laws.breach(1, f"{self.name} closed with writes in memory and did not say so")
        self.counts["closed"] += 1
        self._collect()
        self._mortality.kill()
        self.open()

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

        async def told(request: Request, receipt: Receipt) -> None:
            await self._written(request, [receipt])

        await self._ask([operation], call, told)

    async def _put_many(self, ask: Ask) -> None:
        operations = [self._write(ask, key) for key in ask.keys]
        writes = [self._put_of(operation) for operation in operations]
        await self._ask(operations, lambda: self.store.put_many(writes), self._written)

    async def _delete(self, ask: Ask) -> None:
        key = ask.keys[0]
        seen = self._latest.get(key) if ask.condition == "seen" else None
        if_version = seen if isinstance(seen, bytes) else None
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
            if isinstance(error, VersionConflict):
                self._latest[operation.key] = error.current
                if isinstance(error.current, bytes):
                    self._history.told[self.name, operation.key].add(error.current)
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

    async def _deleted(self, request: Request, _: object) -> None:
        self._end(request.operations, Fate.DONE)
        for operation in request.operations:
            self._latest[operation.key] = ABSENT

    # What is asked.

    def _write(self, ask: Ask, key: str) -> Operation:
        seen = self._latest.get(key) if ask.condition == "seen" else None
        if_version = ABSENT if ask.condition == "absent" else seen
        number = self._history.tick()
        version = Version(number.to_bytes(8))
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

    def _put_of(self, operation: Operation) -> Put:
        return Put(
            operation.key,
            operation.value,
            operation.expires_in,
            operation.if_version,
            operation.version,
        )

    # What the store says of itself.

    def _heard(self, event: Event) -> None:
        self._history.tell(f"  {self.name}: {event}", virtual_clock())
        match event:
            case StateChanged(_, new, _):
                self.counts[new.value] += 1
            case ConflictFound(key, kept):
                self.counts[f"conflict: {kept}"] += 1
                self._history.conflict(self.name, key)
            case Quarantined(key, _):
                self.counts["quarantined"] += 1
                self._history.conflict(self.name, key)

    def _collect(self) -> None:
        counts = self.store.counts
        for name in ("journaled", "replayed", "superseded", "probes"):
            self.counts[name] += getattr(counts, name)
        self.counts["retries"] += self.store.retries.retries
        self.counts["retries refused"] += self.store.retries.refused

    def at_rest(self) -> bool:
        """Whether everything journaled has reached the primary."""
        return self.store.state is State.HEALTHY and self.store.journal.depth == 0

    def judge_itself(self) -> None:
        """Judge what must hold at every moment."""
        store, journal = self.store, self.store.journal
        size = sum(entry.size for entry in (*journal, *journal.quarantined.values()))
        if not journal.bytes == size <= journal.max_bytes:
            self._laws.breach(7, f"{self.name}: {journal.bytes} bytes for {size} of {journal.max_bytes}")
        if store.state is State.HEALTHY and journal.depth:
            self._laws.breach(8, f"{self.name} is healthy with {journal.depth} keys in its journal")
        if self.attempts.most_pings > 1:
            self._laws.breach(9, f"{self.name} made {self.attempts.most_pings} probes at once")
        allowed = RETRY.budget_floor + RETRY.budget_ratio * store.retries.requests
        if store.retries.retries > allowed:
            self._laws.breach(9, f"{self.name}: {store.retries.retries} retries of {allowed}")
        if self.raises and (journal.depth or journal.bytes or journal.quarantined):
            self._laws.breach(11, f"{self.name} raises, and journals {journal.depth} keys")
