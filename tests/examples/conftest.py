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


@pytest.fixture
async def store(durable_url: str) -> AsyncIterator[SessionStore]:
    """The bot's store, to look over its shoulder."""
    async with open_store(durable_url) as store:
        yield store


@pytest.fixture
async def bot(api: BotApiServer, durable_url: str, tmp_path: Path) -> AsyncIterator[BotProcess]:
    """The bot, not started yet."""
    bot = BotProcess(
        {
            "TELEGRAM_BOT_TOKEN": api.token,
            "TELEGRAM_BASE_URL": api.base_url.removesuffix("/bot"),
            "SESSIONKIT_URL": durable_url,
        },
        tmp_path / "bot.log",
    )
    yield bot
    await bot.stop()
