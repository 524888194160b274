"""All of sessionkit at once: a session saved and loaded, beside redis-py and msgpack by hand."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import msgpack

from benchmarks.entrants import pooled
from benchmarks.measure import Contender, compare
from benchmarks.rows import Bar
from sessionkit import SessionService, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Result

STACK_CALLERS: Final = 128

RATIO_BAR: Final = 5.0
"""How many times the throughput of doing it by hand is asked of sessionkit."""

SESSION = {"audio": "CQACAgIAAxkBAAI", "amount": 150, "currency": "EUR", "tags": ["a", "b"], "step": 3}
_IDLE_MS: Final = 300_000


async def compare_stacks(url: str, rounds: int, seconds: float) -> list[Result]:
    """Let them take turns; the reference comes first.

    Args:
        url: The server.
        rounds: Measured rounds of each.
        seconds: How long one measurement goes on.
    """
    async with AsyncExitStack() as stack:
        sessions = SessionService(await stack.enter_async_context(open_store(url)))
        redis = await stack.enter_async_context(pooled(url))

        async def by_hand(number: int) -> object:
            key = f"by-hand:{number}"
            await redis.set(key, msgpack.packb(SESSION), px=_IDLE_MS)
            return msgpack.unpackb(await redis.get(key))

        async def ours(number: int) -> object:
            await sessions.create_session(number, SESSION, replace=True)
            return await sessions.get_session(number)

        contenders = [Contender("redis-py and msgpack", by_hand), Contender("sessionkit", ours)]
        return await compare(contenders, STACK_CALLERS, rounds, seconds)


def hold_stack_to_bar(loop: str, results: Sequence[Result]) -> Bar:
    """Return how sessionkit stands to what is asked."""
    reference, ours = results
    ratio = ours.ratio_to(reference)
    asked = f"at least {RATIO_BAR:g} times {reference.name}"
    return Bar(loop, "save and load", STACK_CALLERS, asked, f"{ratio:.2f}", ratio >= RATIO_BAR)
