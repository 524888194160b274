"""Waiting for servers to agree, by asking them until they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from sessionkit.errors import StoreUnavailable

Missing: TypeAlias = Callable[[], str]
"""Says what is still missing, in words; that it cannot be asked is such an answer, too."""

_POLL_SECONDS: Final = 0.02


def wait_for(missing: Missing, seconds: float) -> None:
    """Block until ``missing()`` is empty.

    Args:
        missing: Is asked again and again.
        seconds: How long to go on asking.

    Raises:
        StoreUnavailable: Something is still missing after that; the message says what.
    """
    deadline = time.monotonic() + seconds
    while what := _answer(missing):
        _give_up_after(deadline, what, seconds)
        time.sleep(_POLL_SECONDS)


async def wait_for_async(missing: Missing, seconds: float) -> None:
    """Wait as ``wait_for`` does, asking in a thread.

    Raises:
        StoreUnavailable: As ``wait_for``.
    """
    deadline = time.monotonic() + seconds
    while what := await asyncio.to_thread(_answer, missing):
        _give_up_after(deadline, what, seconds)
        await asyncio.sleep(_POLL_SECONDS)


def _answer(missing: Missing) -> str:
    try:
        return missing()
    except StoreUnavailable as error:
        return str(error)


def _give_up_after(deadline: float, what: str, seconds: float) -> None:
    if time.monotonic() > deadline:
        raise StoreUnavailable(f"after {seconds:g} seconds: {what}")
