"""What a conformance test class provides, and what each of its tests is given."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence

    from sessionkit.store import SessionStore


class StoreTests:
    """The base of the kit's test classes. A subclass must provide ``open_store`` and may provide the rest."""

    pytestmark = pytest.mark.asyncio

    virtual_time = False
    """Whether ``advance`` moves a clock of the test's own instead of waiting."""

    def open_store(self) -> SessionStore:
        """Must return a new store object over the same records as the others of this test.

        A store whose scope is ``INSTANCE`` starts empty each time.
        """
        raise AssertionError(f"{type(self).__name__} must define open_store()")

    async def advance(self, seconds: float) -> None:
        """Let this much of the store's time pass; by default really wait."""
        await asyncio.sleep(seconds)

    async def time_to_live(self, store: SessionStore, key: str) -> float | None:
        """May return the seconds a record has left, looked up behind the store's back; None: it cannot."""
        return None

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[SessionStore]:
        """The store under test, closed afterwards."""
        store = self.open_store()
        yield store
        await store.aclose()

    @pytest.fixture
    def prefix(self) -> str:
        """A prefix of keys that no other test uses."""
        return f"conformance-{uuid.uuid4().hex}:"

    @pytest.fixture
    def key(self, prefix: str) -> str:
        """A key that no other test uses."""
        return f"{prefix}key"


async def give_some_up(tasks: Sequence[asyncio.Task[object]], number: int, chance: random.Random) -> None:
    """Cancel some of the tasks at random moments, and see all of them end, without another error."""
    doomed = chance.sample(tasks, number)
    while doomed:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        doomed.pop().cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
