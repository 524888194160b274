"""A run of ``python -m benchmarks ptb``: its parts, its tables and its bars."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import random
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from benchmarks.ptb.bot import TOKEN, Entrant
from benchmarks.ptb.loss import measure_loss
from benchmarks.ptb.pace import RATIO_BAR as PACE_BAR
from benchmarks.ptb.pace import measure_pace
from benchmarks.ptb.process import run_process
from benchmarks.ptb.save import RATIO_BAR as SAVE_BAR
from benchmarks.ptb.save import measure_save
from benchmarks.ptb.start import measure_start
from benchmarks.report import WIDTH, number
from sessionkit.testing.botapi import BotApiServer
from sessionkit.testing.servers import RedisServer, find_servers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from benchmarks.ptb.bot import Kind
    from benchmarks.ptb.loss import Loss
    from benchmarks.ptb.pace import Pace
    from benchmarks.ptb.save import Save
    from benchmarks.ptb.start import Start
    from sessionkit.testing.servers import ServerBinary

PARTS: Final = ("loss", "start", "save", "pace")

START_BAR: Final = 1.5
"""How many times as long as with the fewest users a lazy start may take with the most of them."""

_SLOWER: Final = 10
"""How many times fewer updates make a round where one is processed after the other."""

_OURS: Final[tuple[Kind, ...]] = ("eager", "application")
_STARTS: Final[tuple[Kind, ...]] = ("eager", "lazy", "application")


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: Measured rounds of each entrant.
        starts: How often each bot is started.
        kills: How often each bot is killed.
        steps: How many steps a bot's users take, that is killed in the middle of them.
        rate: How many they take in a second.
        users: With how many stored users a bot is started.
        among: How many users are stored, where one is saved.
        updates: How many updates make a round.
        answered: How many where each is answered.
        concurrent: How many of them are processed at the same time.
        seed: Decides the order of turns.
    """

    rounds: int
    starts: int
    kills: int
    steps: int
    rate: float
    users: Sequence[int]
    among: int
    updates: int
    answered: int
    concurrent: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Bar:
    """What is asked of sessionkit, and what was seen.

    Attributes:
        work: Of what.
        entrant: Of whom.
        asked: In words.
        seen: What was measured.
        met: Whether that is enough.
    """

    work: str
    entrant: str
    asked: str
    seen: str
    met: bool


@dataclass
class Figures:
    """What was measured; an empty list: that part was left out."""

    losses: list[Loss] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    paces: list[Pace] = field(default_factory=list)

    def bars(self) -> list[Bar]:
        """Return how they stand to what is asked."""
        return [*self._loss_bars(), *self._start_bars(), *self._save_bars(), *self._pace_bars()]

    def _loss_bars(self) -> Iterator[Bar]:
        for loss in self.losses:
            if loss.entrant.startswith("SessionApplication"):
                yield Bar("kill -9", loss.entrant, "nothing lost", f"{loss.lost:,}", not loss.lost)

    def _start_bars(self) -> Iterator[Bar]:
        for few in self.starts:
            many = self.starts[-1].users
            if few.kind in {"lazy", "application"} and few.users == self.starts[0].users < many:
                [last] = [each for each in self.starts if (each.users, each.entrant) == (many, few.entrant)]
                ratio = last.seconds / few.seconds
                asked = f"with {many:,} users at most {START_BAR:g} times as long as with {few.users:,}"
                yield Bar("start", few.entrant, asked, f"{ratio:.2f}", ratio <= START_BAR)

    def _save_bars(self) -> Iterator[Bar]:
        for save in self.saves[1:]:
            asked = f"at least {SAVE_BAR:g} times faster than {self.saves[0].entrant}"
            work = f"save 1 of {save.users:,} users"
            yield Bar(work, save.entrant, asked, f"{save.ratio:,.0f}", save.ratio >= SAVE_BAR)

    def _pace_bars(self) -> Iterator[Bar]:
        for pace in self.paces:
            if pace.concurrent > 1 and pace.entrant.startswith("Session"):
                asked = f"at least {PACE_BAR:g} times {self.paces[0].entrant}"
                work = f"{pace.chats} chats, {pace.concurrent} updates at once"
                if pace.answers:
                    work += ", each answered"
                yield Bar(work, pace.entrant, asked, f"{pace.ratio:.3f}", pace.ratio >= PACE_BAR)


def compare_ptb(scale: Scale, *, server: str, parts: Collection[str], save_to: Path | None) -> None:
    """Measure, print the tables and the bars, and save all figures if asked to.

    Args:
        scale: How much is measured.
        server: The name of a server, one of ``SERVER_NAMES``; without it Redis takes no part.
        parts: Which of ``PARTS``.
        save_to: Where to write JSON.
    """
    logging.getLogger("sessionkit").setLevel(logging.CRITICAL)
    binary = next((found for found in find_servers() if found.name == server), None)
    figures = asyncio.run(_measure(binary, scale, parts))
    console = Console(width=WIDTH, highlight=False)
    for table in _tables(figures):
        console.print(table)
    console.print(_bars(figures.bars()))
    if binary is None:
        console.print(f"left out: Redis, as there is no server {server}")
    console.print(f"seed {scale.seed}")
    if save_to is not None:
        made = {
            "python": platform.python_version(),
            "system": platform.system(),
            "cores": os.cpu_count(),
            "python-telegram-bot": version("python-telegram-bot"),
            "server": None if binary is None else {"name": binary.name, "version": binary.version},
            "scale": asdict(scale),
            "bars": [asdict(bar) for bar in figures.bars()],
            **asdict(figures),
        }
        save_to.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


