"""Who waits for which news from the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkit_redis.transport import Reply


class Watches:
    """What one connection's callers want to hear of by push message: a key's change, a channel's messages.

    A push is taken for no more than "look again": it may name what did not change, and it is lost together
    with the connection, so that every waiter wakes when that ends.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._over = False

    def add(self, name: bytes) -> asyncio.Future[None]:
        """Return what is done at the next push that names this key or channel; cancel it to stop waiting."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._over:
            waiter.set_result(None)
            return waiter
        waiters = self._waiting.setdefault(name, set())
        waiters.add(waiter)
        waiter.add_done_callback(lambda _: self._discard(name, waiter))
        return waiter

    def push(self, message: Sequence[Reply]) -> None:
        """Take a push message: ``["invalidate", keys or None for all]`` or ``["message", channel, text]``."""
        match message:
            case [b"invalidate", None]:
                self._wake(list(self._waiting))
            case [b"invalidate", list(names)]:
                self._wake([name for name in names if isinstance(name, bytes)])
            case [b"message", bytes(name), *_]:
                self._wake([name])
            case _:
                pass  # such as the confirmation of a subscription

    def end(self) -> None:
        """Wake all: the connection is lost."""
        self._over = True
        self._wake(list(self._waiting))

    def _wake(self, names: list[bytes]) -> None:
        for name in names:
            for waiter in list(self._waiting.get(name, ())):
                if not waiter.done():
                    waiter.set_result(None)

    def _discard(self, name: bytes, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(name)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[name]
