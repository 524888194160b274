"""Writers that check every answer, for tests of servers that change places under them."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest
import redis

from sessionkit.errors import Applied, StoreError, VersionConflict
from sessionkit.store import ABSENT, Put, Record
from sessionkit.testing.servers import find_servers
from sessionkit.testing.servers.waiting import wait_for_async
from sessionkit_redis.layout import read_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import RedisServer, ServerBinary

PATIENCE = 60
_PACE = 0.004
"""Seconds between two operations of one writer: the servers need a core, too."""


@pytest.fixture
def failing_binary(server_binary: ServerBinary, heavy: bool) -> ServerBinary:
    """The server whose failovers are tested: one of them, as each takes its seconds; all with --heavy."""
    preferred = {server.name: server for server in find_servers()}
    chosen = preferred.get("redis-system") or next(iter(preferred.values()))
    if not heavy and server_binary.name != chosen.name:
        pytest.skip(f"failovers of {server_binary.name} run with --heavy; without it those of {chosen.name}")
    return server_binary


@dataclass
class Cell:
    """A key that one writer alone writes.

    Attributes:
        key: The key.
        possible: What may stand there, None for nothing: several values while a write is under way, and
            after one of unknown end.
        sent: Every value that was ever on its way there.
    """

    key: str
    possible: set[bytes | None] = field(default_factory=lambda: {None})
    sent: set[bytes | None] = field(default_factory=lambda: {None})


class Failover(NamedTuple):
    """What a failover was to the load.

    Attributes:
        promoted: Seconds until the replica said that it is a primary.
        settled: Seconds until all that have a say agreed on that.
        back: Seconds until an operation had succeeded on every key of the primary that failed.
        lost: Keys whose acknowledged value the replica had not got, with what it had.
    """

    promoted: float
    settled: float
    back: float
    lost: dict[str, bytes | None]


class Load:
    """Writers that go on until they are told to stop, each with keys of its own.

    Args:
        store: What they write to.
        keys: Each writer's keys.
        seed: Of what they do next.
        fails: Whether a server fails meanwhile. Then errors of ours are counted, if they are temporary, and
            so are writes that were acknowledged and are gone. Otherwise either ends the load.

    Attributes:
        cells: Every key by its name.
        done: How many operations succeeded, by their names.
        errors: What was raised, counted by its text.
        maybe: How many writes ended in an error and may have been applied.
        gone: What was found in place of an acknowledged write, with its key.
        conflicts: How many compare-and-set writes met another version than they had just read.
    """

    def __init__(
        self, store: SessionStore, keys: Sequence[Sequence[str]], seed: int, *, fails: bool = False
    ) -> None:
        self._store = store
        self._writers = [[Cell(key) for key in own] for own in keys]
        self._random = random.Random(seed)
        self._fails = fails
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._number = 0
        self._awaited: set[str] = set()
        self._marked_at = 0.0
        self._answered = asyncio.Event()
        self.cells = {cell.key: cell for own in self._writers for cell in own}
        self.done: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.maybe = 0
        self.gone: list[tuple[str, bytes | None]] = []
        self.conflicts = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Write while the body runs; a wrong answer, or an error that is not expected, is raised."""
        self._tasks = [asyncio.create_task(self._write(own)) for own in self._writers]
        try:
            yield self
        finally:
            self._stopping = True
            await asyncio.gather(*self._tasks)

    async def answered(self, keys: Iterable[str]) -> float:
        """Return in how many seconds an operation that starts from now on has succeeded on each key."""
        self._awaited = set(keys)
        self._answered.clear()
        self._marked_at = time.monotonic()
        waiting = asyncio.ensure_future(self._answered.wait())
        async with asyncio.timeout(PATIENCE):
            # A writer that has ended answers no more.
            await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        took = time.monotonic() - self._marked_at
        waiting.cancel()
        for task in self._tasks:
            if task.done():
                await task
        return took

    async def through_failover(
        self,
        keys: Sequence[str],
        fail: Callable[[], object],
        replica: RedisServer,
        settled: Callable[[], Awaitable[object]],
    ) -> Failover:
        """Let a primary fail, and return once every one of its keys is served again.

        Args:
            keys: Its keys.
            fail: Makes it fail.
            replica: Its replica.
            settled: Waits until all agree on the new primary.
        """
        fail()
        started = time.monotonic()
        back = asyncio.create_task(self.answered(keys))
        # Before it is promoted: what it has not got now it will never get.
        copied = await asyncio.to_thread(_values_on, replica, keys)
        lost = {key: value for key, value in copied.items() if value not in self.cells[key].possible}
        assert not _is_primary(replica)
        settling = asyncio.ensure_future(settled())
        await wait_for_async(lambda: "" if _is_primary(replica) else "the replica is no primary", PATIENCE)
        promoted = time.monotonic() - started
        await settling
        return Failover(promoted, time.monotonic() - started, await back, lost)

    def check_losses(self, lost: dict[str, bytes | None]) -> None:
        """Nothing else is gone than what the replica had not got, and that only once."""
        assert len(set(self.gone)) == len(self.gone)
        assert set(self.gone) <= set(lost.items())

    def figures(self) -> str:
        """Return what is worth a line of print."""
        done = sum(self.done.values())
        return (
            f"{done} done {self.done}, errors {self.errors}, maybe {self.maybe}, conflicts {self.conflicts}"
        )

    async def operations(self, number: int) -> None:
        """Return once so many more operations have succeeded."""
        enough = self.succeeded + number

        def missing() -> str:
            ended = any(task.done() for task in self._tasks)
            return "" if ended or self.succeeded >= enough else f"{enough - self.succeeded} operations"

        await wait_for_async(missing, PATIENCE)

    @property
    def succeeded(self) -> int:
        """How many operations succeeded."""
        return sum(self.done.values())

    async def check_all(self) -> None:
        """Read every key once more, one by one and in a batch."""
        for cell in self.cells.values():
            await self._get(cell)
        found = await self._store.get_many(self.cells)
        for cell in self.cells.values():
            self._saw(cell, found.get(cell.key))

    async def _write(self, own: Sequence[Cell]) -> None:
        single: list[Callable[[Cell], Awaitable[object]]] = [
            self._put,
            self._put,
            self._put_at_version,
            self._get,
            self._touch,
            self._delete,
            self._lock,
        ]
        batches = [self._put_many, self._get_many, self._delete_many]
        while not self._stopping:
            started = time.monotonic()
            cell = self._random.choice(own)
            operation = self._random.choice([*single, None])
            try:
                if operation is None:
                    batch = self._random.choice(batches)
                    await batch(self._random.sample(own, self._random.randint(1, len(own))))
                    self._count(batch.__name__)
                else:
                    await operation(cell)
                    self._count(operation.__name__)
                    self._answer(cell.key, started)
            except StoreError as error:
                if not self._fails or not error.temporary:
                    raise
                # One text for all nodes and keys.
                name = f"{type(error).__name__} {error.applied.name}"
                self.errors[name] = self.errors.get(name, 0) + 1
            await asyncio.sleep(_PACE)

    def _count(self, name: str) -> None:
        name = name.removeprefix("_")
        self.done[name] = self.done.get(name, 0) + 1

    def _answer(self, key: str, started: float) -> None:
        if started >= self._marked_at and key in self._awaited:
            self._awaited.discard(key)
            if not self._awaited:
                self._answered.set()

    def _new_value(self, cell: Cell) -> bytes:
        self._number += 1
        return f"{cell.key} {self._number}".encode()

    async def _send(self, values: dict[str, bytes | None], call: Awaitable[object]) -> object:
        before = {key: frozenset(self.cells[key].possible) for key in values}
        for key, value in values.items():
            self.cells[key].sent.add(value)
            self.cells[key].possible.add(value)
        try:
            result = await call
        except StoreError as error:
            if error.applied is Applied.NO:
                for key, possible in before.items():
                    self.cells[key].possible = set(possible)
            else:
                self.maybe += 1
            raise
        for key, value in values.items():
            self.cells[key].possible = {value}
        return result

    def _saw(self, cell: Cell, record: Record | None) -> None:
        value = None if record is None else record.value
        assert value in cell.sent, f"{cell.key} holds another one's {value!r}"
        if value not in cell.possible:
            assert self._fails, f"{cell.key} holds {value!r}, not {cell.possible!r}"
            self.gone.append((cell.key, value))
        cell.possible = {value}

    def _saw_presence(self, cell: Cell, *, present: bool) -> None:
        if not any((value is not None) is present for value in cell.possible):
            assert self._fails, f"{cell.key} is {'' if present else 'not '}there: not {cell.possible!r}"
            cell.possible = cell.sent - {None} if present else {None}

    async def _put(self, cell: Cell) -> None:
        value = self._new_value(cell)
        await self._send({cell.key: value}, self._store.put(cell.key, value, expires_in=300))

    async def _put_at_version(self, cell: Cell) -> None:
        record = await self._store.get(cell.key)
        self._saw(cell, record)
        value = self._new_value(cell)
        version = ABSENT if record is None else record.version
        try:
            await self._send({cell.key: value}, self._store.put(cell.key, value, if_version=version))
        except VersionConflict:
            assert self._fails, f"{cell.key} has another version than was just read"
            self.conflicts += 1

    async def _get(self, cell: Cell) -> None:
        self._saw(cell, await self._store.get(cell.key))

    async def _touch(self, cell: Cell) -> None:
        self._saw_presence(cell, present=await self._store.touch(cell.key, expires_in=300))

    async def _delete(self, cell: Cell) -> None:
        before = Cell(cell.key, set(cell.possible), cell.sent)
        deleted = await self._send({cell.key: None}, self._store.delete(cell.key))
        self._saw_presence(before, present=deleted is True)

    async def _lock(self, cell: Cell) -> None:
        async with self._store.lock(cell.key, lease=2.0, wait=2.0):
            await self._put(cell)

    async def _put_many(self, cells: Sequence[Cell]) -> None:
        values = {cell.key: self._new_value(cell) for cell in cells}
        puts = [Put(key, value, 300) for key, value in values.items()]
        await self._send({**values}, self._store.put_many(puts))

    async def _get_many(self, cells: Sequence[Cell]) -> None:
        found = await self._store.get_many([cell.key for cell in cells])
        for cell in cells:
            self._saw(cell, found.get(cell.key))

    async def _delete_many(self, cells: Sequence[Cell]) -> None:
        await self._send(
            dict.fromkeys(cell.key for cell in cells), self._store.delete_many([cell.key for cell in cells])
        )


@pytest.fixture
def load(seed: int) -> Callable[..., Load]:
    """Makes a ``Load``."""

    def make(store: SessionStore, keys: Sequence[Sequence[str]], *, fails: bool = False) -> Load:
        return Load(store, keys, seed, fails=fails)

    return make


def _is_primary(server: RedisServer) -> bool:
    return b"role:master" in server.command("INFO", "replication")


def _values_on(replica: RedisServer, keys: Iterable[str]) -> dict[str, bytes | None]:
    """Return what a replica has of some keys, without its primary."""
    # Also lets it read what its primary sent last.
    of_cluster = b"cluster_enabled:1" in replica.command("INFO", "cluster")
    with redis.Redis(port=replica.port, single_connection_client=True) as client:
        if of_cluster:
            client.execute_command("READONLY")
        found: dict[str, bytes | None] = {}
        for key in keys:
            stored = client.get(key)
            assert stored is None or isinstance(stored, bytes)
            record = None if stored is None else read_record(stored)
            found[key] = None if record is None else record.value
        return found
