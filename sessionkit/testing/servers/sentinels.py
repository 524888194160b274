"""A primary with its replicas, and the Sentinels that watch them."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import permutations
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.testing.servers.group import READY_SECONDS, ServerGroup, data_port, in_sync
from sessionkit.testing.servers.process import RedisServer, quoted
from sessionkit.testing.servers.waiting import wait_for_async

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sessionkit.testing.servers.binaries import ServerBinary
    from sessionkit.testing.servers.waiting import Missing

_CONFIG: Final[Mapping[str, str]] = {
    # A replica is in sync the sooner: no five seconds are spent waiting for a second one.
    "repl-diskless-sync": "no",
}
_TLS_CONFIG: Final[Mapping[str, str]] = {"tls-replication": "yes"}
_FAILOVER_MILLISECONDS: Final = 3_000
_HUNG_SECONDS: Final = 1.0


class SentinelGroup(ServerGroup):
    """Redis under Sentinel on 127.0.0.1, ready once it is entered: replicas in sync, Sentinels agreed.

    ::

        async with SentinelGroup(binary) as group:
            store = open_driver(group.url())
            old = group.primary
            old.kill()
            new = await group.wait_for_failover(old)

    A failover takes some three seconds with the ``down_after`` that it has by default. A killed primary that
    is started again goes on as a primary for ten more, until the Sentinels make it a replica.

    Attributes:
        servers: The primary and its replicas; the one that was the primary at the start comes first.
        sentinels: The Sentinels.
    """

    def __init__(
        self,
        binary: ServerBinary,
        *,
        sentinels: int = 3,
        replicas: int = 1,
        service: str = "mymaster",
        password: str | None = None,
        sentinel_password: str | None = None,
        down_after: float = 0.5,
        config: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """Prepare a group; nothing runs yet.

        Args:
            binary: What to run.
            sentinels: How many Sentinels watch; most of them have to agree.
            replicas: How many replicas the primary has.
            service: What the Sentinels call the primary and its replicas.
            password: The default user's password on the primary and the replicas. Sentinels of Redis 6.2 and
                7.0 forget to quote it where they note it: with a blank or a quote in it they do not start
                again.
            sentinel_password: The same on the Sentinels.
            down_after: Seconds without a reply after which a Sentinel takes a server to be down.
            config: Directives of ``redis.conf`` for primary and replicas, as for ``RedisServer``, over
                those of this class; the ones of TLS are for the Sentinels as well, and then all talk TLS.

        Raises:
            ConfigurationError: There is no Sentinel, or fewer than no replica.
        """
        if sentinels < 1 or replicas < 0:
            raise ConfigurationError("a group has one Sentinel at least, and no fewer than 0 replicas")
        config = {name.lower(): values for name, values in (config or {}).items()}
        tls = {name: values for name, values in config.items() if name.startswith("tls-")}
        tls = {**_TLS_CONFIG, **tls} if tls else {}
        self._primary_config = {**_CONFIG, **tls, **config}
        self._sentinel_config = tls
        self._binary = binary
        self._sentinel_count = sentinels
        self._replica_count = replicas
        self._service = service
        self._password = password
        self._sentinel_password = sentinel_password
        self._down_after = down_after
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []
        self._formed = False

    @property
    def primary(self) -> RedisServer:
        """The server that most Sentinels name; a killed one, until they have agreed on its successor.

        Raises:
            StoreUnavailable: No Sentinel replies.
        """
        names = Counter(self._names())
        if not names:
            raise StoreUnavailable("no Sentinel replies")
        return names.most_common(1)[0][0]

    def url(self, db: int = 0) -> str:
        """Return the URL that names every Sentinel: ``redis+sentinel://``, or ``rediss+sentinel://`` by TLS.

        The password in it is the servers'; the Sentinels' own does not belong into a URL.
        """
        credentials = "" if self._password is None else f":{quote(self._password, safe='')}@"
        scheme = "redis" if self.sentinels[0].tls_port is None else "rediss"
        hosts = ",".join(f"127.0.0.1:{data_port(sentinel)}" for sentinel in self.sentinels)
        path = quote(self._service, safe="") + (f"/{db}" if db else "")
        return f"{scheme}+sentinel://{credentials}{hosts}/{path}"

    async def wait_for_failover(self, old: RedisServer) -> RedisServer:
        """Return the new primary, once every Sentinel that replies names it and it says it is one.

        Args:
            old: The primary until now.

        Raises:
            StoreUnavailable: Not within 30 seconds; the message says what is missing.
        """
        await wait_for_async(lambda: self._not_failed_over(old), READY_SECONDS)
        return await asyncio.to_thread(lambda: self.primary)

    def _everyone(self) -> list[RedisServer]:
        return [*self.servers, *self.sentinels]

    def _steps(self) -> Iterator[Missing]:
        if self._formed:
            for server in self._everyone():
                server.start()
        else:
            self.servers, self.sentinels = [], []
            yield from self._form()
            self._formed = True
        yield self._not_ready

    def _form(self) -> Iterator[Missing]:
        for _ in range(1 + self._replica_count):
            self.servers.append(self._start_server())
        # Before the Sentinels: they ask a primary for its replicas when they find it, then every ten seconds.
        yield self._not_in_sync
        for _ in range(self._sentinel_count):
            self.sentinels.append(self._start_sentinel())
        # What they tell each other every two seconds.
        hellos = {sentinel: self._hello(sentinel) for sentinel in self.sentinels}
        for one, other in permutations(self.sentinels, 2):
            one.command("PUBLISH", "__sentinel__:hello", hellos[other])

    def _start_server(self) -> RedisServer:
        config = dict(self._primary_config)
        if self.servers:
            config["replicaof"] = f"127.0.0.1 {data_port(self.servers[0])}"
        return RedisServer(self._binary, password=self._password, config=config).start()

    def _start_sentinel(self) -> RedisServer:
        service = quoted(self._service)
        quorum = self._sentinel_count // 2 + 1
        lines = [
            f"monitor {service} 127.0.0.1 {data_port(self.servers[0])} {quorum}",
            f"down-after-milliseconds {service} {self._down_after * 1000:.0f}",
            f"failover-timeout {service} {_FAILOVER_MILLISECONDS}",
        ]
        if self._password is not None:
            lines.append(f"auth-pass {service} {quoted(self._password)}")
        config = {**self._sentinel_config, "sentinel": lines}
        return RedisServer(
            self._binary, password=self._sentinel_password, config=config, sentinel=True
        ).start()

    def _hello(self, sentinel: RedisServer) -> str:
        own_id = sentinel.command("SENTINEL", "MYID").decode()
        here = f"127.0.0.1,{data_port(sentinel)},{own_id},0"
        return f"{here},{self._service},127.0.0.1,{data_port(self.servers[0])},0"

    def _not_in_sync(self) -> str:
        for replica in self.servers[1:]:
            if not in_sync(replica):
                return f"the replica on port {replica.port} is not in sync"
        return ""

    def _not_ready(self) -> str:
        for sentinel in self.sentinels:
            words = sentinel.array("SENTINEL", "MASTER", self._service)
            says = dict(zip(words[::2], words[1::2], strict=True))
            where = f"the Sentinel on port {sentinel.port}"
            for kind, expected in (
                (b"slaves", self._replica_count),
                (b"other-sentinels", self._sentinel_count - 1),
            ):
                if int(says[b"num-" + kind]) != expected:
                    return f"{where} knows {says[b'num-' + kind].decode()} of {expected} {kind.decode()}"
            sentinel.command("SENTINEL", "CKQUORUM", self._service)
        return ""

    def _not_failed_over(self, old: RedisServer) -> str:
        names = set(self._names())
        if len(names) != 1:
            return f"the Sentinels name {len(names)} primaries"
        [named] = names
        if named is old:
            return f"the Sentinels still name the primary on port {old.port}"
        if b"role:master" not in named.command("INFO", "replication", timeout=_HUNG_SECONDS):
            return f"the server on port {named.port} is not a primary yet"
        return ""

    def _names(self) -> Iterator[RedisServer]:
        """Yield the server that each Sentinel names, if it replies."""
        servers = {data_port(server): server for server in self.servers}
        for sentinel in self.sentinels:
            if sentinel.running:
                try:
                    address = sentinel.array(
                        "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service, timeout=_HUNG_SECONDS
                    )
                except StoreUnavailable:
                    continue  # it is killed meanwhile, or stopped by a signal
                yield servers[int(address[1])]
