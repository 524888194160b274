from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.store import StoreURL
from sessionkit.testing.certificates import Certificates
from sessionkit.testing.servers import DURABLE, RedisCluster, SentinelGroup, ServerBinary, find_servers, group
from sessionkit.testing.servers.nodes import SLOTS, Node, read_nodes
from sessionkit.testing.servers.waiting import wait_for, wait_for_async

if TYPE_CHECKING:
    from pathlib import Path

SLOT_0 = "{06S}"
"""What puts a key into slot 0."""

ODD_PASSWORD = "p/w @:\"'ü"


@pytest.fixture
def a_binary() -> ServerBinary:
    """One server, for what is the same on every one and takes its time."""
    for binary in find_servers():
        return binary
    pytest.skip("no server is installed")


@pytest.fixture
def tls_binary(server_binary: ServerBinary) -> ServerBinary:
    if "tls" not in server_binary.features:
        pytest.skip(f"{server_binary.name} {server_binary.version} was built without TLS")
    return server_binary


def test_shared_cluster_serves_every_slot_and_is_empty(redis_cluster: RedisCluster) -> None:
    primaries, replicas = redis_cluster.primaries, redis_cluster.replicas
    assert (len(primaries), len(replicas)) == (3, 3)
    assert {redis_cluster.primary_of(slot) for slot in range(0, SLOTS, 1000)} == set(primaries)
    assert [primary.command("DBSIZE") for primary in primaries] == [b"0"] * 3
    assert redis_cluster.primary_of(0).command("SET", SLOT_0, "behind") == b"OK"


def test_shared_cluster_is_empty_after_another_test(redis_cluster: RedisCluster) -> None:
    primary = redis_cluster.primary_of(0)
    assert primary.command("DBSIZE") == b"0"
    assert primary.command("SET", SLOT_0, "behind") == b"OK"


def test_every_replica_confirms_writes(redis_cluster: RedisCluster) -> None:
    for primary in redis_cluster.primaries:
        assert primary.command("WAIT", "1", "0") == b"1"


def test_url_of_a_cluster_names_every_node(redis_cluster: RedisCluster) -> None:
    url = StoreURL.parse(redis_cluster.url())
    assert url.scheme == "redis+cluster"
    assert url.hosts == tuple(("127.0.0.1", node.port) for node in redis_cluster.nodes)


async def test_replica_takes_the_place_of_a_killed_primary(server_binary: ServerBinary) -> None:
    async with RedisCluster(server_binary) as cluster:
        old, replicas = cluster.primary_of(0), cluster.replicas
        old.command("SET", SLOT_0, "kept")
        assert old.command("WAIT", "1", "0") == b"1"
        old.kill()
        with pytest.raises(StoreUnavailable, match="no live node of the cluster serves slot 0"):
            cluster.primary_of(0)
        await cluster.wait_until_ok()
        new = cluster.primary_of(0)
        assert new in replicas
        assert new.command("GET", SLOT_0) == b"kept"
        port = old.port
        old.restart()
        assert old.port == port
        await wait_for_async(lambda: "" if old in cluster.replicas else "it is no replica yet", 30)
        await cluster.wait_until_ok()
        assert cluster.primary_of(0) is new
    assert not any(node.running or node.data_dir.exists() for node in cluster.nodes)


async def test_slot_moves_with_its_keys_by_steps(server_binary: ServerBinary) -> None:
    async with RedisCluster(server_binary, replicas_per_primary=0, password=ODD_PASSWORD) as cluster:
        source, target = cluster.primary_of(0), cluster.primary_of(SLOTS - 1)
        keys = [f"{SLOT_0}ü{number}" for number in range(25)]
        for key in keys:
            source.command("SET", key, f"of {key}")
        source.command("SET", b"{06S}\xff", b"\x00\r\n")
        steps = []
        async for moved in cluster.migration_steps(0, target):
            steps.append(moved)
            with pytest.raises(StoreUnavailable, match=f"ASK 0 127.0.0.1:{target.port}"):
                source.command("GET", f"{SLOT_0}absent")
            assert cluster.primary_of(0) is source
        assert steps == [0, 10, 20, 26]
        assert cluster.primary_of(0) is target
        for key in keys:
            assert target.command("GET", key) == f"of {key}".encode()
        assert target.command("GET", b"{06S}\xff") == b"\x00\r\n"
        for other in cluster.nodes:
            if other is not target:
                with pytest.raises(StoreUnavailable, match=f"MOVED 0 127.0.0.1:{target.port}"):
                    other.command("GET", keys[0])
        await cluster.wait_until_ok()
        await cluster.migrate_slot(0, source)
        assert cluster.primary_of(0) is source
        await cluster.migrate_slot(0, source)
        assert source.command("CLUSTER", "COUNTKEYSINSLOT", "0") == b"26"


