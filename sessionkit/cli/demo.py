"""``sessionkit demo``: a bot killed in mid-conversation carries on."""

from __future__ import annotations

import secrets
import signal
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape

from sessionkit.cli.child import BotProcess
from sessionkit.codec import MsgpackCodec
from sessionkit.errors import ConfigurationError
from sessionkit.keys import KeySpace
from sessionkit.registry import open_store
from sessionkit.service import SessionService
from sessionkit.testing.botapi import BotApiServer, ScriptedUser, ScriptError

if TYPE_CHECKING:
    from sessionkit.service import Session
    from sessionkit.store import SessionStore

USER_ID = 123
_PATIENCE = 20.0


class StepFailed(Exception):
    """A step of the demo did not come true."""


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
        async with open_store(target) as store:
            if not store.capabilities.durable:
                raise ConfigurationError("the demo kills its bot: a store in the bot's memory dies with it")
            await store.ping()
            async with BotApiServer() as api:
                prefix = f"sessionkit_demo_{secrets.token_hex(4)}:"
                bot = BotProcess(
                    {
                        "TELEGRAM_BOT_TOKEN": api.token,
                        "TELEGRAM_BASE_URL": api.base_url.removesuffix("/bot"),
                        "SESSIONKIT_URL": target,
                        "SESSIONKIT_PREFIX": prefix,
                        "SESSIONKIT_IDLE_TIMEOUT": "300",
                    },
                    folder / "bot.log",
                )
                try:
                    return await Demo(store, prefix, bot, api.user(USER_ID, first_name="Ada")).play()
                finally:
                    await bot.stop()
                    await store.delete_many([key async for key in store.scan(prefix)])


class Demo:
    """The story, step by step, each checked.

    Args:
        store: Where the bot keeps its sessions, to look over its shoulder.
        prefix: The prefix of its keys.
        bot: The bot's process.
        user: Who talks to it.
    """

    def __init__(self, store: SessionStore, prefix: str, bot: BotProcess, user: ScriptedUser) -> None:
        self._store = store
        self._prefix = prefix
        self._sessions = SessionService(store, prefix=prefix)
        self._bot = bot
        self._user = user
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    async def play(self) -> bool:
        """Play it to its end and return whether every step came true."""
        try:
            await self._play()
        except (StepFailed, ScriptError) as failure:
            self._console.print(f"[bold red]✗ {escape(str(failure))}[/]")
            self._console.print(escape(self._bot.output()) or "(the bot printed nothing)", style="dim")
            return False
        self._console.print("[bold green]✓ the bot lost its process and nothing else[/]")
        return True

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

    async def _say(self, text: str) -> None:
        self._tell("Ada", text)
        await self._user.send(text)

    async def _hear(self, expected: str) -> None:
        reply = await self._user.reply(timeout=_PATIENCE)
        self._tell("bot", reply.text, "green")
        self._check(expected.lower() in reply.text.lower(), f"expected the bot to speak of {expected!r}")

    async def _stored(self, state: str) -> dict[Any, Any]:
        session = await self._session()
        self._check(session is not None, "there is no session")
        assert session is not None
        self._tell("store", f"session {session.id}: state {session.state!r}, data {session.data}", "cyan")
        self._check(session.state == state, f"expected the state {state!r}")
        return session.data

    async def _session(self) -> Session | None:
        return await self._sessions.get_session(USER_ID, renew=False)

    async def _deposits(self) -> Any:
        record = await self._store.get(KeySpace("user_data", self._prefix).key(USER_ID))
        return record and MsgpackCodec().decode(record.value).get("deposits")

    def _check(self, came_true: bool, otherwise: str) -> None:
        if not came_true:
            raise StepFailed(otherwise)

    def _tell(self, who: str, what: str, style: str = "") -> None:
        seconds = time.monotonic() - self._started
        self._console.print(f"{seconds:6.2f}s  {who:<6}", end="")
        self._console.print(what, style=style, markup=False)
