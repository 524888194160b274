"""The least that storing every update can cost: one record of bytes, read before it and written after it.

There are no turns, no versions, no expiry and no retries, nothing is checked, and nobody waits for a disk: a
floor for any persistence that stores each update, not a persistence.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import urlsplit

import msgpack
from telegram import Update
from telegram.ext import Application

from benchmarks.bare import Bare

if TYPE_CHECKING:
    AnyApplication = Application[Any, Any, Any, Any, Any, Any]
else:
    AnyApplication = Application

_STATE: Final = "answered"
"""Stands for the conversation's state."""

_COMMIT_EACH: Final = 64
"""How many updates share a transaction of SQLite."""


class FloorApplication(AnyApplication):
    """Unpacks a user's record before each update, and packs it afterwards.

    Args:
        place: A URL of Redis or SQLite; empty: a dict.
        kwargs: What the builder gives.
    """

    def __init__(self, *, place: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._place = place
        self._store: _Store = _Dict()

    async def initialize(self) -> None:
        """Open the store as well."""
        await super().initialize()
        if self._place.startswith("redis:"):
            url, loop = urlsplit(self._place), asyncio.get_running_loop()
            _, connection = await loop.create_connection(Bare, url.hostname or "", url.port or 0)
            self._store = _Redis(connection)
        elif self._place:
            self._store = _SQLite(self._place.removeprefix("sqlite:///"))

    async def process_update(self, update: object) -> None:
        """Process it between a read and a write."""
        assert isinstance(update, Update)
        assert update.effective_user is not None
        assert update.effective_chat is not None
        user_id = update.effective_user.id
        data = (self.user_data[user_id], self.chat_data[update.effective_chat.id])
        stored = await self._store.read(user_id)
        if stored is not None:
            for live, value in zip(data, msgpack.unpackb(stored), strict=False):
                live.clear()
                live.update(value)
        await super().process_update(update)
        await self._store.write(user_id, cast("bytes", msgpack.packb((*data, _STATE))))


class _Store(Protocol):
    """Where the records are."""

    async def read(self, user_id: int) -> bytes | None: ...

    async def write(self, user_id: int, value: bytes) -> None: ...


class _Dict:
    """In this process's memory."""

    def __init__(self) -> None:
        self._records: dict[int, bytes] = {}

    async def read(self, user_id: int) -> bytes | None:
        return self._records.get(user_id)

    async def write(self, user_id: int, value: bytes) -> None:
        self._records[user_id] = value


class _Redis:
    """In Redis, by one connection that all updates share."""

    def __init__(self, connection: Bare) -> None:
        self._connection = connection

    async def read(self, user_id: int) -> bytes | None:
        return cast("bytes | None", await self._connection.call("GET", user_id))

    async def write(self, user_id: int, value: bytes) -> None:
        await self._connection.call("SET", user_id, value)


class _SQLite:
    """In a file, by the event loop's own thread."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE IF NOT EXISTS records (user INTEGER PRIMARY KEY, value BLOB)")
        self._writes = 0

    async def read(self, user_id: int) -> bytes | None:
        found = self._connection.execute("SELECT value FROM records WHERE user = ?", (user_id,)).fetchone()
        return None if found is None else cast("bytes", found[0])

    async def write(self, user_id: int, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (user_id, value))
        self._writes += 1
        if self._writes % _COMMIT_EACH == 0:
            self._connection.commit()
