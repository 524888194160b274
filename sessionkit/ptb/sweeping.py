"""Looks for what is stored and may be in nobody's hands any more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sessionkit.errors import described

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger("sessionkit.ptb")


class Sweeper:
    """Looks through the store at the start and now and then: another instance may have been killed.

    Args:
        looks: What is looked for, and how; none waits for another.
        interval: Seconds between two looks for the same.
    """

    def __init__(self, looks: Mapping[str, Callable[[], Awaitable[None]]], interval: float) -> None:
        self._looks = looks
        self._interval = interval
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._run(what, look)) for what, look in self._looks.items()]

    async def stop(self) -> None:
        """End."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, what: str, look: Callable[[], Awaitable[None]]) -> None:
        is_failing = False
        while True:
            try:
                await look()
            except Exception as error:  # whatever it is, it must not end the looking
                if not is_failing:
                    logger.warning("%s: not read, trying again: %s", what, described(error))
                is_failing = True
            else:
                is_failing = False
            await asyncio.sleep(self._interval)
