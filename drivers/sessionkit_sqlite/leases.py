"""The steps under ``sessionkit.store.Locks``, on the table ``locks``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sessionkit.store import look_again_soon
from sessionkit_sqlite.operations import expiry

if TYPE_CHECKING:
    import sqlite3

    from sessionkit_sqlite.writer import Writer

KEEP_FENCES_MS: Final = 86_400_000
"""How long a lock's last fence outlives its lease. After that the clock alone gives a larger one."""


class Leases:
    """A ``LeaseKeeper`` on the file: all processes that open it share the locks."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def take_lease(self, key: str, token: str, lease: float) -> int | None:
        """See ``LeaseKeeper.take_lease``."""
        return await self._writer.run(partial(_take, key, token, lease))

    async def extend_lease(self, key: str, token: str, lease: float) -> bool:
        """See ``LeaseKeeper.extend_lease``."""
        return await self._writer.run(partial(_extend, key, token, lease))

    async def drop_lease(self, key: str, token: str) -> None:
        """See ``LeaseKeeper.drop_lease``."""
        await self._writer.run(partial(_drop, key, token))

    async def wait_for_release(self, key: str, seconds: float) -> None:
        """See ``LeaseKeeper.wait_for_release``."""
        await look_again_soon(seconds)


def purge(limit: int, connection: sqlite3.Connection, now: int) -> int:
    """Remove at most ``limit`` locks that nobody has held for a day, and return how many."""
    return connection.execute(
        "DELETE FROM locks WHERE rowid IN (SELECT rowid FROM locks WHERE expires_at <= ? LIMIT ?)",
        (now // 1000 - KEEP_FENCES_MS, limit),
    ).rowcount


def _take(key: str, token: str, lease: float, connection: sqlite3.Connection, now: int) -> int | None:
    row = connection.execute("SELECT token, fence, expires_at FROM locks WHERE key = ?", (key,)).fetchone()
    holder, fence, expires_at = row or ("", 0, 0)
    if not holder or expires_at <= now // 1000:
        holder, fence = token, max(fence + 1, now)
    if holder != token:
        return None
    connection.execute(
        "INSERT INTO locks (key, token, fence, expires_at) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
        " SET token = excluded.token, fence = excluded.fence, expires_at = excluded.expires_at",
        (key, token, fence, expiry(lease, now)),
    )
    return int(fence)


def _extend(key: str, token: str, lease: float, connection: sqlite3.Connection, now: int) -> bool:
    changed = connection.execute(
        "UPDATE locks SET expires_at = ? WHERE key = ? AND token = ? AND expires_at > ?",
        (expiry(lease, now), key, token, now // 1000),
    )
    return changed.rowcount > 0


def _drop(key: str, token: str, connection: sqlite3.Connection, now: int) -> None:
    connection.execute(
        "UPDATE locks SET token = '', expires_at = ? WHERE key = ? AND token = ?", (now // 1000, key, token)
    )
