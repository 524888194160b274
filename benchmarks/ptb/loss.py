"""How many answered steps a bot has forgotten after ``kill -9``."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Final

from benchmarks.ptb.process import READY, open_process, run_process

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from benchmarks.ptb.bot import Entrant

_USERS: Final = 50


@dataclass(frozen=True)
class Loss:
    """What one entrant forgot, in all rounds together.

    Attributes:
        entrant: Its name.
        answered: Steps whose answer was sent before the process was killed.
        lost: How many of them the next process knows nothing of.
    """

    entrant: str
    answered: int
    lost: int


async def measure_loss(
    entrants: Sequence[Entrant],
    steps: int,
    rate: float,
    rounds: int,
    draw: random.Random,
    tell: Callable[[str], None],
) -> list[Loss]:
    """Have each bot killed in the middle of its work, and look what it still knows afterwards.

    Args:
        entrants: Who takes part; what they keep must be empty.
        steps: How many steps its users take.
        rate: How many they take in a second.
        rounds: How often each is killed.
        draw: Decides the order of turns and the moment, after two to three fifths of the steps.
        tell: Told what goes on.
    """
    answered: Counter[Entrant] = Counter()
    lost: Counter[Entrant] = Counter()
    before: dict[Entrant, Counter[int]] = {entrant: Counter() for entrant in entrants}
    for _ in range(rounds):
        for entrant in draw.sample(entrants, len(entrants)):
            tell(f"kill -9 of {entrant.name}")
            seen = await _kill_amid(entrant, steps, rate, int(steps * draw.uniform(0.4, 0.6)))
            stored = await _count(entrant)
            answered[entrant] += seen.total()
            # What was stored and not answered any more is no loss, and makes up for none of another user.
            lost[entrant] += (before[entrant] + seen - stored).total()
            before[entrant] = stored
    return [Loss(entrant.name, answered[entrant], lost[entrant]) for entrant in entrants]


async def _kill_amid(entrant: Entrant, steps: int, rate: float, after: int) -> Counter[int]:
    """Return how many steps of each user were answered until the process was killed."""
    process = await open_process("serve", entrant)
    assert process.stdin is not None
    assert process.stdout is not None
    seen: Counter[int] = Counter()
    try:
        line = await process.stdout.readline()
        if line.decode().strip() != READY:
            raise SystemExit(f"{entrant.name}: the bot did not start")
        sender = asyncio.create_task(_send(process.stdin, steps, rate))
        while seen.total() < after:
            seen[int(await process.stdout.readline())] += 1
        sender.cancel()
    finally:
        process.kill()
        # What it has said before is in the pipe.
        seen.update(int(line) for line in (await process.stdout.read()).split())
        await process.wait()
    return seen


async def _send(to: asyncio.StreamWriter, steps: int, rate: float) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number, user in zip(range(steps), cycle(range(1, _USERS + 1)), strict=False):
        await asyncio.sleep(started + number / rate - loop.time())
        to.write(f"{user}\n".encode())
    await asyncio.Event().wait()


async def _count(entrant: Entrant) -> Counter[int]:
    if entrant.kind == "application":  # it reads a user's data with the next update
        entrant = replace(entrant, kind="eager")
    return Counter({int(user): steps for user, steps in (await run_process("count", entrant)).items()})
