"""An ``Application`` that commits after every update."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from telegram import Update
from telegram.ext import Application

from sessionkit.errors import Applied, CommitPending, ConfigurationError, SessionKitError, StoreError
from sessionkit.ptb.commits import collecting, current
from sessionkit.ptb.persistence import SessionPersistence
from sessionkit.ptb.private import take_changes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Answer = Callable[[], Awaitable[object]]


class SessionApplication(Application[Any, Any, Any, Any, Any, Any]):
    """PTB's ``Application``, with each update's states and data stored before the next step is taken.

    A stock ``Application`` hands its changes to the persistence every ``update_interval`` seconds; a process
    killed in between forgets them. This one does so after each update, and calls what handlers passed to
    ``on_commit`` only when the store has acknowledged everything.

    Use it as
    ``ApplicationBuilder().application_class(SessionApplication).persistence(SessionPersistence(…))``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._held_back: set[asyncio.Task[None]] = set()

    async def initialize(self) -> None:
        """Initialize as PTB does, but ask the store for a sign of life first.

        Raises:
            StoreUnavailable: It gives none.
        """
        await self._session_persistence.ping()
        await super().initialize()

    async def process_update(self, update: object) -> None:
        """Process the update, commit what it changed, then call what its handlers passed to ``on_commit``.

        While the store does not acknowledge, the answers are held back until it does, and the error handlers
        are told so by a ``CommitPending``.
        """
        with collecting() as commit:
            await super().process_update(update)
            answers = commit.close()
        try:
            await self._commit(update)
        except Exception as error:  # whatever it is, PTB's error handlers are told, as for a handler's
            if answers and isinstance(error, StoreError) and error.temporary:
                self._hold_back(update, answers)
                error = CommitPending(f"answers are held back: {error}", applied=Applied.MAYBE)
            await self.process_error(update, error)
        else:
            await self._send(update, answers)

    async def update_persistence(self) -> None:
        """Have stored what has changed, as PTB asks for now and then, and at its end.

        What fails goes to the error handlers: nothing is raised, or PTB would not come to its ``flush``.
        """
        await self._hold_changes()
        with suppress(SessionKitError):
            await self._session_persistence.commit()

    async def process_error(self, update: object, error: Exception, *args: Any, **kwargs: Any) -> bool:
        """Drop what the failed handler passed to ``on_commit``, then do as PTB does."""
        commit = current()
        if commit is not None:
            commit.discard()
        return await super().process_error(update, error, *args, **kwargs)

    async def stop(self) -> None:
        """Stop as PTB does; answers that are still held back are not sent."""
        await super().stop()
        while self._held_back:
            held_back = self._held_back.pop()
            held_back.cancel()
            await asyncio.wait([held_back])

    def _hold_back(self, update: object, answers: Sequence[Answer]) -> None:
        async def send_later() -> None:
            await self._session_persistence.settle()
            try:
                await self._commit(update)
            except Exception as error:  # as in process_update
                await self.process_error(update, error)
            else:
                await self._send(update, answers)

        task = asyncio.get_running_loop().create_task(send_later())
        self._held_back.add(task)
        task.add_done_callback(self._held_back.discard)

    async def _hold_changes(self) -> None:
        cache = self.bot.callback_data_cache
        errors = self._session_persistence.hold(
            take_changes(self), self.bot_data, None if cache is None else cache.persistence_data
        )
        for error in errors:
            await self.process_error(None, error)

    async def _commit(self, update: object) -> None:
        await self._hold_changes()
        user, chat = (
            (update.effective_user, update.effective_chat) if isinstance(update, Update) else (None, None)
        )
        await self._session_persistence.commit(
            user_id=None if user is None else user.id, chat_id=None if chat is None else chat.id
        )

    async def _send(self, update: object, answers: Sequence[Answer]) -> None:
        for answer in answers:
            try:
                await answer()
            except Exception as error:  # one that fails must not keep back the others
                await self.process_error(update, error)
        if answers:
            # They may have changed something themselves, such as the data behind the buttons they sent.
            await self.update_persistence()

    @property
    def _session_persistence(self) -> SessionPersistence:
        if not isinstance(self.persistence, SessionPersistence):
            raise ConfigurationError(
                "SessionApplication needs a SessionPersistence: ApplicationBuilder().persistence(…)"
            )
        return self.persistence
