"""How long a bot takes to start, and how much memory, by the number of users it has stored."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.ptb.process import run_process

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from benchmarks.ptb.bot import Entrant


@dataclass(frozen=True)
class Start:
    """One entrant's figures; each is the median over the rounds.

    Attributes:
        users: How many users are stored.
        entrant: Its name.
        kind: Its kind.
        seconds: From building the application to its being initialized; imports are not counted.
        peak_mb: The most memory the process had until then, in megabytes; None where the system does not say.
    """

    users: int
    entrant: str
    kind: str
    seconds: float
    peak_mb: float | None


async def measure_start(
    entrants: Sequence[Entrant],
    users: int,
    rounds: int,
    draw: random.Random,
    tell: Callable[[str], None],
) -> list[Start]:
    """Let the entrants start in turn, each time in a fresh process.

    Args:
        entrants: Who takes part; what they keep is filled already.
        users: How many users are stored.
        rounds: How often each starts.
        draw: Decides the order of turns.
        tell: Told what goes on.
    """
    seen: dict[Entrant, list[dict[str, Any]]] = {entrant: [] for entrant in entrants}
    for number in range(rounds):
        tell(f"start with {users:,} users, round {number + 1}")
        for entrant in draw.sample(entrants, len(entrants)):
            seen[entrant].append(await run_process("start", entrant))
    return [
        Start(
            users,
            entrant.name,
            entrant.kind,
            round(statistics.median(each["seconds"] for each in figures), 4),
            None
            if figures[0]["peak_mb"] is None
            else round(statistics.median(each["peak_mb"] for each in figures), 1),
        )
        for entrant, figures in seen.items()
    ]
