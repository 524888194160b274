"""``DurableInbox``: a queue of updates that a killed process does not take along."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from telegram import Update
from telegram.error import NetworkError

from sessionkit.arguments import check_whole
from sessionkit.errors import ConfigurationError, SessionKitError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("sessionkit.ptb")

DEFAULT_MAXSIZE: Final = 1000
DEFAULT_ATTEMPTS: Final = 3


class DurableInbox(asyncio.Queue[object]):
    """The update queue of a ``SessionApplication`` that stores each update before Telegram is told.

    PTB acknowledges an update once ``put`` returns: by webhook with its answer, by polling with the next
    request. So one that waits here when the process is killed is not lost: whoever is alive takes it up. Each
    update changes PTB's data once among all instances.

    Use it as ``ApplicationBuilder().update_queue(DurableInbox()).application_class(SessionApplication)…``.

    Args:
        maxsize: How many updates wait or are processed here at most; then ``put`` waits, and Telegram too.
        attempts: How often an update is taken up again whose processing was not completed, as by a process
            that was killed by it. Then it is set aside, and the error handlers are told.

    Raises:
        ConfigurationError: An argument is not above zero.
    """

    def __init__(self, maxsize: int = DEFAULT_MAXSIZE, *, attempts: int = DEFAULT_ATTEMPTS) -> None:
        for name, number in (("maxsize", maxsize), ("attempts", attempts)):
            check_whole(name, number)
        super().__init__(maxsize)
        # PTB takes updates out at once where it processes several, and has them wait in tasks: those count.
        self._room = asyncio.Semaphore(maxsize)
        self._without_room = 0
        self.attempts = attempts
        self._keep: Callable[[Update], Awaitable[bool]] | None = None
        self._leave: Callable[[Update], object] | None = None

    def bind(self, keep: Callable[[Update], Awaitable[bool]], leave: Callable[[Update], object]) -> None:
        """Have each update stored before it is queued; for the application.

        Args:
            keep: Stores an update, and says whether it is to be queued.
            leave: Told of one that is not queued though it was to be, as ``put`` was cancelled.

        Raises:
            ConfigurationError: It is the inbox of another application.
        """
        if self._keep is not None:
            raise ConfigurationError("a DurableInbox belongs to one application: make another one")
        self._keep, self._leave = keep, leave

    async def put(self, item: object) -> None:
        """Store an update, then queue it; anything else is queued as it is.

        Raises:
            NetworkError: The store did not acknowledge it. PTB's polling asks Telegram for it again then, and
                Telegram sends it again to a webhook whose answer is no success.
            ConfigurationError: The application is no ``SessionApplication``.
        """
        if isinstance(item, Update):
            if self._keep is None:
                error = ConfigurationError(
                    "a DurableInbox works for a SessionApplication:"
                    " build it with ApplicationBuilder().application_class(SessionApplication)"
                )
                logger.critical("no update is received: %s", error)  # PTB's polling ends without a word
                raise error
            try:
                if not await self._keep(item):
                    return
            except SessionKitError as error:
                raise NetworkError(f"update {item.update_id} could not be stored: {error}") from error
        await self.put_kept(item)

    async def put_kept(self, item: object) -> None:
        """Queue what is stored already."""
        try:
            await self._room.acquire()
            try:
                await super().put(_Kept(item))
            except asyncio.CancelledError:
                self._room.release()
                raise
        except asyncio.CancelledError:
            if self._leave is not None and isinstance(item, Update):
                self._leave(item)
            raise

    def put_nowait(self, item: object) -> None:
        """Queue anything but an update, which is to be stored first, by ``put``.

        Raises:
            ConfigurationError: It is an update.
        """
        if isinstance(item, Update):
            raise ConfigurationError("an update is to be stored first: use await inbox.put(update)")
        super().put_nowait(item)
        if not isinstance(item, _Kept):
            self._without_room += 1

    def task_done(self) -> None:
        """Make room for another item, as this one is processed; see ``asyncio.Queue``."""
        super().task_done()
        if self._without_room:
            self._without_room -= 1
        else:
            self._room.release()

    def get_nowait(self) -> object:
        """Return the next item, as ``asyncio.Queue`` does; ``get`` comes here, too."""
        item = super().get_nowait()
        return item.item if isinstance(item, _Kept) else item


class _Kept(NamedTuple):
    """What may be queued."""

    item: object
