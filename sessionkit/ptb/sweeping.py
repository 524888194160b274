"""Looks for the deadlines of conversations that nobody may be watching any more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sessionkit.errors import CodecError, CorruptRecord, InvalidKey, SessionKitError
from sessionkit.store import read_all

if TYPE_CHECKING:
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.timeouts import Timeouts
    from sessionkit.ptb.work import WorkPlan

logger = logging.getLogger("sessionkit.ptb")


class Sweeper:
    """Reads all deadlines at the start and now and then, as the instance that set one may have been killed.

    Args:
        records: The store and what is known of it.
        plan: Says whether any conversation has a timeout.
        timeouts: Told of each deadline.
        interval: Seconds between two looks.
    """

    def __init__(self, records: Records, plan: WorkPlan, timeouts: Timeouts, interval: float) -> None:
        self._records = records
        self._plan = plan
        self._timeouts = timeouts
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if there is any use in it."""
        if any(handler.conversation_timeout for handler in self._plan.conversations):
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except SessionKitError as error:
                logger.warning("deadlines of conversations not read, trying again: %s", error)
            await asyncio.sleep(self._interval)

    async def _look(self) -> None:
        space, values = self._records.keys.timeouts, self._records.values

        def passed_over(key: str, error: CodecError) -> None:
            logger.warning("deadline %s is not readable: %s", key, error, extra={"key": key})

        async for key, record in read_all(self._records.store(), space.start, passed_over):
            try:
                name, *parts = space.parts(key)
                self._timeouts.watch(
                    str(name), tuple(parts), values.open(key, record.value).value["deadline"]
                )
            except (InvalidKey, TypeError, LookupError) as error:
                passed_over(key, CorruptRecord(str(error)))
            except CodecError as error:
                passed_over(key, error)
