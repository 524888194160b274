"""Real servers that are killed, and how much of it a run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionkit.testing.servers import DURABLE, RedisServer, find_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionkit.testing.servers import ServerBinary


@pytest.fixture
def durable_server(server_binary: ServerBinary, heavy: bool) -> Iterator[RedisServer]:
    """A server of the test's own that loses nothing by being killed: one kind, or each with --heavy."""
    kinds = {server.name: server for server in find_servers()}
    chosen = kinds.get("redis-system") or next(iter(kinds.values()))
    if not heavy and server_binary.name != chosen.name:
        pytest.skip(f"{server_binary.name} is killed with --heavy; without it {chosen.name} alone")
    with RedisServer(server_binary, config=DURABLE) as server:
        yield server
