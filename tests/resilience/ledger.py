"""Writers that note what was acknowledged to them, and find out what became of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessionkit.errors import StoreError, VersionConflict
from sessionkit.resilience import ConflictFound, Quarantined
from sessionkit.store import ABSENT
from tests.resilience.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sessionkit.resilience import Event, ResilientStore
    from sessionkit.store import Record, SessionStore, Version
    from sessionkit.store.records import Absent

OWN_PUTS = 8
SHARED = 5


@dataclass
class Span:
    """When a write was begun and, if it was acknowledged, when that was; in steps of a common counter."""

    begun: int
    acknowledged: float = float("inf")


@dataclass
class History:
    """What all instances have in common.

    Attributes:
        now: Counts the beginnings and ends of writes.
        last: The last number each writer gave a write of each key.
        spans: The writes of shared keys that everybody writes unconditionally, by key, writer and number.
    """

    now: itertools.count[int] = field(default_factory=itertools.count)
    last: Counter[tuple[str, str]] = field(default_factory=Counter)
    spans: dict[tuple[str, str, int], Span] = field(default_factory=dict)


class Ledger:
    """The writers of one store.

    Each value says the number of each writer's last write that is in it. A counter is written by
    compare-and-set on what was read, so that all its writers' numbers only grow; what is written
    unconditionally names its writer alone.

    Args:
        store: What they write to.
        name: What their names begin with.
        history: What they share with the writers of other stores.
        seed: Of what they do next.
        writers: How many they are.

    Attributes:
        acknowledged: How many writes were.
        errors: What was raised, by its kind.
        conflicts: How many conflicts were reported, by key.
        lost: What is missing and was not reported.
    """

    def __init__(self, store: ResilientStore, name: str, history: History, seed: int, writers: int) -> None:
        self.store = store
        self.acknowledged = 0
        self.errors: Counter[str] = Counter()
        self.conflicts: Counter[str] = Counter()
        self.lost: list[str] = []
        self._names = [f"{name}{number}" for number in range(writers)]
        self._history = history
        self._seed = seed
        # Of the writes that were acknowledged and not reported since: by key and writer the last number,
        # and by shared key when the last one was begun.
        self._counted: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._begun: dict[str, int] = {}
        self._stopping = False
        self._awaited = 0
        self._enough = asyncio.Event()
        store.subscribe(self._hear)

    async def run(self) -> None:
        """Write until told to stop."""
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(self._write(name), name=name)

    def stop(self) -> None:
        """Let each writer finish what it does."""
        self._stopping = True

    async def acknowledges(self, number: int) -> None:
        """Return once so many more writes were acknowledged."""
        self._awaited = self.acknowledged + number
        self._enough.clear()
        async with asyncio.timeout(PATIENCE):
            await self._enough.wait()

    async def check(self, primary: SessionStore) -> None:
        """Look for everything that was acknowledged, by a way past the store."""
        found = await primary.get_many([*self._counted, *self._begun])
        for key, numbers in self._counted.items():
            there = numbers_in(found.get(key))
            for name, number in numbers.items():
                if not number <= there.get(name, 0) <= self._history.last[key, name]:
                    self.lost.append(f"{key}: {number} of {name}, found {there}")
        for key, begun in self._begun.items():
            spans = [self._history.spans[key, *each] for each in numbers_in(found.get(key)).items()]
            if not any(span.acknowledged >= begun for span in spans):
                self.lost.append(f"{key}: begun at {begun}, found {spans}")

    def _hear(self, event: Event) -> None:
        match event:
            case ConflictFound(key=key):
                self.conflicts[key] += 1
                self._counted.pop(key, None)
                self._begun.pop(key, None)
            case Quarantined(key=key, reason=reason):
                self.lost.append(f"{key}: set aside, {reason}")
            case _:
                pass

    async def _write(self, name: str) -> None:
        chance = random.Random(f"{self._seed}/{name}")
        steps: list[Callable[[], Awaitable[None]]] = [
            lambda: self._count(f"counter:{name}", name),
            lambda: self._count(f"counter:{chance.randrange(SHARED)}", name),
            lambda: self._put_own(f"put:{name}:{chance.randrange(OWN_PUTS)}", name),
            lambda: self._put_own(f"put:{name}:{chance.randrange(OWN_PUTS)}", name),
            lambda: self._put_shared(f"put:{chance.randrange(SHARED)}", name),
        ]
        while not self._stopping:
            try:
                await chance.choice(steps)()
            except StoreError as error:
                assert error.temporary or isinstance(error, VersionConflict), error
                self.errors[f"{type(error).__name__} {error.applied.name}"] += 1
            # What is answered from the journal waits for nothing; the others want their turn.
            await asyncio.sleep(0)

    async def _count(self, key: str, name: str) -> None:
        record = await self.store.get(key)
        numbers = numbers_in(record)
        if numbers.get(name, 0) < self._counted[key].get(name, 0):
            self.lost.append(f"{key}: {name} read {numbers}, not {self._counted[key]}")
        number = self._next(key, name)
        version = ABSENT if record is None else record.version
        await self._put(key, {**numbers, name: number}, version)
        self._counted[key][name] = number

    async def _put_own(self, key: str, name: str) -> None:
        number = self._next(key, name)
        await self._put(key, {name: number}, None)
        self._counted[key][name] = number

    async def _put_shared(self, key: str, name: str) -> None:
        number = self._next(key, name)
        span = self._history.spans[key, name, number] = Span(next(self._history.now))
        await self._put(key, {name: number}, None)
        span.acknowledged = next(self._history.now)
        self._begun[key] = max(self._begun.get(key, 0), span.begun)

    async def _put(self, key: str, numbers: dict[str, int], version: Version | Absent | None) -> None:
        await self.store.put(key, json.dumps(numbers).encode(), if_version=version)
        self.acknowledged += 1
        if self.acknowledged >= self._awaited:
            self._enough.set()

    def _next(self, key: str, name: str) -> int:
        self._history.last[key, name] += 1
        return self._history.last[key, name]


def numbers_in(record: Record | None) -> dict[str, int]:
    numbers: dict[str, int] = {} if record is None else json.loads(record.value)
    return numbers


def figures(ledgers: Iterable[Ledger]) -> str:
    """Return what is worth a line of print."""
    each = list(ledgers)
    totals = {
        "acknowledged": sum(ledger.acknowledged for ledger in each),
        "journaled": sum(ledger.store.counts.journaled for ledger in each),
        "replayed": sum(ledger.store.counts.replayed for ledger in each),
        "conflicts": sum(ledger.conflicts.total() for ledger in each),
        "lost": sum(len(ledger.lost) for ledger in each),
    }
    errors = sum((ledger.errors for ledger in each), Counter[str]())
    return ", ".join(f"{name} {number}" for name, number in totals.items()) + f"; errors {dict(errors)}"
