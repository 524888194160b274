"""What the demos have in common: a bot's process, its user, and a look over the bot's shoulder."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from sessionkit.keys import KeySpace
from sessionkit.service import SessionService
from sessionkit.settings import Settings
from sessionkit.testing.botapi import ScriptError

if TYPE_CHECKING:
    from sessionkit.cli.child import BotProcess
    from sessionkit.service import Session
    from sessionkit.store import SessionStore
    from sessionkit.testing.botapi import ScriptedUser

USER_ID = 123
PATIENCE = 20.0


class StepFailed(Exception):
    """A step of the demo did not come true."""


class Story(ABC):
    """A story, step by step, each checked.

    Args:
        store: Where the bot keeps its sessions, to look over its shoulder.
        prefix: The prefix of its keys.
        bot: The bot's process.
        user: Who talks to it.
    """

    moral: str

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
        self._console.print(f"[bold green]✓ {self.moral}[/]")
        return True

    @abstractmethod
    async def _play(self) -> None: ...

    async def _say(self, text: str) -> None:
        self._tell("Ada", text)
        await self._user.send(text)

    async def _hear(self, expected: str) -> None:
        reply = await self._user.reply(timeout=PATIENCE)
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
        key = KeySpace("user_data", self._prefix).key(USER_ID)
        record = await self._store.get(key)
        return record and Settings.load().codec().decode(record.value, key=key).get("deposits")

    def _check(self, came_true: bool, otherwise: str) -> None:
        if not came_true:
            raise StepFailed(otherwise)

    def _tell(self, who: str, what: str, style: str = "") -> None:
        seconds = time.monotonic() - self._started
        self._console.print(f"{seconds:6.2f}s  {who:<6}", end="")
        self._console.print(what, style=style, markup=False)
