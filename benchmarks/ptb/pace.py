"""How many updates a second the bot processes, beside what it would without any persistence."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.ptb.process import READY, open_process

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.ptb.bot import Entrant

CHATS: Final = ("private", "group")

RATIO_BAR: Final = 0.7
"""How many times the rate without persistence is asked of ours, with concurrent updates."""


@dataclass(frozen=True)
class Pace:
    """One entrant's figures; each is the median over the rounds.

    Attributes:
        chats: ``"private"``: user and chat are one; ``"group"``: they are two.
        concurrent: How many updates were processed at the same time.
        answers: Whether the bot answered each of them.
        entrant: Its name.
        rate: Updates per second, until all that they changed is stored.
        ratio: That beside the first entrant's, taken round by round.
        cpu_ratio: The same for equal time on the processor, which other processes disturb less.
        cpu_us: Microseconds on the processor, without the server's, per update.
        lost: How many steps, in chats of both kinds, are not in the bot's memory in the end.
        rates: The rate of each round.
    """

    chats: str
    concurrent: int
    answers: bool
    entrant: str
    rate: float
    ratio: float
    cpu_ratio: float
    cpu_us: float
    lost: int
    rates: list[int]


async def measure_pace(
    entrants: Sequence[Entrant],
    concurrent: int,
    updates: int,
    rounds: int,
    draw: random.Random,
    tell: Callable[[str], None],
    telegram: str = "",
) -> list[Pace]:
    """Let the entrants take turns with the same updates, private ones and such of groups.

    Each is a process of its own, so that none has its garbage collector look through another's memory. A
    round has one update of each of so many users, in a queue that is full from the start. It is over once
    what they changed is stored.

    Args:
        entrants: Who takes part; the first one is the reference.
        concurrent: How many updates are processed at the same time.
        updates: How many there are in each round.
        rounds: Measured rounds, after one to warm up.
        draw: Decides the order of turns.
        tell: Told what goes on.
        telegram: The URL of a Bot API server, to whose users the bots answer, in private chats; empty: they
            answer nothing.
    """
    bots = [await open_process("pace", each, concurrent, updates, telegram) for each in entrants]
    everywhere = CHATS[:1] if telegram else CHATS
    try:
        for bot in bots:
            if await _line(bot) != READY:
                raise SystemExit("a bot did not start")
        seen = {}
        for chats in everywhere:
            tell(f"updates of {chats} chats, {concurrent} at once{', each answered' if telegram else ''}")
            seen[chats] = await _race(bots, chats, rounds, draw)
        lost = [await _ask(bot) for bot in bots]
    finally:
        for bot in bots:
            if bot.returncode is None:
                bot.kill()
            await bot.wait()
    return [
        pace
        for chats in everywhere
        for pace in _rows(chats, concurrent, bool(telegram), updates, entrants, seen[chats], lost)
    ]


async def _race(
    bots: Sequence[asyncio.subprocess.Process], chats: str, rounds: int, draw: random.Random
) -> list[list[list[float]]]:
    """Return for each bot the seconds of each round, by the clock and of the processor."""
    seen: list[list[list[float]]] = [[] for _ in bots]
    for _ in range(rounds + 1):
        for turn in draw.sample(range(len(bots)), len(bots)):
            seen[turn].append(await _ask(bots[turn], chats))
    return [measured for _, *measured in seen]


async def _ask(bot: asyncio.subprocess.Process, line: str | None = None) -> Any:
    """Return the answer to a line, or to the end of input."""
    assert bot.stdin is not None
    if line is None:
        bot.stdin.close()
    else:
        bot.stdin.write(f"{line}\n".encode())
    return json.loads(await _line(bot))


async def _line(bot: asyncio.subprocess.Process) -> str:
    assert bot.stdout is not None
    return (await bot.stdout.readline()).decode().strip()


def _rows(
    chats: str,
    concurrent: int,
    answers: bool,
    updates: int,
    entrants: Sequence[Entrant],
    seen: Sequence[list[list[float]]],
    lost: Sequence[int],
) -> Iterator[Pace]:
    for entrant, measured, missing in zip(entrants, seen, lost, strict=True):
        pairs = list(zip(measured, seen[0], strict=True))
        ratio, cpu_ratio = (
            statistics.median(theirs[at] / mine[at] for mine, theirs in pairs) for at in (0, 1)
        )
        rates = [updates / seconds for seconds, _ in measured]
        yield Pace(
            chats=chats,
            concurrent=concurrent,
            answers=answers,
            entrant=entrant.name,
            rate=round(statistics.median(rates), 1),
            ratio=round(ratio, 3),
            cpu_ratio=round(cpu_ratio, 3),
            cpu_us=round(statistics.median(cpu for _, cpu in measured) / updates * 1e6, 1),
            lost=missing,
            rates=[round(rate) for rate in rates],
        )