async def test_slot_does_not_move_to_a_replica(redis_cluster: RedisCluster) -> None:
    with pytest.raises(StoreUnavailable, match="only with"):
        await redis_cluster.migrate_slot(0, redis_cluster.replicas[0])
    await redis_cluster.wait_until_ok()


async def test_node_that_hangs_is_not_live(a_binary: ServerBinary) -> None:
    async with RedisCluster(a_binary) as cluster:
        hung = cluster.primary_of(0)
        os.kill(hung.pid, signal.SIGSTOP)
        await cluster.wait_until_ok()
        assert hung.running
        assert hung not in cluster.primaries
        assert cluster.primary_of(0) is not hung


def test_cluster_starts_again_with_its_data(a_binary: ServerBinary) -> None:
    with RedisCluster(a_binary, replicas_per_primary=0, config=DURABLE) as cluster:
        with pytest.raises(ConfigurationError, match="running already, on port"):
            cluster.start()
        cluster.primary_of(0).command("SET", SLOT_0, "kept")
        url = cluster.url()
        cluster.stop()
        assert not any(node.running for node in cluster.nodes)
        cluster.start()
        assert cluster.url() == url
        assert cluster.primary_of(0).command("GET", SLOT_0) == b"kept"


async def test_group_that_does_not_start_leaves_nothing_running(
    a_binary: ServerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = SentinelGroup(a_binary, down_after=0)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="FATAL CONFIG FILE ERROR"):
            broken.start()
        assert [server.running for server in broken.servers] == [False, False]
    # A cluster takes two seconds to accept writes.
    monkeypatch.setattr(group, "READY_SECONDS", 0.0)
    slow = RedisCluster(a_binary)
    with pytest.raises(StoreUnavailable, match="after 0 seconds: the node on port"):
        slow.start()
    late = RedisCluster(a_binary)
    with pytest.raises(StoreUnavailable, match="after 0 seconds: the node on port"):
        async with late:
            pass
    assert not any(server.running for server in [*broken.servers, *slow.nodes, *late.nodes])


async def test_cluster_over_tls(tls_binary: ServerBinary, tmp_path: Path) -> None:
    # Names of directives are the same in capitals, as in redis.conf.
    given = Certificates(tmp_path).server_config(auth_clients=True)
    config = {name.upper(): value for name, value in given.items()}
    async with RedisCluster(tls_binary, password=ODD_PASSWORD, config=config) as cluster:
        url = StoreURL.parse(cluster.url())
        assert (url.scheme, url.password) == ("rediss+cluster", ODD_PASSWORD)
        assert url.hosts == tuple(("127.0.0.1", node.tls_port) for node in cluster.nodes)
        source, target = cluster.primary_of(0), cluster.primary_of(SLOTS - 1)
        source.command("SET", SLOT_0, "value")
        await cluster.migrate_slot(0, target)
        assert target.command("GET", SLOT_0) == b"value"


def test_nodes_of_a_cluster_are_read() -> None:
    text = (
        b"a1 127.0.0.1:7001@17001,host,shard-id=5 myself,master - 0 0 3 connected"
        b" 0-5460 9000 [1->-b2] [2-<-b2]\n"
        b"b2 :0@0 slave,fail a1 12 34 1 disconnected\n"
    )
    one, other = read_nodes(text)
    slots = (range(5461), range(9000, 9001))
    assert one == Node("a1", 7001, frozenset({"myself", "master"}), "-", 3, True, slots)
    assert other == Node("b2", 0, frozenset({"slave", "fail"}), "a1", 1, False, ())
    assert [slot for slot in (0, 5460, 5461, 9000, 9001) if one.serves(slot)] == [0, 5460, 9000]


