"""Looks for what is stored and may be in nobody's hands any more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sessionkit.errors import CodecError, CorruptRecord, InvalidKey, SessionKitError
from sessionkit.store import read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sessionkit.ptb.records import Records
    from sessionkit.ptb.timeouts import Timeouts

logger = logging.getLogger("sessionkit.ptb")


class Sweeper:
    """Looks through the store at the start and now and then: another instance may have been killed.

    Args:
        looks: What is looked for, and how.
        interval: Seconds between two looks.
    """

    def __init__(self, looks: Mapping[str, Callable[[], Awaitable[None]]], interval: float) -> None:
        self._looks = looks
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            for what, look in self._looks.items():
                try:
                    await look()
                except SessionKitError as error:
                    logger.warning("%s: not read, trying again: %s", what, error)
            await asyncio.sleep(self._interval)


async def watch_all(records: Records, timeouts: Timeouts) -> None:
    """Have an alarm set for each deadline that is stored.

    Args:
        records: The store and what is known of it.
        timeouts: Told of each deadline.

    Raises:
        StoreError: The store could not be asked.
    """
    space = records.keys.timeouts

    def passed_over(key: str, error: CodecError) -> None:
        logger.warning("deadline %s is not readable: %s", key, error, extra={"key": key})

    async for key, record in read_all(records.store(), space.start, passed_over):
        try:
            name, *parts = space.parts(key)
            deadline = records.values.open(key, record.value).value["deadline"]
            timeouts.watch(str(name), tuple(parts), deadline)
        except (InvalidKey, TypeError, LookupError) as error:
            passed_over(key, CorruptRecord(str(error)))
        except CodecError as error:
            passed_over(key, error)
