"""A Redis Cluster of local servers."""

from __future__ import annotations

import asyncio
from itertools import combinations
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.testing.servers.group import READY_SECONDS, ServerGroup, data_port, in_sync
from sessionkit.testing.servers.nodes import SLOTS, read_nodes
from sessionkit.testing.servers.process import RedisServer
from sessionkit.testing.servers.waiting import wait_for_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sessionkit.testing.servers.binaries import ServerBinary
    from sessionkit.testing.servers.nodes import Node
    from sessionkit.testing.servers.waiting import Missing

_CONFIG: Final[Mapping[str, str]] = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",
    "cluster-require-full-coverage": "yes",
    # A replica is in sync the sooner: no five seconds are spent waiting for a second one.
    "repl-diskless-sync": "no",
}
_TLS_CONFIG: Final[Mapping[str, str]] = {"tls-cluster": "yes", "tls-replication": "yes"}
_BATCH: Final = 10
_HUNG_SECONDS: Final = 1.0
_MIGRATE_MILLISECONDS: Final = 5_000


class RedisCluster(ServerGroup):
    """A Redis Cluster on 127.0.0.1, ready once it is entered: every slot is served, every replica in sync.

    ::

        with RedisCluster(binary) as cluster:
            store = open_driver(cluster.url())
            cluster.primary_of(0).kill()
            await cluster.wait_until_ok()

    A node is live while it replies. A killed primary is noticed after a second, and has its successor after
    one or two more.

    Attributes:
        nodes: Its servers; those that were primaries at the start come first.
    """

    def __init__(
        self,
        binary: ServerBinary,
        *,
        primaries: int = 3,
        replicas_per_primary: int = 1,
        password: str | None = None,
        config: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """Prepare a cluster; nothing runs yet.

        Args:
            binary: What to run.
            primaries: How many share the slots, evenly; a failover needs most of them, and so three at least.
            replicas_per_primary: How many replicas each of them has.
            password: The default user's password, on every node.
            config: Directives of ``redis.conf``, as for ``RedisServer``, before those of this class. With
                ``tls-cert-file`` the nodes talk TLS to each other, too.

        Raises:
            ConfigurationError: There is no primary, or fewer than no replica.
        """
        if primaries < 1 or replicas_per_primary < 0:
            raise ConfigurationError("a cluster has one primary at least, and no fewer than 0 replicas")
        config = {name.lower(): values for name, values in (config or {}).items()}
        config = {**_CONFIG, **(_TLS_CONFIG if "tls-cert-file" in config else {}), **config}
        count = primaries * (1 + replicas_per_primary)
        self.nodes = [RedisServer(binary, password=password, config=config) for _ in range(count)]
        self._first_primaries = self.nodes[:primaries]
        self._password = password
        self._formed = False

    @property
    def primaries(self) -> list[RedisServer]:
        """The live nodes that say they are primaries."""
        return [server for server, node in self._selves() if "master" in node.flags]

    @property
    def replicas(self) -> list[RedisServer]:
        """The live nodes that say they are replicas."""
        return [server for server, node in self._selves() if "slave" in node.flags]

    def url(self) -> str:
        """Return its URL, which names every node: ``redis+cluster://``, ``rediss+cluster://`` with TLS."""
        credentials = "" if self._password is None else f":{quote(self._password, safe='')}@"
        scheme = "redis" if self.nodes[0].tls_port is None else "rediss"
        hosts = ",".join(f"127.0.0.1:{data_port(server)}" for server in self.nodes)
        return f"{scheme}+cluster://{credentials}{hosts}"

    def primary_of(self, slot: int) -> RedisServer:
        """Return the live node that serves a slot.

        Raises:
            StoreUnavailable: None says that it does, as before the failover of a killed one.
        """
        claims = [(node.epoch, server) for server, node in self._selves() if node.serves(slot)]
        if not claims:
            raise StoreUnavailable(f"no live node of the cluster serves slot {slot}")
        return max(claims, key=lambda claim: claim[0])[1]

    async def wait_until_ok(self) -> None:
        """Return once every live node says that the cluster works, and names a live primary for each slot.

        Raises:
            StoreUnavailable: Not within 30 seconds; the message says what is missing.
        """
        await wait_for_async(self._not_ok, READY_SECONDS)

    async def migrate_slot(self, slot: int, target: RedisServer) -> None:
        """Move a slot with its keys to another primary while clients go on; without effect where it is there.

        Raises:
            StoreUnavailable: A node refused or did not answer; the slot may be half moved.
        """
        async for _ in self.migration_steps(slot, target):
            pass

    async def migration_steps(self, slot: int, target: RedisServer) -> AsyncIterator[int]:
        """Move a slot as ``migrate_slot`` does, in steps between which the cluster can be looked at.

        Yields:
            How many keys have moved so far: 0 once both nodes know that the slot is on its way; again after
            every few keys. The slot changes hands after the last step.

        Raises:
            StoreUnavailable: As ``migrate_slot``.
        """
        source = await asyncio.to_thread(self.primary_of, slot)
        if source is target:
            return
        await _ask(target, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", await _id_of(source))
        await _ask(source, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", await _id_of(target))
        moved = 0
        yield moved
        while keys := await asyncio.to_thread(
            source.array, "CLUSTER", "GETKEYSINSLOT", str(slot), str(_BATCH)
        ):
            await _ask(source, *self._migrate(target), "KEYS", *keys)
            moved += len(keys)
            yield moved
        # The target first: else there is a moment in which neither of them serves the slot.
        primaries = await asyncio.to_thread(lambda: self.primaries)
        for server in (target, source, *(each for each in primaries if each not in (source, target))):
            await _ask(server, "CLUSTER", "SETSLOT", str(slot), "NODE", await _id_of(target))

    def _migrate(self, target: RedisServer) -> list[str]:
        login = [] if self._password is None else ["AUTH", self._password]
        port = str(data_port(target))
        return ["MIGRATE", "127.0.0.1", port, "", "0", str(_MIGRATE_MILLISECONDS), *login]

    def _everyone(self) -> list[RedisServer]:
        return self.nodes

    def _steps(self) -> Iterator[Missing]:
        for server in self.nodes:
            server.start()
        if not self._formed:
            yield from self._form()
            self._formed = True
        yield self._not_ready

    def _form(self) -> Iterator[Missing]:
        primaries = len(self._first_primaries)
        for index, server in enumerate(self.nodes):
            # Before it has met another, which is the only time at which a node takes this.
            server.command("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            if index < primaries:
                slots = range(SLOTS * index // primaries, SLOTS * (index + 1) // primaries)
                server.command("CLUSTER", "ADDSLOTS", *map(str, slots))
        # Gossip would introduce them to each other as well, but later.
        for one, other in combinations(self.nodes, 2):
            one.command("CLUSTER", "MEET", "127.0.0.1", str(data_port(other)))
        yield self._not_met
        for index, server in enumerate(self.nodes[primaries:]):
            primary = self._first_primaries[index % primaries]
            server.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))

    def _not_met(self) -> str:
        views = list(self._views())
        if len(views) < len(self.nodes):
            return f"{len(views)} of {len(self.nodes)} nodes reply"
        for server, nodes in views:
            known = [node for node in nodes if node.connected and "handshake" not in node.flags]
            if len(known) < len(self.nodes):
                return f"the node on port {server.port} has met {len(known)} of {len(self.nodes)}"
        return ""

    def _not_ready(self) -> str:
        if missing := self._not_ok():
            return missing
        replicas = len(self.nodes) - len(self._first_primaries)
        for server, nodes in self._views():
            known = [node for node in nodes if "slave" in node.flags]
            if len(known) < replicas:
                return f"the node on port {server.port} knows {len(known)} of {replicas} replicas"
        if len(found := self.replicas) < replicas:
            return f"{len(found)} of {replicas} replicas reply"
        for server in found:
            if not in_sync(server):
                return f"the replica on port {server.port} is not in sync"
        return ""

    def _not_ok(self) -> str:
        views = list(self._views())
        # Who asks without TLS is told the ports without TLS.
        live = {server.port for server, _ in views}
        for server, nodes in views:
            where = f"the node on port {server.port}"
            if b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
                return f"{where} does not say that the cluster works"
            served = {slot for node in nodes if node.port in live for slots in node.slots for slot in slots}
            if len(served) < SLOTS:
                return f"{where} names a live primary for {len(served)} of {SLOTS} slots"
        return "" if views else "no node replies"

    def _views(self) -> Iterator[tuple[RedisServer, list[Node]]]:
        """Yield each live node with what it knows of all of them."""
        for server in self.nodes:
            if server.running:
                try:
                    nodes = server.command("CLUSTER", "NODES", timeout=_HUNG_SECONDS)
                except StoreUnavailable:
                    continue  # it is killed meanwhile, or stopped by a signal
                yield server, read_nodes(nodes)

    def _selves(self) -> Iterator[tuple[RedisServer, Node]]:
        """Yield each live node with what it says of itself, which is what it acts on."""
        for server, nodes in self._views():
            yield server, next(node for node in nodes if "myself" in node.flags)


async def _ask(server: RedisServer, *words: str | bytes) -> bytes:
    return await asyncio.to_thread(server.command, *words)


async def _id_of(server: RedisServer) -> bytes:
    return await _ask(server, "CLUSTER", "MYID")
