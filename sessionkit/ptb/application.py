"""An ``Application`` that commits after every update."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from telegram import Update
from telegram.ext import Application

from sessionkit.errors import Applied, CommitPending, ConfigurationError, SessionKitError, StoreError
from sessionkit.ptb.commits import collecting, current
from sessionkit.ptb.persistence import SessionPersistence
from sessionkit.ptb.private import take_changes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sessionkit.ptb.persistence import Held

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
        self._held_back: list[_Answers] = []
        self._sender: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        if isinstance(self.persistence, SessionPersistence):
            self.persistence.when_sent(self._wake.set)
        self._reported: Sequence[Exception] = ()

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
            callbacks = commit.close()
        answers = _Answers(update, callbacks, (), *_whose(update))
        try:
            answers.keys = self._hold_changes().keys
            await self._session_persistence.commit(answers.keys, user_id=answers.user, chat_id=answers.chat)
        except Exception as error:  # whatever it is, PTB's error handlers are told, as for a handler's
            if callbacks and _may_pass(error):
                self._hold_back(answers)
                error = CommitPending(f"answers are held back: {error}", applied=Applied.MAYBE)
            await self.process_error(update, error)
        else:
            if callbacks and any(map(answers.follows, self._held_back)):
                self._hold_back(answers)
            else:
                await self._send(answers)

    async def update_persistence(self) -> None:
        """Have stored what has changed, as PTB asks for now and then, and at its end.

        What fails goes to the error handlers, once; nothing is raised, or PTB would not reach its ``flush``.
        """
        errors: list[Exception] = [*self._hold_changes().errors]
        with suppress(SessionKitError):
            await self._session_persistence.commit()
        failures = list(self._session_persistence.failures().values())
        errors += [error for error in failures if error not in self._reported and error not in errors]
        self._reported = failures
        for error in errors:
            await self.process_error(None, error)

    async def process_error(self, update: object, error: Exception, *args: Any, **kwargs: Any) -> bool:
        """Drop what the failed handler passed to ``on_commit``, then do as PTB does."""
        commit = current()
        if commit is not None:
            commit.discard()
        return await super().process_error(update, error, *args, **kwargs)

    async def stop(self) -> None:
        """Stop as PTB does; answers that are still held back are not sent."""
        await super().stop()
        self._held_back.clear()
        sender = self._sender
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender])

    def _hold_changes(self) -> Held:
        cache = getattr(self.bot, "callback_data_cache", None)
        return self._session_persistence.hold(
            take_changes(self), self.bot_data, None if cache is None else cache.persistence_data
        )

    def _hold_back(self, answers: _Answers) -> None:
        self._held_back.append(answers)
        self._wake.set()
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_held_back())

    async def _send_held_back(self) -> None:
        """Send what the store has acknowledged, in order for each user and chat, until nothing is left."""
        try:
            await self._send_while_held_back()
        finally:
            self._sender = None

    async def _send_while_held_back(self) -> None:
        while self._held_back:
            self._wake.clear()
            waiting: list[_Answers] = []
            for answers in list(self._held_back):
                if any(map(answers.follows, waiting)):
                    waiting.append(answers)
                    continue
                try:
                    self._session_persistence.check(answers.keys, user_id=answers.user, chat_id=answers.chat)
                except SessionKitError as error:
                    if _may_pass(error):
                        waiting.append(answers)
                        continue
                    self._held_back.remove(answers)
                    await self.process_error(answers.update, error)
                else:
                    await self._send(answers)
                    self._held_back.remove(answers)
            if self._held_back:
                await self._wake.wait()

    async def _send(self, answers: _Answers) -> None:
        for callback in answers.callbacks:
            try:
                await callback()
            except Exception as error:  # one that fails must not keep back the others
                await self.process_error(answers.update, error)
        if answers.callbacks:
            # They may have changed something themselves, such as the data behind the buttons they sent.
            await self.update_persistence()

    @property
    def _session_persistence(self) -> SessionPersistence:
        if not isinstance(self.persistence, SessionPersistence):
            raise ConfigurationError(
                "SessionApplication needs a SessionPersistence: ApplicationBuilder().persistence(…)"
            )
        return self.persistence


@dataclass(eq=False)
class _Answers:
    """What one update's handlers passed to ``on_commit``, and what must be stored before it is called."""

    update: object
    callbacks: Sequence[Answer]
    keys: Sequence[str]
    user: int | None
    chat: int | None

    def follows(self, other: _Answers) -> bool:
        """Whether the other's answers must be sent before these: they are for the same user or chat."""
        return (self.user is not None and self.user == other.user) or (
            self.chat is not None and self.chat == other.chat
        )


def _whose(update: object) -> tuple[int | None, int | None]:
    """Return the ids of the update's user and chat."""
    if not isinstance(update, Update):
        return None, None
    user, chat = update.effective_user, update.effective_chat
    return None if user is None else user.id, None if chat is None else chat.id


def _may_pass(error: Exception) -> bool:
    return isinstance(error, StoreError) and error.temporary
