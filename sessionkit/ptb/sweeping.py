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
        failing: set[str] = set()
        while True:
            for what, look in self._looks.items():
                try:
                    await look()
                except Exception as error:  # whatever it is, it must not end the looking
                    if what not in failing:
                        logger.warning("%s: not read, trying again: %s", what, described(error))
                    failing.add(what)
                else:
                    failing.discard(what)
            await asyncio.sleep(self._interval)
