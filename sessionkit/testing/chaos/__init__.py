"""Faults on purpose, switched on and off by a test: a bad network, and a bad store.

::

    async with ChaosProxy("127.0.0.1", server.port, seed=7) as proxy:
        store = open_driver(proxy.url(server.url()))
        proxy.drop_replies(1)

    async with ChaosStore(MemoryStore(), seed=7) as store:
        store.lose_replies(1)

``proxy`` is a TCP proxy on loopback; ``faults`` says what is switched on, ``link`` and ``side`` carry one
connection and ``listener`` takes new ones. ``store`` wraps any store; ``switches`` is what becomes of each
operation and ``checkpoints`` what a failover goes back to.
"""

from sessionkit.testing.chaos.faults import Direction
from sessionkit.testing.chaos.proxy import ChaosProxy
from sessionkit.testing.chaos.store import ChaosStore

__all__ = ["ChaosProxy", "ChaosStore", "Direction"]
