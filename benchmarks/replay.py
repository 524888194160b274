"""The replay of a journal after an outage, and what others feel of it meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.entrants import TTL, VALUE_BYTES, VALUES, keys_of, store_client
from benchmarks.load import run_load
from benchmarks.outage import Timed
from benchmarks.rows import Bar
from sessionkit import open_driver
from sessionkit.resilience import CircuitBreaker, ResilientStore, State, StateChanged
from sessionkit.store import Put, Where
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from sessionkit.resilience import Event
    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import ServerBinary

LIVE_CALLERS: Final = 16

# Written before it is acknowledged, so that a killed server comes back with it; synced by the system.
_KEEPS: Final = {"appendonly": "yes", "appendfsync": "no"}
_BREAKER: Final = CircuitBreaker(longest_pause=0.5)
_PATIENCE: Final = 300.0
_TURN: Final = 1_000


@dataclass(frozen=True)
class Replay:
    """What came of an outage.

    Attributes:
        writes: How many were journaled.
        keys: On how many keys.
        journaling: Seconds that this took.
        passes: How often the store went over to replaying.
        seconds: From the beginning of the replay to its end.
        replayed: Entries that the primary has.
        conflicts: Entries that met something else than they were based on.
        lost: Keys that hold something else than what was written last.
        before: How long the operations of the live callers took while all was well.
        during: How long they took during the replay.
    """

    writes: int
    keys: int
    journaling: float
    passes: int
    seconds: float
    replayed: int
    conflicts: int
    lost: int
    before: Timed
    during: Timed


async def time_replay(binary: ServerBinary, writes: int, keys: int, seconds: float) -> Replay:
    """Kill a server, write without it, start it again, and read and write other keys while it catches up.

    Args:
        binary: The server.
        writes: How many writes are journaled.
        keys: On how many keys; each was there before.
        seconds: How long the live callers are measured before the outage.
    """
    names = [f"benchmark:replayed:{number}" for number in range(keys)]
    with RedisServer(binary, config=_KEEPS) as server:
        async with ResilientStore(open_driver(server.url()), breaker=_BREAKER) as store:
            watch = _Watch(store)
            await store.put_many([Put(name, b"before", TTL) for name in names])
            await store.put_many(
                [Put(key, value, TTL) for key, value in zip(keys_of("live"), VALUES, strict=True)]
            )
            live = _Live(store)
            before = await live.run("healthy", seconds)
            server.kill()
            started = time.perf_counter()
            for number in range(writes):
                receipt = await store.put(names[number % keys], _value(number), expires_in=TTL)
                assert receipt.where is Where.JOURNALED
                if number % _TURN == _TURN - 1:
                    await asyncio.sleep(0)
            journaling = time.perf_counter() - started
            server.restart()
            await asyncio.wait_for(watch.began.wait(), _PATIENCE)
            during = await live.run("during the replay", _PATIENCE, until_healthy=True)
            lost = await _lost(store.primary, names, writes)
            return Replay(
                writes=writes,
                keys=keys,
                journaling=journaling,
                passes=watch.passes,
                seconds=watch.ended_at - watch.began_at,
                replayed=store.counts.replayed,
                conflicts=store.counts.conflicts,
                lost=lost,
                before=before,
                during=during,
            )


def hold_replay_to_bars(loop: str, seen: Replay) -> list[Bar]:
    """Return how a replay stands to what is asked."""

    def bar(asked: str, figure: int, wanted: int) -> Bar:
        return Bar(loop, "replay", LIVE_CALLERS, asked, f"{figure:,}", figure == wanted)

    bars = [
        bar("in one pass", seen.passes, 1),
        bar(f"{seen.keys:,} entries replayed", seen.replayed, seen.keys),
        bar("no conflict", seen.conflicts, 0),
        bar("no write lost", seen.lost, 0),
    ]
    return bars + [
        bar(f"no error, {timed.situation}", timed.wrong, 0)
        for timed in (seen.before, seen.during)
        if timed.wrong
    ]


class _Watch:
    """When a replay began and ended."""

    def __init__(self, store: ResilientStore) -> None:
        self.began = asyncio.Event()
        self.began_at = self.ended_at = 0.0
        self.passes = 0
        store.subscribe(self._note)

    def _note(self, event: Event) -> None:
        match event:
            case StateChanged(_, State.REPLAYING):
                self.passes += 1
                self.began_at = time.perf_counter()
                self.began.set()
            case StateChanged(_, State.HEALTHY):
                self.ended_at = time.perf_counter()


class _Live:
    """Callers that read and write keys which are not in the journal, in turn."""

    def __init__(self, store: ResilientStore) -> None:
        self._store = store
        self._client = store_client(store, keys_of("live"))

    async def run(self, situation: str, seconds: float, *, until_healthy: bool = False) -> Timed:
        over = self._is_healthy if until_healthy else None
        load = await run_load(self._call, LIVE_CALLERS, seconds, over=over)
        return Timed.of(situation, "get and put", LIVE_CALLERS, load)

    async def _call(self, index: int) -> None:
        assert self._client.get is not None
        if index % 2:
            await self._client.put(index)
        else:
            assert await self._client.get(index) == VALUES[index]

    def _is_healthy(self) -> bool:
        return self._store.state is State.HEALTHY


async def _lost(primary: SessionStore, names: list[str], writes: int) -> int:
    found = await primary.get_many(names)
    keys = len(names)
    last = {names[number % keys]: _value(number) for number in range(max(0, writes - keys), writes)}
    return sum(name not in found or found[name].value != value for name, value in last.items())


def _value(number: int) -> bytes:
    return f"{number}".ljust(VALUE_BYTES, "-").encode()
