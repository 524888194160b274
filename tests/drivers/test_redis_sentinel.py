"""The Redis store behind real Sentinels: the whole contract, and a primary that fails under load."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Protocol

import pytest

from sessionkit.errors import StoreUnavailable
from sessionkit.store import StoreURL
from sessionkit.testing import SessionStoreConformance
from sessionkit.testing.servers import SentinelGroup
from sessionkit.testing.servers.waiting import wait_for_async
from sessionkit_redis import open_driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import RedisServer, ServerBinary
    from tests.drivers.conftest import Load

    class MakeLoad(Protocol):
        def __call__(
            self, store: SessionStore, keys: Sequence[Sequence[str]], *, fails: bool = False
        ) -> Load: ...


WRITERS = 16
PATIENCE = 30
PASSWORD = "theirs"
SENTINEL_PASSWORD = "the-sentinels"


@pytest.fixture(scope="module")
def _group(server_binary: ServerBinary) -> Iterator[SentinelGroup]:
    with SentinelGroup(server_binary, password=PASSWORD, sentinel_password=SENTINEL_PASSWORD) as group:
        yield group


@pytest.fixture
def group(_group: SentinelGroup) -> SentinelGroup:
    """Three Sentinels with a primary and its replica, all with passwords, this module's own; empty."""
    _group.primary.command("FLUSHALL")
    _group.primary.command("SCRIPT", "FLUSH")
    return _group


class TestSentinelConformance(SessionStoreConformance):
    @pytest.fixture(autouse=True)
    def _behind(self, group: SentinelGroup) -> None:
        self.group = group

    def open_store(self) -> SessionStore:
        return open_driver(StoreURL.parse(self.group.url()), sentinel_password=SENTINEL_PASSWORD)

    async def time_to_live(self, store: SessionStore, key: str) -> float:
        return int(self.group.primary.command("PTTL", key)) / 1000


async def test_a_service_that_nobody_watches_is_a_lasting_error(group: SentinelGroup) -> None:
    url = group.url().replace("/mymaster", "/nobody")
    async with open_driver(StoreURL.parse(url), sentinel_password=SENTINEL_PASSWORD) as store:
        with pytest.raises(StoreUnavailable, match="know no service 'nobody'") as caught:
            await store.get("key")
    assert caught.value.temporary is False


@pytest.mark.parametrize("fails_by", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
async def test_a_primary_that_fails_under_load_is_replaced(
    failing_binary: ServerBinary, load: MakeLoad, heavy: bool, fails_by: signal.Signals
) -> None:
    tasks = asyncio.all_tasks()
    async with (
        SentinelGroup(failing_binary) as group,
        open_driver(StoreURL.parse(group.url()), timeout=1.0) as store,
    ):
        old = group.primary
        [replica] = [server for server in group.servers if server is not old]
        keys = [[f"bot:{writer}:{number}" for number in range(6)] for writer in range(WRITERS)]
        everything = [key for own in keys for key in own]
        async with load(store, keys, fails=True).running() as writers:
            await writers.operations(1000)
            failover = await writers.through_failover(
                everything,
                lambda: os.kill(old.pid, fails_by),
                replica,
                lambda: group.wait_for_failover(old),
            )
            errors_until_then = dict(writers.errors)
            await writers.operations(1000)
            if fails_by is signal.SIGSTOP:
                # What it still has to say must reach nobody.
                os.kill(old.pid, signal.SIGCONT)
                await wait_for_async(lambda: _not_demoted(old), PATIENCE)
            await writers.operations(1000)
        await writers.check_all()
    assert asyncio.all_tasks() == tasks
    print(  # noqa: T201 - for whoever runs it with -rP
        f"{failing_binary.name}: promoted after {failover.promoted:.2f} s, settled {failover.settled:.2f} s,"
        f" all {len(everything)} keys served again after {failover.back:.2f} s;"
        f" {len(failover.lost)} acknowledged writes lost; {writers.figures()}; by then {errors_until_then}"
    )
    assert writers.errors != {}
    writers.check_losses(failover.lost)
    assert failover.back < max(failover.promoted, failover.settled) + (1.0 if heavy else 10.0)


def _not_demoted(server: RedisServer) -> str:
    demoted = b"role:slave" in server.command("INFO", "replication")
    return "" if demoted else "the old primary is no replica yet"
