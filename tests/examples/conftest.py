"""The example bot, as a process that tests kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionkit.cli.child import BotProcess
from sessionkit.registry import open_store
from sessionkit.testing.botapi import BotApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sessionkit.store import SessionStore


@pytest.fixture
async def api() -> AsyncIterator[BotApiServer]:
    async with BotApiServer() as api:
        yield api


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The store of the bot: a SQLite file, and each Redis server."""
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        return str(server.url())
    return f"sqlite:///{tmp_path / 'bot.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[SessionStore]:
    """The bot's store, to look over its shoulder."""
    async with open_store(url) as store:
        yield store


@pytest.fixture
async def bot(api: BotApiServer, url: str, tmp_path: Path) -> AsyncIterator[BotProcess]:
    """The bot, not started yet."""
    bot = BotProcess(
        {
            "TELEGRAM_BOT_TOKEN": api.token,
            "TELEGRAM_BASE_URL": api.base_url.removesuffix("/bot"),
            "SESSIONKIT_URL": url,
        },
        tmp_path,
    )
    yield bot
    await bot.stop()
