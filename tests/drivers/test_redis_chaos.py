"""The Redis store over a bad network: real servers behind ``ChaosProxy``."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import signal
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import (
    Applied,
    LockNotAcquired,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.store import ABSENT, Put, Record, StoreURL, Version, new_version
from sessionkit.testing.chaos import ChaosProxy, Direction
from sessionkit_redis import open_driver
from sessionkit_redis.connection import Connection
from sessionkit_redis.multiplexer import BULK_BYTES, Multiplexer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import RedisServer
    from sessionkit_redis.store import RedisStore

CHILD = [sys.executable, "-W", "error", str(Path(__file__).with_name("redis_child.py"))]
PATIENCE = 120


@pytest.fixture
async def proxy(redis_server: RedisServer, seed: int) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy("127.0.0.1", redis_server.port, seed=seed) as proxy:
        yield proxy


@asynccontextmanager
async def opened(url: str, timeout: float = 5.0) -> AsyncIterator[RedisStore]:
    async with open_driver(StoreURL.parse(url), timeout=timeout) as store:
        yield store


def report(**numbers: object) -> None:
    print(", ".join(f"{name.replace('_', ' ')} {number}" for name, number in numbers.items()))  # noqa: T201 - its figures, with -rP


def multiplexer(store: RedisStore) -> Multiplexer:
    transport = store._server._transport
    assert isinstance(transport, Multiplexer)
    return transport


def calls_kept(store: RedisStore) -> int:
    """Return how many calls the store's connections still know of, and who waits for a connection."""
    lanes = multiplexer(store)._lanes_of(asyncio.get_running_loop())
    return sum(
        len(lane._waiters)
        + len(lane._late)
        + sum(len(connection._due) + len(connection._unsent) for connection in lane._live)
        for lane in (lanes.short, lanes.bulk)
    )


def alive(kind: type, *, pending: bool = False) -> int:
    """Return how many objects of a kind there are, or of futures how many are not done."""
    gc.collect()
    found = [each for each in gc.get_objects() if issubclass(type(each), kind)]
    return sum(not each.done() for each in found) if pending else len(found)


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep Python from a full collection, which stops all for as long as there are objects to visit."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def others_end(before: set[asyncio.Task[object]]) -> None:
    """Wait for the tasks that were left behind, such as the releases of locks; a leaked one never ends."""
    left = asyncio.all_tasks() - before
    if left:
        _, leaked = await asyncio.wait(left, timeout=20)
        assert not leaked


