"""``sessionkit demo``: a bot killed in mid-conversation carries on."""

from __future__ import annotations

import secrets
import signal
import tempfile
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sessionkit.cli.child import BotProcess
from sessionkit.cli.story import USER_ID, Story
from sessionkit.errors import ConfigurationError
from sessionkit.registry import open_store
from sessionkit.testing.botapi import BotApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sessionkit.testing.botapi import ScriptedUser


async def run_demo(url: str | None) -> bool:
    """Play the demo on a store and print its timeline; return whether every step came true.

    Args:
        url: A durable store's URL, or None for a SQLite file that is removed afterwards. The demo's records
            have a prefix of their own and are removed.

    Raises:
        ConfigurationError: The URL is wrong, or its store does not outlive a process.
        StoreUnavailable: The store does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="sessionkit-demo-") as name:
        folder = Path(name)
        target = url if url is not None else f"sqlite:///{quote(str(folder / 'bot.db'))}"
        prefix = new_prefix()
        async with open_store(target, outage="raise") as store:
            if not store.capabilities.durable:
                raise ConfigurationError("the demo kills its bot: a store in the bot's memory dies with it")
            await store.ping()
            async with bot_and_user(folder, {"SESSIONKIT_URL": target, "SESSIONKIT_PREFIX": prefix}) as (
                bot,
                user,
            ):
                try:
                    return await KilledBot(store, prefix, bot, user).play()
                finally:
                    await bot.stop()
                    await store.delete_many([key async for key in store.scan(prefix)])


def new_prefix() -> str:
    """Return a prefix of keys that nobody else has."""
    return f"sessionkit_demo_{secrets.token_hex(4)}:"


@asynccontextmanager
async def bot_and_user(
    folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[tuple[BotProcess, ScriptedUser]]:
    """Give the example bot, not started yet, and a user of it.

    Args:
        folder: For its log.
        settings: Its environment variables, beside those of the Bot API server.
    """
    async with BotApiServer() as api:
        bot = BotProcess(
            {
                "TELEGRAM_BOT_TOKEN": api.token,
                "TELEGRAM_BASE_URL": api.base_url.removesuffix("/bot"),
                "SESSIONKIT_IDLE_TIMEOUT": "300",
                **settings,
            },
            folder / "bot.log",
        )
        try:
            yield bot, api.user(USER_ID, first_name="Ada")
        finally:
            await bot.stop()


class KilledBot(Story):
    """The bot is killed in the middle of a conversation."""

    moral = "the bot lost its process and nothing else"

    async def _play(self) -> None:
        await self._bot.start()
        self._tell("bot", f"starts, pid {self._bot.pid}")
        await self._say("/depot")
        await self._hear("audio")
        await self._stored("audio")
        self._tell("Ada", "sends an audio")
        await self._user.send_audio(title="deposit")
        await self._hear("amount")
        before = await self._stored("amount")

        status = await self._bot.kill()
        self._check(status == -signal.SIGKILL, f"the bot ended by itself, with status {status}")
        self._tell("bot", "is killed with SIGKILL", "bold red")
        self._check(await self._stored("amount") == before, "the stored session changed without the bot")
        await self._bot.start()
        self._tell("bot", f"starts again, pid {self._bot.pid}")

        await self._say("150")
        await self._hear("confirm")
        after = await self._stored("confirm")
        self._check(after == {**before, "amount": Decimal(150)}, "the session lost or changed what it held")
        await self._say("yes")
        await self._hear("Deposit 1 of 150 confirmed")
        self._check(await self._session() is None, "the session outlived its confirmation")
        self._tell("store", "the session is gone")
        deposits = await self._deposits()
        self._check(deposits == [after], f"the deposit was booked as {deposits}")
        self._tell("store", f"booked: {deposits}")
