"""A bad network on loopback: a TCP proxy whose faults a test switches on and off.

::

    async with ChaosProxy("127.0.0.1", server.port, seed=7) as proxy:
        store = open_driver(proxy.url(server.url()))
        proxy.drop_replies(1)

``proxy`` is what tests use, ``faults`` says what is switched on, ``link`` and ``side`` carry one connection
and ``listener`` takes new ones.
"""

from sessionkit.testing.chaos.faults import Direction
from sessionkit.testing.chaos.proxy import ChaosProxy

__all__ = ["ChaosProxy", "Direction"]