def test_groups_without_servers_are_refused(a_binary: ServerBinary) -> None:
    for primaries, replicas in ((0, 1), (3, -1)):
        with pytest.raises(ConfigurationError, match="one primary at least"):
            RedisCluster(a_binary, primaries=primaries, replicas_per_primary=replicas)
    for sentinels, replicas in ((0, 1), (3, -1)):
        with pytest.raises(ConfigurationError, match="one Sentinel at least"):
            SentinelGroup(a_binary, sentinels=sentinels, replicas=replicas)


async def test_sentinels_agree_on_the_successor_of_a_killed_primary(sentinel_group: SentinelGroup) -> None:
    old, replica = sentinel_group.servers
    assert sentinel_group.primary is old
    old.command("SET", "key", "kept")
    assert old.command("WAIT", "1", "0") == b"1"
    old.kill()
    new = await sentinel_group.wait_for_failover(old)
    assert new is replica is sentinel_group.primary
    assert new.command("GET", "key") == b"kept"
    assert new.command("SET", "key", "changed") == b"OK"
    # For some ten seconds it goes on as a primary that nobody names.
    old.restart()
    assert b"role:master" in old.command("INFO", "replication")
    assert sentinel_group.primary is new


def test_sentinels_know_each_other_and_the_replicas(server_binary: ServerBinary) -> None:
    with SentinelGroup(server_binary, sentinels=2, replicas=2, service="depot") as watched:
        for sentinel in watched.sentinels:
            info = sentinel.command("INFO", "sentinel").decode()
            assert (
                f"name=depot,status=ok,address=127.0.0.1:{watched.primary.port},slaves=2,sentinels=2" in info
            )
        assert watched.primary.command("WAIT", "2", "0") == b"2"
        watched.sentinels[0].kill()
        assert watched.primary is watched.servers[0]
        watched.sentinels[1].kill()
        with pytest.raises(StoreUnavailable, match="no Sentinel replies"):
            watched.primary  # noqa: B018 - a property that asks


async def test_sentinel_group_has_its_passwords_and_names_all_in_its_url(server_binary: ServerBinary) -> None:
    async with SentinelGroup(
        server_binary, service="depot", password=ODD_PASSWORD, sentinel_password="theirs"
    ) as watched:
        url = StoreURL.parse(watched.url(3))
        assert (url.scheme, url.password, url.path) == ("redis+sentinel", ODD_PASSWORD, "/depot/3")
        assert url.hosts == tuple(("127.0.0.1", sentinel.port) for sentinel in watched.sentinels)
        assert StoreURL.parse(watched.url()).path == "/depot"


async def test_sentinel_group_starts_again(a_binary: ServerBinary) -> None:
    async with SentinelGroup(a_binary, password="secret", config=DURABLE) as watched:
        watched.primary.command("SET", "key", "kept")
        url = watched.url()
        watched.stop()
        watched.start()
        assert watched.url() == url
        assert watched.primary.command("GET", "key") == b"kept"


async def test_failover_over_tls(tls_binary: ServerBinary, tmp_path: Path) -> None:
    config = Certificates(tmp_path).server_config(auth_clients=True)
    async with SentinelGroup(tls_binary, config=config) as watched:
        url = StoreURL.parse(watched.url())
        assert url.scheme == "rediss+sentinel"
        assert url.hosts == tuple(("127.0.0.1", sentinel.tls_port) for sentinel in watched.sentinels)
        old = watched.primary
        old.kill()
        assert await watched.wait_for_failover(old) is watched.servers[1]


async def test_waiting_ends_with_what_is_missing() -> None:
    def missing() -> str:
        raise StoreUnavailable("the moon")

    with pytest.raises(StoreUnavailable, match="after 0 seconds: the moon"):
        wait_for(missing, 0)
    with pytest.raises(StoreUnavailable, match="after 0 seconds: the moon"):
        await wait_for_async(missing, 0)
