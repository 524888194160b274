"""The steps under ``sessionkit.store.Locks``, each a script."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sessionkit.store import milliseconds
from sessionkit_redis.scripts import DROP_LEASE, EXTEND_LEASE, TAKE_LEASE

if TYPE_CHECKING:
    from sessionkit_redis.server import Server

SUFFIX: Final = "#lock"
"""What follows a lock's name in its key; no record's key has a ``#``."""

_FREED: Final = b":"


class Leases:
    """A ``LeaseKeeper`` on the server: all that reach it share the locks."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def take_lease(self, key: str, token: str, lease: float) -> int | None:
        """See ``LeaseKeeper.take_lease``."""
        reply = await self._server.run(TAKE_LEASE, key + SUFFIX, (token, milliseconds(lease)))
        return self._server.number(reply) or None

    async def extend_lease(self, key: str, token: str, lease: float) -> bool:
        """See ``LeaseKeeper.extend_lease``."""
        return await self._server.run(EXTEND_LEASE, key + SUFFIX, (token, milliseconds(lease))) == 1

    async def drop_lease(self, key: str, token: str) -> None:
        """See ``LeaseKeeper.drop_lease``."""
        await self._server.run(DROP_LEASE, key + SUFFIX, (token,))

    async def wait_for_release(self, key: str, seconds: float) -> None:
        """See ``LeaseKeeper.wait_for_release``; the server tells of a release, the clock of an expiry."""
        held = await self._server.watch(key + SUFFIX)
        try:
            if held.value is not None and not held.value.startswith(_FREED):
                expiry = seconds if held.expires_in is None else held.expires_in
                await asyncio.wait([held.changed], timeout=min(seconds, expiry))
        finally:
            held.changed.cancel()
