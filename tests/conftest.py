"""What every test shares: real servers, Hypothesis profiles and the options of the suite."""

from __future__ import annotations

import os
import random
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from sessionkit.testing.servers import (
    SERVER_NAMES,
    MissingServer,
    RedisCluster,
    RedisServer,
    SentinelGroup,
    ServerBinary,
    find_servers,
    missing_servers,
)
from tests.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No limit that depends on how busy the machine is.
_STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("ci", _STEADY, derandomize=True)
settings.register_profile("heavy", _STEADY, max_examples=2_000, stateful_step_count=100)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's own options."""
    group = parser.getgroup("sessionkit")
    group.addoption("--heavy", action="store_true", help="many more examples, drawn from a fresh seed")
    group.addoption("--pin-public-names", action="store_true", help="rewrite tests/data/public_names.txt")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the Hypothesis profile, and a seed before Hypothesis and xdist's workers look for one."""
    settings.load_profile("heavy" if config.getoption("heavy") else "ci")
    if config.getoption("heavy") and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    """Say which examples this run draws, and which servers it runs against."""
    seed = config.option.hypothesis_seed
    examples = (
        f"heavy; again: --heavy --hypothesis-seed={seed}" if config.getoption("heavy") else "the same ones"
    )
    servers = [f"{found.name} ({found.version})" for found in find_servers()]
    servers += [f"no {missing.name}: {missing.reason}" for missing in missing_servers()]
    return f"examples: {examples}\nservers: {', '.join(servers)}"


@cache
def _servers() -> dict[str, ServerBinary | MissingServer]:
    found = {server.name: server for server in find_servers()}
    return found | {server.name: server for server in missing_servers()}


def _require(name: str) -> ServerBinary:
    """Return the server of that name; a missing one skips the test, or fails it where required."""
    server = _servers()[name]
    if isinstance(server, ServerBinary):
        return server
    if not server.obtainable:
        pytest.skip(f"{server.name} is not to be had: {server.reason}")
    if os.environ.get("REQUIRE_TEST_SERVERS") == "1":
        pytest.fail(f"no server {server.name}: {server.reason}", pytrace=False)
    pytest.skip(f"no server {server.name}: {server.reason}")


@pytest.fixture(scope="session")
def heavy(request: pytest.FixtureRequest) -> bool:
    """Whether many more examples are wanted, and every server."""
    return bool(request.config.getoption("heavy"))


@pytest.fixture
def seed(request: pytest.FixtureRequest, heavy: bool) -> int:
    """What all randomness comes from; shown with a failure."""
    seed = int(request.config.option.hypothesis_seed) if heavy else 7
    print("seed", seed)  # noqa: T201 - for whoever repeats a failure
    return seed


@pytest.fixture(scope="session", params=SERVER_NAMES)
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """Each server in turn, for tests that run their own; a missing one skips, or fails where required."""
    return _require(request.param)


@pytest.fixture(scope="session")
def _shared_server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    with RedisServer(server_binary) as server:
        yield server


@pytest.fixture
def redis_server(_shared_server: RedisServer) -> RedisServer:
    """Each server in turn, running and empty: of its data and its scripts.

    A test that kills, pauses or reconfigures its server starts its own from ``server_binary``.
    """
    _shared_server.command("FLUSHALL")
    _shared_server.command("SCRIPT", "FLUSH")
    return _shared_server


@pytest.fixture(scope="session")
def _shared_cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    # No test of it kills a node, and a busy machine must not look like a dead one.
    with RedisCluster(server_binary, config={"cluster-node-timeout": "5000"}) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_shared_cluster: RedisCluster) -> RedisCluster:
    """A cluster of three primaries and three replicas of each server in turn, running and empty.

    A test that kills or pauses a node, or moves a slot, starts its own from ``server_binary``.
    """
    for primary in _shared_cluster.primaries:
        primary.command("FLUSHALL")
        primary.command("SCRIPT", "FLUSH")
    return _shared_cluster


@pytest.fixture
def sentinel_group(server_binary: ServerBinary) -> Iterator[SentinelGroup]:
    """A primary with its replica and three Sentinels of each server in turn, the test's own."""
    with SentinelGroup(server_binary) as group:
        yield group


@pytest.fixture(params=["sqlite", *SERVER_NAMES])
def durable_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store of each kind that outlives a process."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'bot.db'}"
        return
    with RedisServer(_require(request.param)) as server:
        yield server.url()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The ``sessionkit`` command, to be run in a folder of the test's own, in this process."""
    return Command(tmp_path, monkeypatch, capsys)
