"""How long it takes until one changed user among many is saved."""

from __future__ import annotations

import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sessionkit.ptb import SessionApplication

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from benchmarks.ptb.bot import AnyApplication, Entrant

RATIO_BAR: Final = 100.0
"""How many times faster than the first entrant ours must be."""


@dataclass(frozen=True)
class Save:
    """One entrant's figures; each is the median over the rounds.

    Attributes:
        users: How many users are stored.
        entrant: Its name.
        milliseconds: Until one user is saved.
        ratio: How many times faster than the first entrant that is, taken round by round.
    """

    users: int
    entrant: str
    milliseconds: float
    ratio: float


async def measure_save(
    entrants: Sequence[Entrant],
    users: int,
    rounds: int,
    draw: random.Random,
    tell: Callable[[str], None],
) -> list[Save]:
    """Let the entrants save one user after the other, in turn.

    A ``SessionApplication`` takes the user's turn and reads the data first, as it does with each update.

    Args:
        entrants: Who takes part; what they keep is filled already.
        users: How many users are stored.
        rounds: How many users each saves, after one to warm up.
        draw: Decides the order of turns, and the users.
        tell: Told what goes on.
    """
    tell(f"load {users:,} users")
    seen: list[list[float]] = [[] for _ in entrants]
    async with AsyncExitStack() as stack:
        bots = [await stack.enter_async_context(entrant.build()) for entrant in entrants]
        tell(f"save one user among {users:,}")
        for _ in range(rounds + 1):
            user = draw.randint(1, users)
            for turn in draw.sample(range(len(bots)), len(bots)):
                seen[turn].append(await _save(bots[turn], user))
    reference = seen[0][1:]
    return [
        Save(
            users,
            entrant.name,
            round(statistics.median(mine) * 1e3, 3),
            round(statistics.median(theirs / each for each, theirs in zip(mine, reference, strict=True)), 1),
        )
        for entrant, (_, *mine) in zip(entrants, seen, strict=True)
    ]


async def _save(application: AnyApplication, user: int) -> float:
    """Return how many seconds it took."""
    if isinstance(application, SessionApplication):
        started = time.perf_counter()
        async with application.user_data_of(user) as data:
            data["steps"] += 1
        return time.perf_counter() - started
    persistence = application.persistence
    assert persistence is not None
    data = application.user_data[user]
    data["steps"] += 1
    # Else PicklePersistence finds that it is no other than it was.
    changed = dict(data)
    started = time.perf_counter()
    await persistence.update_user_data(user, changed)
    return time.perf_counter() - started
