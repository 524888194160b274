"""The bot's process is killed again and again during outages; its journal's file keeps what it promised."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sessionkit.registry import open_driver
from tests.resilience.waiting import PATIENCE

if TYPE_CHECKING:
    from sessionkit.store import Record
    from sessionkit.testing.servers import RedisServer

CHILD = [sys.executable, "-W", "error", str(Path(__file__).with_name("outage_child.py"))]


@dataclass
class Heard:
    """What the processes said.

    Attributes:
        acknowledged: The last write of each key that was acknowledged and not reported since, and its number.
        tried: The last write of each kind and key that was begun, by its number.
        counts: How often each thing was said.
        lost: What is missing.
    """

    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict)
    tried: dict[tuple[str, str], int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def take(self, line: str) -> str:
        """Take note of a line, and return it."""
        match line.split():
            case ["put?" | "delete?" as kind, key, number]:
                self.tried[kind, key] = int(number)
            case ["put" | "delete" as kind, key, number]:
                self.counts["acknowledged"] += 1
                self.acknowledged[key] = (kind, int(number))
            case ["read", key, number]:
                self.check(key, None if number == "none" else int(number))
            case ["conflict", key]:
                self.counts["conflicts"] += 1
                self.acknowledged.pop(key, None)
            case ["replayed", number]:
                self.counts["replayed"] += int(number)
            case ["state", state]:
                self.counts[state] += 1
            case _:
                self.lost.append(line)
        return line

    def check(self, key: str, found: int | None) -> None:
        """Compare what stands in a record with what was acknowledged last."""
        kind, number = self.acknowledged.get(key, ("delete", -1))
        if found is None:
            # Deleted, or a later deletion was on its way when the process was killed.
            right = kind == "delete" or self.tried.get(("delete?", key), -1) > number
        else:
            right = number <= found <= self.tried["put?", key] and not (kind == "delete" and found == number)
        if not right:
            self.lost.append(f"{key}: {kind} {number}, found {found}")


class Life:
    """A process that says what it does; killed at the end of the body, where it has not ended."""

    def __init__(self, heard: Heard, *arguments: object) -> None:
        self._heard = heard
        self._child = subprocess.Popen(
            [*CHILD, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._child:
            self._child.kill()

    def acknowledges(self, number: int) -> None:
        """Return once so many more writes were acknowledged."""
        enough = self._heard.counts["acknowledged"] + number
        while self._heard.counts["acknowledged"] < enough:
            self._next()

    def becomes(self, state: str) -> None:
        """Return once it is in a state."""
        while self._next() != f"state {state}":
            pass

    def end(self, *, kill: bool) -> None:
        """Kill it, or wait until it has ended; it must not have complained."""
        if kill:
            self._child.kill()
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        for line in self._child.stdout:
            if line.endswith("\n"):
                self._heard.take(line.rstrip("\n"))
        assert self._child.stderr.read() == ""
        assert self._child.wait(PATIENCE) == (-signal.SIGKILL if kill else 0)

    def _next(self) -> str:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line.endswith("\n"), "it has ended by itself"
        return self._heard.take(line.rstrip("\n"))


def numbers_on(url: str, keys: list[str]) -> dict[str, Record]:
    async def read() -> dict[str, Record]:
        async with open_driver(url) as store:
            return await store.get_many(keys)

    return asyncio.run(read())


def test_killed_processes_lose_nothing(
    durable_server: RedisServer, heavy: bool, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    server, file = durable_server, tmp_path / "journal.db"
    heard = Heard()
    kills = 20 if heavy else 4
    for life in range(kills):
        # In turns: the outage begins meanwhile; it lasts all the time; it ends, and the replay has begun. The
        # first has keys of its own: what stands there is not known to a later process during an outage.
        prefix = f"known{life}" if life % 3 == 0 else f"new{life // 3}"
        if life % 3 == 0 and not server.running:
            server.start()
        with Life(heard, "write", file, server.url(), life, prefix) as child:
            child.acknowledges(chance.randint(1, 300))
            if life % 3 == 0:
                server.kill()
                child.becomes("open")
            elif life % 3 == 2:
                server.start()
                child.becomes("replaying")
            child.acknowledges(chance.choice([1, 10, 100, 300]))
            child.end(kill=True)
        if server.running:
            server.kill()
    server.start()
    with Life(heard, "replay", file, server.url()) as child:
        child.end(kill=False)
    found = numbers_on(server.url(), list(heard.acknowledged))
    for key in heard.acknowledged:
        record = found.get(key)
        heard.check(key, None if record is None else int(record.value))
    print(f"{server.binary.name}: kills {kills}, {dict(heard.counts)}, lost {len(heard.lost)}")  # noqa: T201 - its figures, with -rP
    assert heard.lost == []
    assert heard.counts["replayed"] > 0
