"""How soon a resilient store answers while its server is dead, or says nothing at all."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.entrants import TTL, VALUES, keys_of, store_client
from benchmarks.load import Load, run_load
from benchmarks.rows import Bar
from sessionkit import open_store
from sessionkit.errors import StoreUnavailable
from sessionkit.resilience.store import DEFAULT_DEADLINE
from sessionkit.store import Put, new_version
from sessionkit.testing.chaos import ChaosProxy
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.measure import Operation
    from sessionkit.resilience import ResilientStore
    from sessionkit.store import Version
    from sessionkit.testing.servers import ServerBinary

OPEN: Final = "circuit open"
"""The situation of ``time_open_circuit``; with a journal in a file it says so."""

P99_BAR_MS: Final = 1.0
"""The most milliseconds that 99 of 100 operations may take in that situation."""

BLACK_HOLE_CALLERS: Final = 128

_HOST: Final = "127.0.0.1"
_LATE: Final = 0.1
"""Seconds by which a busy machine may be late for a deadline."""


@dataclass(frozen=True)
class Timed:
    """How long operations took in some situation.

    Attributes:
        situation: Which.
        work: Which operation.
        callers: How many repeated it at the same time.
        done: How many succeeded.
        p50_ms: Their median latency; None where none succeeded.
        p99_ms: Its 99th percentile.
        wrong: Callers that met an error, and values that were not those of their keys.
    """

    situation: str
    work: str
    callers: int
    done: int
    p50_ms: float | None
    p99_ms: float | None
    wrong: int

    @classmethod
    def of(cls, situation: str, work: str, callers: int, load: Load) -> Timed:
        """Return what a load says."""
        p50_ms, p99_ms = (
            None if seconds is None else round(seconds * 1e3, 4) for seconds in (load.p50, load.p99)
        )
        wrong = sum(load.errors.values()) + load.mismatches
        return cls(situation, work, callers, load.done, p50_ms, p99_ms, wrong)


@dataclass(frozen=True)
class BlackHole:
    """What callers saw of a server that took everything and said nothing.

    Attributes:
        callers: How many there were.
        timeout: Seconds that the driver waits for an answer.
        deadline: Seconds that one operation may take with its retries.
        first: Seconds until the first caller was answered.
        last: Seconds until all were.
        then: How long operations took from then on.
    """

    callers: int
    timeout: float
    deadline: float
    first: float
    last: float
    then: list[Timed]


async def time_open_circuit(binary: ServerBinary, callers: Sequence[int], seconds: float) -> list[Timed]:
    """Kill a server, and time what its store does without it.

    Args:
        binary: The server.
        callers: Numbers of concurrent callers.
        seconds: How long one measurement goes on.
    """
    timed: list[Timed] = []
    for in_file in (False, True):
        situation = f"{OPEN}, journal in SQLite" if in_file else OPEN
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            server = stack.enter_context(RedisServer(binary))
            journal = f"sqlite:///{folder / 'journal.db'}" if in_file else None
            store = await stack.enter_async_context(_losing(open_store(server.url(), journal=journal)))
            keys = keys_of("resilience")
            versions = await _fill(store, keys)
            server.kill()
            # A write whose attempts all fail opens the circuit.
            await store.put("benchmark:opens", b"")
            for work, operation in _operations(store, keys, versions).items():
                for count in callers:
                    stored = VALUES if work == "get" else None
                    load = await run_load(operation, count, seconds, stored)
                    timed.append(Timed.of(situation, work, count, load))
    return timed


async def time_black_hole(
    binary: ServerBinary, timeout: float, seconds: float, *, callers: int = BLACK_HOLE_CALLERS
) -> BlackHole:
    """Swallow all that passes between a store and its server, and time who is answered when.

    Half of the callers put, the others get what is known.

    Args:
        binary: The server.
        timeout: Seconds that the driver waits for an answer.
        seconds: How long the measurement of what comes after goes on.
        callers: How many callers there are.
    """
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(binary))
        proxy = await stack.enter_async_context(ChaosProxy(_HOST, server.port))
        url = proxy.url(server.url())
        store = await stack.enter_async_context(_losing(open_store(url, timeout=timeout)))
        keys = keys_of("resilience")
        await _fill(store, keys)
        client = store_client(store, keys)
        assert client.get is not None
        await run_load(client.get, callers, 0)
        proxy.black_hole()
        answered: list[float] = []
        started = time.perf_counter()

        async def call(number: int) -> None:
            operation = client.put if number % 2 else client.get
            assert operation is not None
            await operation(number)
            answered.append(time.perf_counter() - started)

        await asyncio.gather(*map(call, range(callers)))
        then = [
            Timed.of("black hole, from then on", work, callers, await run_load(operation, callers, seconds))
            for work, operation in (("get", client.get), ("put", client.put))
        ]
        proxy.heal()
    return BlackHole(callers, timeout, DEFAULT_DEADLINE, min(answered), max(answered), then)


def hold_open_circuit_to_bars(loop: str, timed: Sequence[Timed]) -> list[Bar]:
    """Return how latencies stand to what is asked."""
    bars: list[Bar] = []
    for each in timed:
        work = f"{each.work}, {each.situation}"
        if each.situation == OPEN and each.p99_ms is not None:
            asked, met = f"p99 at most {P99_BAR_MS:g} ms", each.p99_ms <= P99_BAR_MS
            bars.append(Bar(loop, work, each.callers, asked, f"{each.p99_ms:.3f}", met))
        if each.wrong:
            bars.append(Bar(loop, work, each.callers, "no error", f"{each.wrong:,}", met=False))
    return bars


def hold_black_hole_to_bar(loop: str, seen: BlackHole) -> Bar:
    """Return how the wait of the last caller stands to the deadline."""
    asked, met = f"all answered by the deadline of {seen.deadline:g} s", seen.last <= seen.deadline + _LATE
    return Bar(loop, "black hole", seen.callers, asked, f"{seen.last:.2f} s", met)


@asynccontextmanager
async def _losing(store: ResilientStore) -> AsyncIterator[ResilientStore]:
    """Close the store, and let go what is journaled in memory."""
    try:
        yield store
    finally:
        with suppress(StoreUnavailable):
            await store.aclose()


async def _fill(store: ResilientStore, keys: Sequence[str]) -> list[Version]:
    puts = [Put(key, value, TTL) for key, value in zip(keys, VALUES, strict=True)]
    return [receipt.version for receipt in await store.put_many(puts)]


def _operations(store: ResilientStore, keys: Sequence[str], versions: list[Version]) -> dict[str, Operation]:
    client = store_client(store, keys)
    assert client.get is not None

    async def put_if_version(index: int) -> object:
        # Noted before anybody else can ask for it.
        expected, versions[index] = versions[index], new_version()
        return await store.put(
            keys[index], VALUES[index], expires_in=TTL, if_version=expected, write_id=versions[index]
        )

    async def lock(index: int) -> None:
        async with store.lock(keys[index]):
            pass

    # The plain put last: it gives records versions that are not noted.
    return {"get": client.get, "put if_version": put_if_version, "lock": lock, "put": client.put}