@dataclass
class Storm:
    """Operations that are cancelled at random, and what every answer is checked against."""

    store: SessionStore
    random: random.Random
    written: dict[Version, tuple[str, bytes]] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    fences: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    cancelled: int = 0
    conflicts: int = 0
    not_locked: int = 0

    def key(self) -> str:
        return f"key{self.random.randrange(100)}"

    def put_of(self, key: str) -> Put:
        # Some are long enough for the second connection.
        size = BULK_BYTES if self.random.random() < 0.002 else self.random.randrange(300)
        value = f"{key}|".encode() + self.random.randbytes(size)
        write_id = new_version()
        self.written[write_id] = (key, value)
        return Put(key, value, None, None, write_id)

    def check(self, key: str, record: Record | None) -> None:
        if record is not None:
            assert self.written[record.version] == (key, record.value), "a crossed reply"

    async def get(self) -> None:
        key = self.key()
        self.check(key, await self.store.get(key))

    async def put(self) -> None:
        key, value, _, _, write_id = self.put_of(self.key())
        expected = self.random.choice([None, ABSENT, *list(self.written)[-20:]])
        try:
            receipt = await self.store.put(key, value, if_version=expected, write_id=write_id)
        except VersionConflict as conflict:
            self.conflicts += 1
            assert expected is not None
            assert conflict.current is ABSENT or self.written[conflict.current][0] == key, "a crossed reply"
        else:
            assert receipt.version == write_id

    async def get_many(self) -> None:
        keys = {self.key() for _ in range(self.random.choice([5, 5, 5, 150]))}
        found = await self.store.get_many(keys)
        assert found.keys() <= keys
        for key, record in found.items():
            self.check(key, record)

    async def put_many(self) -> None:
        puts = [self.put_of(self.key()) for _ in range(5)]
        receipts = await self.store.put_many(puts)
        assert [receipt.version for receipt in receipts] == [put.write_id for put in puts]

    async def touch(self) -> None:
        assert await self.store.touch(self.key(), expires_in=1000) in {True, False}

    async def delete_if(self) -> None:
        version = self.random.choice(list(self.written)[-20:] or [new_version()])
        key = self.written[version][0] if version in self.written else self.key()
        try:
            assert await self.store.delete(key, if_version=version) in {True, False}
        except VersionConflict as conflict:
            self.conflicts += 1
            assert conflict.current is not ABSENT
            assert self.written[conflict.current][0] == key, "a crossed reply"

    async def lock(self) -> None:
        key = f"lock{self.random.randrange(10)}"
        try:
            async with self.store.lock(key, lease=60, wait=0.5) as lease:
                assert key not in self.holders, "two holders"
                self.holders.add(key)
                try:
                    assert lease.key == key
                    assert lease.fence > self.fences.get(key, 0)
                    self.fences[key] = lease.fence
                    await asyncio.sleep(self.random.uniform(0, 0.005))
                finally:
                    self.holders.remove(key)
        except LockNotAcquired:
            self.not_locked += 1

    async def blow(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        kinds = [self.get, self.put, self.get_many, self.put_many, self.touch, self.delete_if, self.lock]
        for _ in range(count):
            operation = loop.create_task(self.random.choice(kinds)())
            cancel = None
            if self.random.random() < 0.5:
                cancel = loop.call_later(self.random.expovariate(1 / 0.006), operation.cancel)
            try:
                await operation
            except asyncio.CancelledError:
                self.cancelled += 1
            else:
                self.answered += 1
            finally:
                if cancel is not None:
                    cancel.cancel()


async def test_a_storm_of_cancels_crosses_nothing_and_leaks_nothing(
    proxy: ChaosProxy, redis_server: RedisServer, seed: int, heavy: bool
) -> None:
    operations, callers = (100_000, 100) if heavy else (6_000, 50)
    async with opened(proxy.url(redis_server.url()), timeout=60.0) as store:
        await store.put("first", b"")
        await store.put("long", bytes(BULK_BYTES))
        proxy.latency(0.001, 0.004)
        proxy.fragment(512)
        tasks, pending = asyncio.all_tasks(), alive(asyncio.Future, pending=True)
        storm = Storm(store, random.Random(seed))
        await asyncio.gather(*(storm.blow(operations // callers) for _ in range(callers)))
        await others_end(tasks)
        proxy.heal()
        # Behind whatever is still due on either connection.
        await store.ping()
        await store.put("long", bytes(BULK_BYTES))
        report(
            answered=storm.answered,
            cancelled=storm.cancelled,
            conflicts=storm.conflicts,
            not_locked=storm.not_locked,
            connections=proxy.connections,
        )
        assert storm.answered + storm.cancelled == operations
        assert min(storm.answered, storm.cancelled) > operations / 10
        assert proxy.connections == 2, "not one cancel may cost a connection"
        assert calls_kept(store) == 0
        assert alive(asyncio.Future, pending=True) <= pending
        assert not storm.holders
        for number in range(10):
            async with store.lock(f"lock{number}", wait=0):
                pass


async def test_in_a_black_hole_every_caller_is_told_at_its_deadline(
    proxy: ChaosProxy, redis_server: RedisServer, heavy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # A captured record of a failed attempt would keep its connection alive, by the traceback.
    caplog.set_level(logging.ERROR, "sessionkit.redis")
    timeout, callers, waves = (2.0, 1000, 20) if heavy else (0.6, 1000, 4)
    loop = asyncio.get_running_loop()
    late: list[float] = []

    async def call(number: int) -> Applied:
        await asyncio.sleep(timeout / 2 * number / callers)
        deadline = loop.time() + timeout
        try:
            await store.get(f"{number}")
        except StoreTimeout as error:  # not by pytest.raises: a thousand of those at once take their time
            late.append(loop.time() - deadline)
            return error.applied
        raise AssertionError("something came out of the black hole")

    async with opened(proxy.url(redis_server.url()), timeout=timeout) as store:
        receipt = await store.put("key", b"value")
        tasks, pending = asyncio.all_tasks(), alive(asyncio.Future, pending=True)
        proxy.black_hole()
        with collector_off():
            applied = await asyncio.gather(*map(call, range(callers)))
        report(first_wave_from=min(late), to=max(late))
        assert set(applied) == {Applied.MAYBE}
        assert min(late) >= -0.001
        assert max(late) < (0.05 if heavy else 0.5)
        late.clear()
        for _ in range(waves):
            # On no connection: who waits for an attempt is told when that, or the next one, has failed.
            with collector_off():
                assert set(await asyncio.gather(*map(call, range(callers)))) == {Applied.NO}
        report(later_waves_from=min(late), to=max(late))
        assert max(late) < (0.05 if heavy else 0.5)
        await others_end(tasks)
        assert calls_kept(store) == 0
        assert alive(asyncio.Future, pending=True) <= pending
        assert alive(Connection) <= 2, "those that were given up are gone"
        proxy.heal()
        assert await store.get("key") == Record(b"value", receipt.version)


async def test_processes_count_exactly_over_connections_that_are_reset(
    proxy: ChaosProxy, redis_server: RedisServer, heavy: bool
) -> None:
    times = 500 if heavy else 100
    proxy.reset_randomly(0.02)
    names = ["a", "b", "c", "d"]
    children = [
        await asyncio.create_subprocess_exec(
            *CHILD,
            "count",
            proxy.url(redis_server.url()),
            name,
            str(times),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for name in names
    ]
    async with asyncio.timeout(PATIENCE):
        outputs = [await child.communicate() for child in children]
    assert [(child.returncode, errors) for child, (_, errors) in zip(children, outputs, strict=True)] == [
        (0, b"")
    ] * 4
    told = [json.loads(said) for said, _ in outputs]
    report(resets=proxy.resets, **{name: sum(each[name] for each in told) for name in told[0]})
    assert proxy.resets > 0
    async with opened(redis_server.url()) as store:
        record = await store.get("counter")
    assert record is not None
    assert json.loads(record.value) == dict.fromkeys(names, times)


async def test_a_put_whose_reply_was_lost_is_repeated_safely(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    async with opened(proxy.url(redis_server.url())) as store, opened(redis_server.url()) as other:
        first = await store.put("key", b"first")
        write_id = new_version()
        for _ in range(2):
            # Connected, so that what is dropped is the reply to the put.
            await store.ping()
            proxy.drop_replies(1)
            with pytest.raises(StoreUnavailable) as caught:
                await store.put("key", b"second", if_version=first.version, write_id=write_id)
            assert caught.value.applied is Applied.MAYBE
            assert caught.value.temporary is True
            assert await other.get("key") == Record(b"second", write_id)
        # Also when others have written in between, as often as the record remembers.
        for number in range(3):
            latest = await other.put("key", b"%d" % number)
        receipt = await store.put("key", b"second", if_version=first.version, write_id=write_id)
        assert receipt.version == write_id
        assert await other.get("key") == Record(b"2", latest.version)


async def test_puts_of_a_batch_whose_reply_was_lost_are_repeated_safely(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    async with opened(proxy.url(redis_server.url())) as store:
        await store.put_many([Put(f"warm{number}", b"") for number in range(100)])
        puts = [Put(f"{number}", b"%d" % number, None, ABSENT, new_version()) for number in range(100)]
        proxy.drop_replies(1)
        with pytest.raises(StoreUnavailable) as caught:
            await store.put_many(puts)
        assert caught.value.applied is Applied.MAYBE
        receipts = await store.put_many(puts)
        assert [receipt.version for receipt in receipts] == [put.write_id for put in puts]


async def test_a_request_that_never_arrived_was_not_applied(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    async with opened(proxy.url(redis_server.url())) as store:
        await store.ping()
        proxy.cut_after(10, direction=Direction.REQUESTS)
        with pytest.raises(StoreUnavailable) as caught:
            await store.put("key", b"value")
        assert caught.value.applied is Applied.MAYBE, "it was sent, and nobody can know how far it came"
        assert await store.get("key") is None
        proxy.refuse()
        proxy.reset_all()
        async with asyncio.timeout(PATIENCE):
            while True:
                with pytest.raises(StoreUnavailable) as caught:
                    await store.put("key", b"value")
                if caught.value.applied is Applied.NO:
                    break
        proxy.heal()
        assert await store.get("key") is None


def processed(server: RedisServer) -> dict[str, int]:
    """Return how often the server has carried out each command."""
    lines = server.command("INFO", "commandstats").decode().split()
    stats = dict(line.removeprefix("cmdstat_").split(":", 1) for line in lines if line.startswith("cmdstat_"))
    return {name: int(numbers.partition(",")[0].removeprefix("calls=")) for name, numbers in stats.items()}


def asked_for_lock(server: RedisServer) -> int:
    """Return how often somebody has looked at a lock, or tried to take it."""
    counted = processed(server)
    return sum(counted.get(name, 0) for name in ("evalsha", "eval", "pttl"))


async def looked_at(server: RedisServer, times: int) -> None:
    """Wait until a lock was looked at so many times more: a waiter asks for the PTTL before it waits."""
    before = processed(server).get("pttl", 0)
    async with asyncio.timeout(PATIENCE):
        while True:
            if processed(server).get("pttl", 0) >= before + times:
                return
            await asyncio.sleep(0)


async def hold_until(store: SessionStore, key: str, release: asyncio.Event, held: asyncio.Event) -> None:
    async with store.lock(key):
        held.set()
        await release.wait()


async def take(store: SessionStore, key: str) -> int:
    async with store.lock(key, wait=PATIENCE) as lease:
        return lease.fence


async def freed(server: RedisServer, key: str) -> bool:
    """Return whether the lock's key has no holder and goes by itself."""
    held = server.command("GET", f"{key}#lock")
    return held.startswith(b":") and 0 < int(server.command("PTTL", f"{key}#lock")) <= 60_000


async def test_a_waiter_is_woken_and_does_not_poll(redis_server: RedisServer) -> None:
    async with opened(redis_server.url()) as holder, opened(redis_server.url()) as waiter:
        await take(waiter, "warm")
        async with holder.lock("key") as lease:
            waiting = asyncio.create_task(take(waiter, "key"))
            await looked_at(redis_server, 1)
            before = asked_for_lock(redis_server)
            # As long as ten looks by the clock would take.
            await asyncio.sleep(0.5)
            assert asked_for_lock(redis_server) == before
            assert not waiting.done()
        assert await waiting > lease.fence
        # The release, the waiter's second attempt and its release.
        assert asked_for_lock(redis_server) - before <= 4
        assert await freed(redis_server, "key")


async def test_a_waiter_without_the_right_to_be_told_looks_again(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "+@all", "-client")
    url = redis_server.url().replace("redis://", "redis://plain:secret@")
    try:
        async with opened(redis_server.url()) as holder, opened(url) as waiter:
            async with holder.lock("key") as lease:
                waiting = asyncio.create_task(take(waiter, "key"))
                await looked_at(redis_server, 3)
                assert not waiting.done()
            assert await waiting > lease.fence
    finally:
        redis_server.command("ACL", "DELUSER", "plain")


async def test_a_waiter_that_is_cancelled_leaves_the_lock_to_its_holder(redis_server: RedisServer) -> None:
    tasks = asyncio.all_tasks()
    async with opened(redis_server.url()) as holder, opened(redis_server.url()) as waiter:
        async with holder.lock("key") as lease:
            waiting = asyncio.create_task(take(waiter, "key"))
            await looked_at(redis_server, 1)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            held = redis_server.command("GET", "key#lock")
            assert held.endswith(b":%d" % lease.fence)
            assert not held.startswith(b":")
        assert await freed(redis_server, "key")
        assert redis_server.command("DBSIZE") == b"1"
        # Its release, and then the reply to a look that was cancelled, may still be on their way.
        await others_end(tasks)
        await waiter.ping()
        assert calls_kept(waiter) == 0
        assert multiplexer(waiter).connections_made == 1


async def test_a_holder_that_is_cancelled_lets_the_next_one_in(redis_server: RedisServer) -> None:
    async with opened(redis_server.url()) as store, opened(redis_server.url()) as other:
        held = asyncio.Event()
        holding = asyncio.create_task(hold_until(store, "key", asyncio.Event(), held))
        await held.wait()
        waiting = asyncio.create_task(take(other, "key"))
        await looked_at(redis_server, 1)
        holding.cancel()
        await waiting
        with suppress(asyncio.CancelledError):
            await holding
        assert await freed(redis_server, "key")
        assert redis_server.command("DBSIZE") == b"1"


async def test_cancels_at_any_moment_leave_no_lock_behind(
    proxy: ChaosProxy, redis_server: RedisServer, seed: int
) -> None:
    moments = random.Random(seed)
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks()
    async with opened(proxy.url(redis_server.url())) as store:
        await store.ping()
        proxy.latency(0.001, 0.002)
        for number in range(100):
            taking = asyncio.create_task(take(store, f"{number}"))
            loop.call_later(moments.uniform(0, 0.012), taking.cancel)
            with suppress(asyncio.CancelledError):
                await taking
        await others_end(tasks)
    keys = int(redis_server.command("DBSIZE"))
    assert 0 < keys <= 100
    for number in range(100):
        if redis_server.command("EXISTS", f"{number}#lock") == b"1":
            assert await freed(redis_server, f"{number}")


async def test_the_lease_of_a_killed_holder_ends(redis_server: RedisServer) -> None:
    child = await asyncio.create_subprocess_exec(
        *CHILD, "hold", redis_server.url(), "key", "0.5", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        assert await child.stdout.readline() == b"held\n"
        async with opened(redis_server.url()) as store:
            waiting = asyncio.create_task(take(store, "key"))
            # It renews its lease, so it holds the lock for longer than that.
            await looked_at(redis_server, 5)
            assert not waiting.done()
            child.send_signal(signal.SIGKILL)
            await waiting
            assert await freed(redis_server, "key")
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


async def test_large_batches_leave_the_loop_and_other_callers_alone(
    redis_server: RedisServer, heavy: bool
) -> None:
    count, bound = (100_000, 0.05) if heavy else (20_000, 0.5)
    loop = asyncio.get_running_loop()
    gaps, waits = [0.0], [0.0]

    async def tick() -> None:
        last = loop.time()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(loop.time() - last)
            last = loop.time()

    async def ask() -> None:
        while True:
            started = loop.time()
            assert await store.get("other") is not None
            waits.append(loop.time() - started)
            await asyncio.sleep(0.001)

    keys = [f"key{number}" for number in range(count)]
    puts = [Put(key, key.encode()) for key in keys]
    async with opened(redis_server.url()) as store:
        await store.put("other", b"")
        calls: list[tuple[str, Callable[[], Awaitable[Sized | int]]]] = [
            ("put_many", lambda: store.put_many(puts)),
            ("get_many", lambda: store.get_many(keys)),
            ("delete_many", lambda: store.delete_many(keys)),
        ]
        for name, call in calls:
            with collector_off():
                gaps[:], waits[:] = [0.0], [0.0]
                beside = [asyncio.create_task(tick()), asyncio.create_task(ask())]
                await asyncio.sleep(0)
                started = loop.time()
                result = await call()
                took = loop.time() - started
                await asyncio.sleep(0.002)  # so that a gap at its end is seen, too
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            report(batch=name, took=took, longest_gap=max(gaps), longest_wait_of_another=max(waits))
            assert result == count if isinstance(result, int) else len(result) == count
            assert len(waits) > 3, "others were served meanwhile"
            assert max(gaps) < bound
            assert max(waits) < bound


async def test_everything_arrives_in_spite_of_random_resets(
    proxy: ChaosProxy, redis_server: RedisServer
) -> None:
    proxy.reset_randomly(0.05)
    async with opened(proxy.url(redis_server.url())) as store:

        async def write(numbers: range) -> None:
            for number in numbers:
                write_id = new_version()
                while True:
                    try:
                        receipt = await store.put(
                            f"{number}", b"%d" % number, if_version=ABSENT, write_id=write_id
                        )
                    except StoreError as error:
                        assert error.temporary, error
                    else:
                        assert receipt.version == write_id
                        break

        await asyncio.gather(*(write(range(start, 500, 10)) for start in range(10)))
    assert proxy.resets > 0
    assert redis_server.command("DBSIZE") == b"500"
