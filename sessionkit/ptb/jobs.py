"""A job queue whose jobs take their turn like updates."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from telegram.ext import Job, JobQueue

from sessionkit.errors import SessionKitError
from sessionkit.ptb.private import Timeout, read_timeout

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


@runtime_checkable
class Host(Protocol):
    """What a job queue needs of its application."""

    def editing(
        self, *, user_id: int | None = None, chat_id: int | None = None, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[None]:
        """See ``SessionApplication.editing``."""
        ...

    def time_out_later(self, timeout: Timeout, seconds: float) -> None:
        """See ``SessionApplication.time_out_later``."""
        ...


class SessionJobQueue(JobQueue[Any]):
    """PTB's ``JobQueue`` for a ``SessionApplication``, which makes one by itself.

    A job with a ``user_id`` or ``chat_id`` is run while it is that user's or chat's turn, with their data as
    they are stored, and what it changed is stored before the next turn. Timeouts of persistent conversations
    are stored in place of being kept here. The jobs themselves are kept in this process's memory, as by PTB:
    each instance has its own.
    """

    @staticmethod
    async def job_callback(job_queue: JobQueue[Any], job: Job[Any]) -> None:
        """Run a job in its turn."""
        application = job_queue.application
        if not isinstance(application, Host):
            await job.run(application)
            return
        try:
            async with application.editing(user_id=job.user_id, chat_id=job.chat_id, wait=None):
                await job.run(application)
        except SessionKitError as error:
            await application.process_error(None, error, job=job)

    def run_once(
        self,
        callback: Any,
        when: float | dt.timedelta | dt.datetime | dt.time,
        data: object | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Job[Any]:
        """Run a job once, see ``JobQueue.run_once``."""
        timeout = read_timeout(callback, data)
        application = self.application
        if timeout is None or not timeout.handler.persistent or not isinstance(application, Host):
            return super().run_once(callback, when, data, *args, **kwargs)
        assert isinstance(when, (int, float, dt.timedelta))
        application.time_out_later(timeout, when.total_seconds() if isinstance(when, dt.timedelta) else when)
        return _StoredTimeout(callback, data)


class _StoredTimeout(Job[Any]):
    """Stands for a timeout that is stored; a later one or the conversation's end takes its place."""

    def schedule_removal(self) -> None:
        """Do nothing."""
