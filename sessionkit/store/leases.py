"""Leases between the tasks of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sessionkit.store.locks import look_again_soon

if TYPE_CHECKING:
    from sessionkit.store.records import Clock


class _Held(NamedTuple):
    token: str
    fence: int
    expires_at: float


class LocalLeases:
    """A ``LeaseKeeper`` in a dictionary.

    Args:
        clock: Gives the time in seconds; only differences count.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._last_fence = 0

    async def take_lease(self, key: str, token: str, lease: float) -> int | None:
        """See ``LeaseKeeper.take_lease``."""
        now = self._clock()
        held = self._held.get(key)
        if held is None or now >= held.expires_at:
            self._last_fence = max(self._last_fence + 1, int(now * 1_000_000))
            held = _Held(token, self._last_fence, now)
        if held.token != token:
            return None
        self._held[key] = held._replace(expires_at=now + lease)
        return held.fence

    async def extend_lease(self, key: str, token: str, lease: float) -> bool:
        """See ``LeaseKeeper.extend_lease``."""
        now = self._clock()
        held = self._held.get(key)
        if held is None or held.token != token or now >= held.expires_at:
            return False
        self._held[key] = held._replace(expires_at=now + lease)
        return True

    async def drop_lease(self, key: str, token: str) -> None:
        """See ``LeaseKeeper.drop_lease``."""
        held = self._held.get(key)
        if held is not None and held.token == token:
            del self._held[key]

    async def wait_for_release(self, key: str, seconds: float) -> None:
        """See ``LeaseKeeper.wait_for_release``."""
        await look_again_soon(seconds)