async def _measure(binary: ServerBinary | None, scale: Scale, parts: Collection[str]) -> Figures:
    figures, draw = Figures(), random.Random(scale.seed)
    if "loss" in parts:
        with _places(binary) as places:
            entrants = [Entrant("none"), places.pickle, *places.on_stores(_OURS, apart=True)]
            figures.losses = await measure_loss(entrants, scale.steps, scale.rate, scale.kills, draw, _tell)
    if "start" in parts:
        for users in scale.users:
            with _places(binary) as places:
                await _fill(places, users)
                entrants = [Entrant("none"), places.pickle, *places.on_stores(_STARTS)]
                figures.starts += await measure_start(entrants, users, scale.starts, draw, _tell)
    if "save" in parts:
        with _places(binary) as places:
            await _fill(places, scale.among)
            entrants = [places.pickle, *places.on_stores(_OURS)]
            figures.saves = await measure_save(entrants, scale.among, scale.rounds, draw, _tell)
    if "pace" in parts:
        figures.paces = await _measure_paces(binary, scale, draw)
    return figures


async def _measure_paces(binary: ServerBinary | None, scale: Scale, draw: random.Random) -> list[Pace]:
    paces: list[Pace] = []
    for concurrent in scale.concurrent:
        with _places(binary) as places:
            # Not PicklePersistence: it writes its whole file for each changed user, for minutes a round.
            references = [Entrant("none"), Entrant("idle"), Entrant("floor"), *places.on_stores(["floor"])]
            entrants = [*references, *places.on_stores(_OURS, apart=True)]
            updates = scale.updates if concurrent > 1 else scale.updates // _SLOWER
            paces += await measure_pace(entrants, concurrent, updates, scale.rounds, draw, _tell)
    async with BotApiServer(token=TOKEN) as api:
        for user in range(1, scale.answered + 1):
            api.user(user)
        for concurrent in scale.concurrent:
            with _places(binary) as places:
                entrants = [Entrant("none"), places.pickle, *places.on_stores(_OURS, apart=True)]
                paces += await measure_pace(
                    entrants, concurrent, scale.answered, scale.rounds, draw, _tell, api.base_url
                )
    return paces


@dataclass(frozen=True)
class _Places:
    """Where data can be kept: a folder of its own and, where there is one, a server of its own."""

    folder: Path
    server: RedisServer | None

    @property
    def pickle(self) -> Entrant:
        return Entrant("pickle", str(self.folder / "bot.pickle"))

    def on_stores(self, kinds: Sequence[Kind], *, apart: bool = False) -> list[Entrant]:
        """Return entrants on SQLite and Redis, all on the same data, or each on its own."""
        entrants = [
            Entrant(kind, f"sqlite:///{self.folder / (f'{kind}.db' if apart else 'bot.db')}")
            for kind in kinds
        ]
        if self.server is not None:
            entrants += [Entrant(kind, self.server.url(db if apart else 0)) for db, kind in enumerate(kinds)]
        return entrants


@contextmanager
def _places(binary: ServerBinary | None) -> Iterator[_Places]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None if binary is None else stack.enter_context(RedisServer(binary))
        yield _Places(folder, server)


async def _fill(places: _Places, users: int) -> None:
    for entrant in (places.pickle, *places.on_stores(["eager"])):
        _tell(f"fill {entrant.name} with {users:,} users")
        await run_process("fill", entrant, users)


def _tables(figures: Figures) -> Iterator[Table]:
    if figures.losses:
        yield _table(
            "kill -9 in the middle",
            ("entrant", "answered", "lost"),
            ((loss.entrant, f"{loss.answered:,}", f"{loss.lost:,}") for loss in figures.losses),
        )
    if figures.starts:
        yield _table(
            "start",
            ("entrant", "users", "seconds", "peak MB"),
            (
                (start.entrant, f"{start.users:,}", f"{start.seconds:.3f}", number(start.peak_mb, 0))
                for start in figures.starts
            ),
        )
    if figures.saves:
        yield _table(
            "one user saved",
            ("entrant", "users", "ms", "times faster"),
            (
                (save.entrant, f"{save.users:,}", f"{save.milliseconds:,.2f}", f"{save.ratio:,.1f}")
                for save in figures.saves
            ),
        )
    if figures.paces:
        names = (
            "entrant",
            "chats",
            "at once",
            "answers",
            "updates/s",
            "ratio",
            "CPU ratio",
            "CPU µs/update",
            "lost",
        )
        yield _table(
            "updates per second",
            names,
            (
                (
                    pace.entrant,
                    pace.chats,
                    str(pace.concurrent),
                    "yes" if pace.answers else "no",
                    f"{pace.rate:,.0f}",
                    f"{pace.ratio:.3f}",
                    f"{pace.cpu_ratio:.3f}",
                    f"{pace.cpu_us:,.0f}",
                    f"{pace.lost:,}",
                )
                for pace in figures.paces
            ),
        )


def _table(title: str, names: Sequence[str], rows: Iterator[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for at, name in enumerate(names):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _bars(bars: Sequence[Bar]) -> Table:
    table = Table("work", "entrant", "asked", "seen", "", title="sessionkit", title_justify="left")
    for bar in bars:
        table.add_row(bar.work, bar.entrant, bar.asked, bar.seen, "met" if bar.met else "MISSED")
    return table


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
