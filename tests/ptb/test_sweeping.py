"""Looks for what another instance has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessionkit.errors import StoreUnavailable
from sessionkit.ptb.sweeping import Sweeper

if TYPE_CHECKING:
    import pytest


async def test_a_look_that_waits_keeps_no_other_waiting() -> None:
    began, looks = asyncio.Event(), asyncio.Semaphore(0)

    async def wait_for_ever() -> None:
        began.set()
        await asyncio.Event().wait()

    async def look() -> None:
        looks.release()

    sweeper = Sweeper({"what has no room": wait_for_ever, "what has": look}, 0.01)
    sweeper.start()
    async with asyncio.timeout(10):
        await began.wait()
        for _ in range(3):
            await looks.acquire()
        await sweeper.stop()
        await sweeper.stop()


async def test_a_look_that_fails_is_told_once_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    outcomes, looked = [True, False, False, True, False, True], asyncio.Event()

    async def look() -> None:
        if not outcomes:
            looked.set()
        elif not outcomes.pop():
            raise StoreUnavailable("for now")

    sweeper = Sweeper({"what waits": look}, 0.001)
    sweeper.start()
    async with asyncio.timeout(10):
        await looked.wait()
    await sweeper.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "what waits: not read, trying again: for now" in caplog.text
