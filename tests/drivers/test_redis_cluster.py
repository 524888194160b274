"""The Redis store on clusters of real servers: slots that move, nodes that fail."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import traceback
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

import pytest
from redis.crc import key_slot

from sessionkit.errors import (
    Applied,
    ConfigurationError,
    InvalidKey,
    StoreTimeout,
    StoreUnavailable,
)
from sessionkit.keys import KeySpace
from sessionkit.store import ABSENT, Put, Record, SessionStore, StoreURL
from sessionkit.testing import SessionStoreConformance
from sessionkit.testing.servers import RedisCluster, RedisServer
from sessionkit.testing.servers.waiting import wait_for_async
from sessionkit_redis import open_driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from sessionkit.testing.servers import ServerBinary
    from sessionkit_redis.store import RedisStore
    from tests.drivers.conftest import Load

    class MakeLoad(Protocol):
        def __call__(
            self, store: SessionStore, keys: Sequence[Sequence[str]], *, fails: bool = False
        ) -> Load: ...


SLOTS = 16_384
WRITERS = 16
PATIENCE = 30
SECRET = "hunter2"


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisStore]:
    async with open_driver(StoreURL.parse(url), **options) as store:
        yield store


def report(*parts: object) -> None:
    print(*parts)  # noqa: T201 - its figures, with -rP


def server_of(cluster: RedisCluster, key: str) -> RedisServer:
    return cluster.primary_of(key_slot(key.encode()))


def keys_of_slot(slot: int, number: int) -> list[str]:
    """Return keys of a slot, without a tag in braces: no sessionkit makes one."""
    found = (f"bot:{slot}:{at}" for at in count() if key_slot(f"bot:{slot}:{at}".encode()) == slot)
    return [next(found) for _ in range(number)]


def keys_for(writers: int, each: int) -> list[list[str]]:
    return [[f"bot:{writer}:{number}" for number in range(each)] for writer in range(writers)]


def commands_done(server: RedisServer, name: str) -> int:
    """Return how often a server has carried out a command."""
    for line in server.command("INFO", "commandstats").decode().split():
        if line.startswith(f"cmdstat_{name}:calls="):
            return int(line.partition("=")[2].partition(",")[0])
    return 0


def errors_given(server: RedisServer, code: str) -> int | None:
    """Return how often a server has given a refusal of this code, or None if it does not count them."""
    text = server.command("INFO", "errorstats").decode()
    if "errorstat" not in text:
        return None
    for line in text.split():
        if line.startswith(f"errorstat_{code}:count="):
            return int(line.partition("=")[2])
    return 0


class TestClusterConformance(SessionStoreConformance):
    @pytest.fixture(autouse=True)
    def _cluster(self, redis_cluster: RedisCluster) -> None:
        self.cluster = redis_cluster

    def open_store(self) -> SessionStore:
        return open_driver(StoreURL.parse(self.cluster.url()))

    async def time_to_live(self, store: SessionStore, key: str) -> float:
        return int(server_of(self.cluster, key).command("PTTL", key)) / 1000


async def test_several_records_of_a_cluster_are_not_written_all_or_none(redis_cluster: RedisCluster) -> None:
    async with opened(redis_cluster.url()) as store:
        assert store.capabilities.atomic is False
        first, second = keys_of_slot(7, 2)
        with pytest.raises(ConfigurationError, match="use one server, or Sentinels, or put_many"):
            await store.write_all([Put(first, b""), Put(second, b"")])
        assert await store.get_many([first, second]) == {}


HOSTILE = ["a:b", "*", "{x}", "a{x}", "{x}b", "{}", "\n", "a\r\nb", "🦊", "%", "%7Bx%7D", "#lock", "x" * 4096]


async def test_hostile_ids_neither_collide_nor_choose_their_slot(redis_cluster: RedisCluster) -> None:
    space = KeySpace("session")
    keys = [space.key(part) for part in HOSTILE] + [space.key("a", "b"), space.key("%7Bx%7D", "{x}")]
    node = redis_cluster.primaries[0]
    async with opened(redis_cluster.url()) as store:
        for key in keys:
            await store.put(key, key.encode(), if_version=ABSENT)
        for key in keys:
            record = await store.get(key)
            assert record is not None
            assert record.value == key.encode()
            async with store.lock(key):
                pass
        assert set(await store.get_many(keys)) == set(keys)
        assert {key async for key in store.scan(space.start)} == set(keys)
        for key in keys:
            slot = int(node.command("CLUSTER", "KEYSLOT", key))
            # A letter in front of a key without a tag makes another slot of it; one with a tag keeps its own.
            assert slot != int(node.command("CLUSTER", "KEYSLOT", "x" + key))
            assert slot == key_slot(key.encode())
            assert server_of(redis_cluster, key).command("EXISTS", key) == b"1"
    # Ids that would meet in the slot of "x" if their braces stayed.
    tagged = [space.key(part) for part in ("{x}", "a{x}", "{x}b")]
    assert len({key_slot(key.encode()) for key in tagged} - {key_slot(b"x")}) == 3
    with pytest.raises(InvalidKey, match="not empty"):
        space.key("")


@pytest.fixture(scope="module")
def _moving_cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    config = {"cluster-node-timeout": "5000", "cluster-require-full-coverage": "no"}
    with RedisCluster(server_binary, replicas_per_primary=0, config=config) as cluster:
        yield cluster


@pytest.fixture
def moving_cluster(_moving_cluster: RedisCluster) -> RedisCluster:
    """Three primaries, this module's own; each test moves slots of its own, by the test's name."""
    for primary in _moving_cluster.primaries:
        primary.command("FLUSHALL")
        primary.command("SCRIPT", "FLUSH")
        primary.command("CONFIG", "RESETSTAT")
    return _moving_cluster


def another(cluster: RedisCluster, server: RedisServer) -> RedisServer:
    return next(primary for primary in cluster.primaries if primary is not server)


async def test_slots_move_under_writers_and_scans(
    moving_cluster: RedisCluster, load: MakeLoad, heavy: bool
) -> None:
    number = 200 if heavy else 36
    slots = [SLOTS * at // number for at in range(number)]
    each = [keys_of_slot(slot, 2) for slot in slots]
    # Each writer's keys are spread over the slots, and both keys of a slot are of different writers.
    keys: list[list[str]] = [[] for _ in range(WRITERS)]
    for at, (one, other) in enumerate(each):
        keys[at % WRITERS].append(one)
        keys[(at + 1) % WRITERS].append(other)
    staying = [f"stays:{key}" for key in keys_of_slot(0, 3)] + [keys_of_slot(slot, 3)[2] for slot in slots]
    tasks = asyncio.all_tasks()
    scanned = 0
    async with opened(moving_cluster.url()) as store:
        await store.put_many([Put(key, b"stays") for key in staying])
        async with load(store, keys).running() as writers:

            async def scan() -> None:
                nonlocal scanned
                found = {key async for key in store.scan("")}
                assert set(staying) <= found
                assert found <= {*staying, *writers.cells}
                scanned += 1

            await writers.operations(WRITERS * 10)
            for start in range(0, number, 6):
                # It goes on until slots stay where they are; so they must, now and then.
                scanning = asyncio.create_task(scan())
                for slot in slots[start : start + 6]:
                    source = await asyncio.to_thread(moving_cluster.primary_of, slot)
                    await moving_cluster.migrate_slot(slot, another(moving_cluster, source))
                async with asyncio.timeout(PATIENCE):
                    await scanning
            await writers.operations(WRITERS * 10)
        await writers.check_all()
        assert {key async for key in store.scan("")} == {*staying} | {
            key for key, cell in writers.cells.items() if cell.possible != {None}
        }
    assert asyncio.all_tasks() == tasks
    moves = [errors_given(node, "MOVED") for node in moving_cluster.nodes]
    asks = [errors_given(node, "ASK") for node in moving_cluster.nodes]
    report(f"{number} slots moved, {scanned} scans meanwhile, MOVED {moves}, ASK {asks};", writers.figures())
    assert writers.errors == {}
    if None not in moves:
        assert sum(filter(None, moves)) > 0
        assert sum(filter(None, asks)) > 0


async def test_what_is_not_on_the_source_is_asked_of_the_target(moving_cluster: RedisCluster) -> None:
    slot = 1000
    keys = keys_of_slot(slot, 40)
    there, absent = keys[:25], keys[25:]
    source = moving_cluster.primary_of(slot)
    target = another(moving_cluster, source)
    async with opened(moving_cluster.url()) as store:
        receipts = dict(zip(there, await store.put_many([Put(k, b"1") for k in there]), strict=True))
        steps = moving_cluster.migration_steps(slot, target)
        assert await anext(steps) == 0
        asked = commands_done(target, "asking")
        # What is there stays with the source; what is not is made on the target, by a script it has not seen.
        target.command("SCRIPT", "FLUSH")
        receipts[absent[0]] = await store.put(absent[0], b"1", if_version=ABSENT)
        assert source.command("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == b"25"
        assert target.command("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == b"1"
        assert commands_done(target, "asking") == asked + 2, "by its name, and in full"
        assert commands_done(target, "evalsha") == commands_done(target, "eval") == 1
        assert await anext(steps) == 10
        # Some of a batch's keys are here and some there.
        target.command("SCRIPT", "FLUSH")
        puts = [Put(key, b"2", None, receipts[key].version) for key in (*there, absent[0])]
        puts += [Put(key, b"2", None, ABSENT) for key in absent[1:10]]
        receipts |= dict(zip((put.key for put in puts), await store.put_many(puts), strict=True))
        found = await store.get_many(keys)
        assert found == {put.key: Record(b"2", receipts[put.key].version) for put in puts}
        for key in (there[0], absent[0], absent[1]):
            assert await store.touch(key, expires_in=60, if_version=receipts[key].version)
            assert await store.get(key, renew_for=60) == found[key]
            async with store.lock(key):
                pass
            assert await store.delete(key, if_version=receipts[key].version)
            assert await store.get(key) is None
        assert await store.delete_many(absent[2:6]) == 4
        left = {put.key for put in puts} - {there[0], *absent[:6]}
        assert {key async for key in store.scan("bot:")} == left
        async for _ in steps:
            pass
        # It has moved: the first word of that is MOVED, and it is kept.
        refused = [errors_given(node, "MOVED") for node in moving_cluster.nodes]
        assert set(await store.get_many(keys)) == left
        for key in left:
            assert await store.get(key) == Record(b"2", receipts[key].version)
        if (before := refused[moving_cluster.nodes.index(source)]) is not None:
            assert errors_given(source, "MOVED") == before + len(keys)
        gets = commands_done(source, "get")
        assert set(await store.get_many(keys)) == left
        assert commands_done(source, "get") == gets


async def test_a_waiter_hears_of_a_lock_whose_slot_has_moved(moving_cluster: RedisCluster) -> None:
    slot = key_slot(b"key#lock")
    target = another(moving_cluster, moving_cluster.primary_of(slot))
    async with opened(moving_cluster.url()) as holder, opened(moving_cluster.url()) as waiter:
        order: list[str] = []

        async def wait() -> None:
            async with waiter.lock("key", wait=PATIENCE):
                order.append("waiter")

        async with holder.lock("key") as lease:
            waiting = asyncio.create_task(wait())
            await moving_cluster.migrate_slot(slot, target)
            assert target.command("GET", "key#lock").endswith(b":%d" % lease.fence)
            order.append("holder")
        async with asyncio.timeout(PATIENCE):
            await waiting
    assert order == ["holder", "waiter"]


async def test_a_store_that_was_not_there_when_slots_moved_learns_of_it(moving_cluster: RedisCluster) -> None:
    slot = 12_000
    [key] = keys_of_slot(slot, 1)
    async with opened(moving_cluster.url()) as store, opened(moving_cluster.url()) as idle:
        receipt = await store.put(key, b"value")
        assert await idle.get(key) == Record(b"value", receipt.version)
        for _ in range(3):
            target = another(moving_cluster, moving_cluster.primary_of(slot))
            await moving_cluster.migrate_slot(slot, target)
        assert await idle.get(key) == Record(b"value", receipt.version)
        assert {found async for found in idle.scan("bot:")} == {key}


async def test_slots_that_no_node_serves_are_an_error_and_never_an_absence(
    moving_cluster: RedisCluster,
) -> None:
    slot = 15_000
    [uncovered], [covered] = keys_of_slot(slot, 1), keys_of_slot(5_000, 1)
    source = moving_cluster.primary_of(slot)
    async with opened(moving_cluster.url(), timeout=0.5) as store:
        await store.put_many([Put(uncovered, b"value"), Put(covered, b"value")])
        # Each node goes by what it was told itself; and a node drops the keys of a slot that it drops.
        kept = source.command("DUMP", uncovered)
        try:
            for node in moving_cluster.nodes:
                node.command("CLUSTER", "DELSLOTS", str(slot))
            for opener in (store, open_driver(StoreURL.parse(moving_cluster.url()), timeout=0.5)):
                calls = (
                    opener.get(uncovered),
                    opener.put(uncovered, b"other"),
                    opener.touch(uncovered, expires_in=1),
                    opener.delete(uncovered),
                    opener.get_many([uncovered]),
                    opener.get_many([covered, uncovered]),
                    opener.delete_many([uncovered]),
                    anext(opener.scan("bot:")),
                    opener.ping(),
                )
                for call in calls:
                    with pytest.raises(StoreUnavailable, match=r"no node|is down") as caught:
                        await call
                    assert caught.value.temporary
                assert await opener.get(covered) is not None
                await opener.put(covered, b"value")
                await opener.aclose()
        finally:
            source.command("CLUSTER", "ADDSLOTS", str(slot))
            await moving_cluster.wait_until_ok()
    if source.command("EXISTS", uncovered) == b"0":
        source.command("RESTORE", uncovered, "0", kept)
    async with opened(moving_cluster.url()) as store:
        assert {key async for key in store.scan("bot:")} == {uncovered, covered}
        assert await store.get(uncovered) is not None


@pytest.mark.parametrize(
    ("fails_by", "settles_within"),
    [(signal.SIGKILL, 1.0), (signal.SIGSTOP, 1.0)],
    ids=["killed", "hung"],
)
async def test_a_primary_that_fails_under_load_is_replaced(
    failing_binary: ServerBinary, load: MakeLoad, heavy: bool, fails_by: signal.Signals, settles_within: float
) -> None:
    tasks = asyncio.all_tasks()
    async with RedisCluster(failing_binary) as cluster, opened(cluster.url(), timeout=1.0) as store:
        old = cluster.primary_of(0)
        replica = next(
            each
            for each in cluster.replicas
            if b"master_port:%d\r" % old.port in each.command("INFO", "replication")
        )
        keys = keys_for(WRITERS, 6)
        affected = [key for own in keys for key in own if server_of(cluster, key) is old]
        async with load(store, keys, fails=True).running() as writers:
            await writers.operations(1000)
            failover = await writers.through_failover(
                affected, lambda: os.kill(old.pid, fails_by), replica, cluster.wait_until_ok
            )
            errors_until_then = dict(writers.errors)
            await writers.operations(1000)
            if fails_by is signal.SIGSTOP:
                os.kill(old.pid, signal.SIGCONT)
                await wait_for_async(lambda: "" if old in cluster.replicas else "not a replica yet", PATIENCE)
            await writers.operations(1000)
        await writers.check_all()
    assert asyncio.all_tasks() == tasks
    report(
        f"{failing_binary.name}: promoted after {failover.promoted:.2f} s, settled {failover.settled:.2f} s,"
        f" all {len(affected)} keys served again after {failover.back:.2f} s;"
        f" {len(failover.lost)} acknowledged writes lost;",
        writers.figures(),
        f"by then {errors_until_then}",
    )
    assert writers.errors != {}
    writers.check_losses(failover.lost)
    assert failover.back < max(failover.promoted, failover.settled) + (settles_within if heavy else 10.0)


async def test_a_server_of_no_cluster_is_a_lasting_error(redis_server: RedisServer) -> None:
    async with opened(f"redis+cluster://127.0.0.1:{redis_server.port}") as store:
        for call in (store.get("key"), store.put("key", b""), store.ping(), anext(store.scan("bot:"))):
            with pytest.raises(
                StoreUnavailable, match=r"no cluster: its URL is redis:// or rediss://"
            ) as caught:
                await call
            assert caught.value.temporary is False
            assert caught.value.applied is Applied.NO


async def test_a_seed_of_no_cluster_does_not_hide_those_of_one(
    redis_server: RedisServer, redis_cluster: RedisCluster
) -> None:
    url = f"redis+cluster://127.0.0.1:{redis_server.port},127.0.0.1:1,127.0.0.1:{redis_cluster.nodes[0].port}"
    for _ in range(5):
        async with opened(url) as store:
            await store.put("key", b"value")
            assert await store.get("key") is not None


async def test_no_seed_that_can_be_reached_is_temporary() -> None:
    async with opened(f"redis+cluster://:{SECRET}@127.0.0.1:1,127.0.0.1:2") as store:
        for call in (store.get("key"), store.put("key", SECRET.encode()), anext(store.scan("bot:"))):
            with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
                await call
            assert caught.value.temporary is True
            assert caught.value.applied is Applied.NO
            assert_nothing_secret(caught.value)


async def test_a_seed_that_hangs_does_not_hold_up_the_others(redis_cluster: RedisCluster) -> None:
    # The system completes the handshakes, and nobody ever reads.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis+cluster://127.0.0.1:{silent.getsockname()[1]}"
        async with opened(url, timeout=0.3) as store:
            with pytest.raises(StoreTimeout) as caught:
                await store.get("key")
            assert caught.value.temporary is True
            assert caught.value.applied is Applied.NO
        others = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes[:2])
        async with opened(f"{url},{others}") as store:
            assert await store.get("key") is None


@pytest.mark.parametrize(
    "url", ["redis+cluster://host/1", "redis+cluster://host/7", "redis+cluster://host?db=2"]
)
def test_another_database_than_0_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database 0 only"):
        open_driver(StoreURL.parse(url))


def test_what_is_no_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="database number"):
        open_driver(StoreURL.parse("redis+cluster://host/service"))
    with pytest.raises(ConfigurationError, match="database 0 only"):
        open_driver(StoreURL.parse("redis+cluster://host"), db=1)


async def test_database_0_may_be_named(redis_cluster: RedisCluster) -> None:
    async with opened(f"{redis_cluster.url()}/0") as store:
        await store.put("key", b"value")


@pytest.mark.parametrize("password", [None, f"not-{SECRET}"])
async def test_a_wrong_password_is_lasting(server_binary: ServerBinary, password: str | None) -> None:
    # One node that was not made part of a cluster: it refuses before that matters.
    with RedisServer(server_binary, password=SECRET, config={"cluster-enabled": "yes"}) as node:
        async with opened(f"redis+cluster://127.0.0.1:{node.port}", password=password) as store:
            with pytest.raises(StoreUnavailable, match="refused the login") as caught:
                await store.get("key")
        assert caught.value.temporary is False
        assert_nothing_secret(caught.value)
        # With the right one that node has nothing to tell.
        async with opened(f"redis+cluster://:{SECRET}@127.0.0.1:{node.port}") as store:
            with pytest.raises(StoreUnavailable, match="knows of no node that serves a slot") as caught:
                await store.get("key")
        assert caught.value.temporary is True
        assert_nothing_secret(caught.value)


async def test_redis_without_cluster_says_what_url_a_cluster_has(redis_cluster: RedisCluster) -> None:
    node = redis_cluster.primaries[0]
    other = next(key for key in (f"{at}" for at in range(100)) if server_of(redis_cluster, key) is not node)
    async with opened(f"redis://127.0.0.1:{node.port}") as store:
        with pytest.raises(StoreUnavailable, match=r"use redis\+cluster://") as caught:
            await store.get(other)
    assert caught.value.temporary is False


async def test_ten_thousand_callers_before_anything_is_known(redis_cluster: RedisCluster) -> None:
    async with opened(redis_cluster.url(), timeout=60.0) as store:
        values = {f"{number}": b"%d" % number for number in range(10_000)}
        await asyncio.gather(*(store.put(key, value) for key, value in values.items()))
        found = await asyncio.gather(*(store.get(key) for key in values))
        assert [record and record.value for record in found] == list(values.values())
        clients = [clients_of(node) for node in redis_cluster.primaries]
    assert clients == [1, 1, 1]


async def test_a_caller_that_is_cancelled_while_it_learns_disturbs_no_other(
    redis_cluster: RedisCluster,
) -> None:
    tasks = asyncio.all_tasks()
    async with opened(redis_cluster.url()) as store:
        first = asyncio.create_task(store.put("first", b"1"))
        others = [asyncio.create_task(store.put(f"{number}", b"2")) for number in range(20)]
        await asyncio.sleep(0)
        for cancelled in (first, *others[::2]):
            cancelled.cancel()
        ended = await asyncio.gather(first, *others, return_exceptions=True)
        assert sum(isinstance(end, asyncio.CancelledError) for end in ended) == 11
        assert not [end for end in ended if isinstance(end, Exception)]
        # What was cancelled before anything was known was never sent.
        assert await store.get_many(["first", *map(str, range(20))]) == {
            f"{number}": Record(b"2", receipt.version)
            for number, receipt in enumerate(ended[1:])
            if not isinstance(receipt, BaseException)
        }
    assert asyncio.all_tasks() == tasks


async def test_a_store_that_is_closed_while_it_learns_says_so(redis_cluster: RedisCluster) -> None:
    tasks = asyncio.all_tasks()
    store = open_driver(StoreURL.parse(redis_cluster.url()))
    asking = [asyncio.create_task(store.get(f"{number}")) for number in range(20)]
    await asyncio.sleep(0)
    await store.aclose()
    for ended in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(ended, StoreUnavailable)
        assert "closed" in str(ended)
        assert ended.temporary is False
    for call in (store.get("key"), store.ping(), anext(store.scan("bot:"))):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call
    assert asyncio.all_tasks() == tasks


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # those of a loop that ended without aclose()
def test_a_store_serves_one_event_loop_after_another(redis_cluster: RedisCluster) -> None:
    store = open_driver(StoreURL.parse(redis_cluster.url()))

    async def use(number: int) -> None:
        await asyncio.gather(*(store.put(f"{number}:{at}", b"%d" % at) for at in range(50)))
        found = await store.get_many(f"{other}:{at}" for other in range(number + 1) for at in range(50))
        assert len(found) == 50 * (number + 1)
        assert len({key async for key in store.scan("")}) == 50 * (number + 1)
        async with store.lock("key"):
            pass
        if number == 2:
            await store.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    for number in range(3):
        asyncio.run(use(number))
    gc.collect()


async def test_a_store_serves_several_threads_and_closes_for_all(redis_cluster: RedisCluster) -> None:
    store = open_driver(StoreURL.parse(redis_cluster.url()))
    used = threading.Barrier(4, timeout=PATIENCE)
    closed = threading.Event()

    async def use(number: int) -> set[asyncio.Task[object]]:
        values = {f"{number}:{at}": b"%d" % at for at in range(200)}
        await asyncio.gather(*(store.put(key, value) for key, value in values.items()))
        found = await asyncio.gather(*map(store.get, values))
        assert [record and record.value for record in found] == list(values.values())
        await asyncio.to_thread(used.wait)
        # This loop runs on, so that its connections can be closed.
        await asyncio.to_thread(closed.wait, PATIENCE)
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.get("key")
        await others_end()
        return asyncio.all_tasks()

    threads = [asyncio.create_task(asyncio.to_thread(asyncio.run, use(number))) for number in range(3)]
    await store.ping()
    await asyncio.to_thread(used.wait)
    await store.aclose()
    closed.set()
    assert [len(left) for left in await asyncio.gather(*threads)] == [1, 1, 1]
    for node in redis_cluster.nodes:
        await wait_for_async(partial(clients_left, node), PATIENCE)


def clients_left(node: RedisServer) -> str:
    return "" if clients_of(node) == 0 else "it has clients"


async def others_end() -> None:
    """Wait until this task is alone; a leaked one never ends."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=PATIENCE)


def clients_of(node: RedisServer) -> int:
    return node.command("CLIENT", "LIST").decode().count(" name=sessionkit ")


def assert_nothing_secret(error: BaseException) -> None:
    """Neither the error nor anything a traceback would show beside it quotes the password."""
    assert SECRET not in "".join(traceback.format_exception(error))
