"""Real Redis-compatible servers for tests: find the binaries that are here, and run them.

::

    for binary in find_servers():
        with RedisServer(binary) as server:
            store = open_driver(server.url())

``binaries`` finds them, ``process`` runs one, ``wire`` asks it, ``cluster`` and ``sentinels`` run several as
one. A server listens on free ports of 127.0.0.1 only, keeps its files in one directory, and dies with its
parent.
"""

from sessionkit.testing.servers.binaries import (
    SERVER_NAMES,
    MissingServer,
    ServerBinary,
    find_servers,
    missing_servers,
)
from sessionkit.testing.servers.cluster import RedisCluster
from sessionkit.testing.servers.process import DURABLE, RedisServer
from sessionkit.testing.servers.sentinels import SentinelGroup

__all__ = [
    "DURABLE",
    "SERVER_NAMES",
    "MissingServer",
    "RedisCluster",
    "RedisServer",
    "SentinelGroup",
    "ServerBinary",
    "find_servers",
    "missing_servers",
]
