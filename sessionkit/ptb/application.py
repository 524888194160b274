"""An ``Application`` that commits after every update."""

from __future__ import annotations

from typing import Any

from telegram import Update
from telegram.ext import Application

from sessionkit.errors import ConfigurationError
from sessionkit.ptb.commits import collecting, current
from sessionkit.ptb.persistence import SessionPersistence


class SessionApplication(Application[Any, Any, Any, Any, Any, Any]):
    """PTB's ``Application``, with each update's states and data stored before the next step is taken.

    A stock ``Application`` hands its changes to the persistence every ``update_interval`` seconds; a process
    killed in between forgets them. This one does so after each update, and calls what handlers passed to
    ``on_commit`` only when the store has acknowledged everything.

    Use it as
    ``ApplicationBuilder().application_class(SessionApplication).persistence(SessionPersistence(…))``.
    """

    async def initialize(self) -> None:
        """Initialize as PTB does, but ask the store for a sign of life first.

        Raises:
            StoreUnavailable: It gives none.
        """
        await self._session_persistence.ping()
        await super().initialize()

    async def process_update(self, update: object) -> None:
        """Process the update, commit what it changed, then call what its handlers passed to ``on_commit``."""
        with collecting() as commit:
            await super().process_update(update)
            callbacks = commit.close()
        user, chat = _whose(update)
        try:
            await self.update_persistence()
            await self._session_persistence.commit(user_id=user, chat_id=chat)
            for callback in callbacks:
                await callback()
        except Exception as error:  # whatever it is, PTB's error handlers are told, as for a handler's
            await self.process_error(update, error)

    async def process_error(self, update: object, error: Exception, *args: Any, **kwargs: Any) -> bool:
        """Drop what the failed handler passed to ``on_commit``, then do as PTB does."""
        commit = current()
        if commit is not None:
            commit.discard()
        return await super().process_error(update, error, *args, **kwargs)

    @property
    def _session_persistence(self) -> SessionPersistence:
        if not isinstance(self.persistence, SessionPersistence):
            raise ConfigurationError(
                "SessionApplication needs a SessionPersistence: ApplicationBuilder().persistence(…)"
            )
        return self.persistence


def _whose(update: object) -> tuple[int | None, int | None]:
    """Return the ids of the update's user and chat."""
    if not isinstance(update, Update):
        return None, None
    user, chat = update.effective_user, update.effective_chat
    return None if user is None else user.id, None if chat is None else chat.id
