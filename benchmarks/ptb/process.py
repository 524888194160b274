"""The bot in a process of its own: ``python -m benchmarks.ptb.process WORK KIND PLACE …``.

- ``fill KIND PLACE USERS`` stores so many users.
- ``start KIND PLACE`` starts the bot and prints what that took.
- ``serve KIND PLACE`` takes a step of each user whose id it reads, and prints it when done.
- ``count KIND PLACE`` prints how many steps of each user are stored.
- ``pace KIND PLACE CONCURRENT USERS TELEGRAM`` reads in which chats, takes a step of each user there, and
  prints what that took; with the URL of a Bot API server it answers each of them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from telegram.ext import PicklePersistence

from benchmarks.ptb.bot import CONCURRENT, Entrant, make_update, profile, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.ptb.bot import Kind

READY: Final = "ready"
"""What ``serve`` prints once it takes updates."""

_ROOT: Final = Path(__file__).parents[2]
_AT_ONCE: Final = 1_000
_STATUS: Final = Path("/proc/self/status")


async def open_process(work: str, entrant: Entrant, *arguments: object) -> asyncio.subprocess.Process:
    """Return a new process that does a work; its input and output are pipes."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.ptb.process",
        work,
        entrant.kind,
        entrant.place,
        *map(str, arguments),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def run_process(work: str, entrant: Entrant, *arguments: object) -> Any:
    """Return what a process printed, as JSON; None for nothing.

    Raises:
        SystemExit: It failed.
    """
    process = await open_process(work, entrant, *arguments)
    printed, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{work} of {entrant.name}: the process ended with {process.returncode}")
    return json.loads(printed) if printed else None


async def fill(entrant: Entrant, users: int) -> None:
    """Store so many users."""
    for chunk in _chunks(range(1, users + 1), users if entrant.kind == "pickle" else 10 * _AT_ONCE):
        application = entrant.build()
        await application.bot.initialize()
        persistence = application.persistence
        assert persistence is not None
        if isinstance(persistence, PicklePersistence):
            persistence.on_flush = True  # else it writes the whole file for each user
            await persistence.get_user_data()  # or PTB cannot read what it writes
        for some in _chunks(chunk, _AT_ONCE):
            await asyncio.gather(*(persistence.update_user_data(each, profile(each)) for each in some))
        await persistence.flush()


async def start(entrant: Entrant) -> None:
    """Start the bot, and print the seconds it took and the most memory this process had, in megabytes."""
    started = time.perf_counter()
    application = entrant.build()
    async with application:
        seconds = time.perf_counter() - started
        # Not `getrusage`: on Linux that counts the memory of who started this process, too.
        status = _STATUS.read_text(encoding="ascii") if _STATUS.exists() else ""
        peak = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
        print(json.dumps({"seconds": seconds, "peak_mb": peak[0] if peak else None}), flush=True)
        os._exit(0)  # stopping is not measured, and takes its time with many users


async def serve(entrant: Entrant) -> None:
    """Take a step of each user whose id is read, and print it as the answer to that user; until killed."""

    async def answer(user_id: int) -> None:
        print(user_id, flush=True)

    application = entrant.build(CONCURRENT, answer)
    async with application:
        await application.start()
        print(READY, flush=True)
        numbers = count(1)
        async for line in await _input():
            await application.update_queue.put(make_update(application.bot, next(numbers), int(line)))
        await asyncio.Event().wait()


async def count_steps(entrant: Entrant) -> None:
    """Print how many steps of each user a bot finds that is started now."""
    application = entrant.build()
    async with application:
        print(json.dumps({user: data["steps"] for user, data in application.user_data.items() if data}))


async def pace(entrant: Entrant, concurrent: int, updates: int, telegram: str) -> None:
    """Take a step of each of so many users, in the chats that are read, and print the seconds, also of CPU.

    At the end of the input, print how many steps are not in the bot's memory.
    """

    async def answer(user_id: int) -> None:
        await application.bot.send_message(user_id, "ok")

    application = entrant.build(concurrent if concurrent > 1 else 0, answer if telegram else None, telegram)
    numbers, steps = count(1), Counter[int]()
    async with application:
        print(READY, flush=True)
        async for line in await _input():
            group = line.strip() == b"group"
            first = 1_000_001 if group else 1
            users = range(first, first + updates)
            made = [make_update(application.bot, next(numbers), user, group=group) for user in users]
            await application.start()
            gc.collect()
            started, cpu = time.perf_counter(), time.process_time()
            for update in made:
                application.update_queue.put_nowait(update)
            await application.update_queue.join()
            await application.update_persistence()
            print(json.dumps((time.perf_counter() - started, time.process_time() - cpu)), flush=True)
            await application.stop()
            steps.update(users)
        print(sum(taken - steps_of(application, user) for user, taken in steps.items()), flush=True)


async def _input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _chunks(numbers: range, size: int) -> Iterable[range]:
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


def main() -> None:
    """Do what the arguments say."""
    work, kind, place, *rest = sys.argv[1:]
    entrant = Entrant(cast("Kind", kind), place)
    match work:
        case "fill":
            asyncio.run(fill(entrant, int(rest[0])))
        case "start":
            asyncio.run(start(entrant))
        case "serve":
            asyncio.run(serve(entrant))
        case "count":
            asyncio.run(count_steps(entrant))
        case "pace":
            asyncio.run(pace(entrant, int(rest[0]), int(rest[1]), rest[2]))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
