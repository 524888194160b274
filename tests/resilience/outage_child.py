"""What tests of a journal run in processes of their own: ``outage_child.py COMMAND FILE ...``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import random
import sys
from pathlib import Path

from sessionkit.errors import StoreError, StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.resilience import (
    CircuitBreaker,
    ConflictFound,
    Entry,
    Event,
    Journal,
    Kind,
    Quarantined,
    ResilientStore,
    RetryPolicy,
    State,
    StateChanged,
    StoreFile,
)
from sessionkit.store import ABSENT, Absent, Put, Version, Where, new_version

NOBODY = "redis://127.0.0.1:1"
"""Where no server listens."""

CRASHED = 3
"""The exit status of a process that closed nothing."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def journal_in(file: str) -> Journal:
    return Journal(file=StoreFile.of(open_driver(f"sqlite:///{file}")))


def open_store(url: str, file: str) -> ResilientStore:
    return ResilientStore(
        open_driver(url, timeout=1),
        journal=journal_in(file),
        retry=RetryPolicy(attempts=2, first_pause=0.001),
        breaker=CircuitBreaker(first_pause=0.01, longest_pause=0.05),
    )


async def hold(file: str) -> None:
    """Open the journal, say so, and never let go."""
    journal = journal_in(file)
    await journal.load()
    say("held")
    await asyncio.Event().wait()


async def add(file: str, times: str) -> None:
    """Add entries one after the other, and say of each when it is asked and when it is acknowledged."""
    journal = journal_in(file)
    await journal.load()
    for number in range(int(times)):
        say("asked", number)
        await journal.add(Entry(f"key{number % 2}", journal.next_seq(), new_version(), Kind.PUT, b"value"))
        say("acknowledged", number)
    await journal.aclose()


async def show(file: str) -> None:
    """Say what the journal holds."""
    journal = journal_in(file)
    await journal.load()
    say(json.dumps({entry.key: shown(entry.value) for entry in journal}))
    await journal.aclose()


async def fill(file: str, how: str) -> None:
    """Journal until the disk is full, make room, repeat half of what was refused; say it, and die."""
    store = open_store(NOBODY, file)
    acknowledged: dict[str, str] = {}
    refused: dict[str, Put] = {}
    errors: set[str] = set()

    async def journaled(put: Put) -> bool:
        key, value, _, _, write_id = put
        try:
            receipt = await store.put(key, value, write_id=write_id)
        except StoreError as error:
            errors.add(f"{type(error).__name__} {error.temporary} {error.applied.name}")
            return False
        assert receipt.where is Where.JOURNALED
        acknowledged[key] = shown(value)
        return True

    async def writer(task: int) -> None:
        for number in range(1000):
            # Longer each time: a shorter one might find room where the one before it was.
            value = f"{number:06}".encode() + os.urandom(5000 + number * 100)
            put = Put(f"{task}:{number % 10}", value, write_id=new_version())
            # Room may be found for a repetition; if so, that must be true of the file as well.
            if not await journaled(put) and not await journaled(put):
                refused[put.key] = put
                return

    await journaled(Put("first", b"", write_id=new_version()))
    shrink(file, how)
    await asyncio.gather(*(writer(task) for task in range(8)))
    before = len(acknowledged)
    make_room(file, how)
    repeated = [put for put in list(refused.values())[::2] if await journaled(put)]
    report = {
        "before": before,
        "acknowledged": acknowledged,
        "refused": {key: shown(put.value) for key, put in refused.items()},
        "repeated": [put.key for put in repeated],
        "errors": sorted(errors),
    }
    say(json.dumps(report))
    os._exit(CRASHED)


def shown(value: bytes) -> str:
    return value[:6].decode()


def shrink(file: str, how: str) -> None:
    """Allow little more than there is."""
    if how == "limit":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    else:
        Path(file).with_name("ballast").write_bytes(bytes(1_000_000))


def make_room(file: str, how: str) -> None:
    """Take back what ``shrink`` did."""
    if how == "limit":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    else:
        Path(file).with_name("ballast").unlink()


async def write(file: str, url: str, life: str, prefix: str) -> None:
    """Write until killed, and say what is tried, what is acknowledged, what is read, and what happens."""
    store = open_store(url, file)
    store.subscribe(tell)
    chance = random.Random(f"write/{life}")
    numbers = itertools.count(int(life) * 1_000_000)

    async def count(key: str) -> None:
        """Write by compare-and-set on what is there."""
        version: Version | Absent = ABSENT
        with contextlib.suppress(StoreUnavailable):
            record = await store.get(key)
            say("read", key, "none" if record is None else record.value.decode())
            version = ABSENT if record is None else record.version
        number = next(numbers)
        say("put?", key, number)
        await store.put(key, b"%d" % number, if_version=version)
        say("put", key, number)

    async def put(key: str) -> None:
        number = next(numbers)
        say("put?", key, number)
        await store.put(key, b"%d" % number)
        say("put", key, number)

    async def delete(key: str) -> None:
        number = next(numbers)
        say("delete?", key, number)
        await store.delete(key)
        say("delete", key, number)

    async def writer(task: int) -> None:
        for _ in range(1_000_000):
            step, key = chance.choice([(count, "count"), (put, "put"), (put, "gone"), (delete, "gone")])
            with contextlib.suppress(StoreError):
                await step(f"{prefix}:{key}:{task}:{chance.randrange(8)}")
            # What is answered from memory waits for nothing; the others want their turn.
            await asyncio.sleep(0)

    await asyncio.gather(*(writer(task) for task in range(12)))


async def replay(file: str, url: str) -> None:
    """Replay what earlier lives have left."""
    store = open_store(url, file)
    healthy = asyncio.Event()
    store.subscribe(tell)
    store.subscribe(lambda _event: healthy.set() if store.state is State.HEALTHY else None)
    with contextlib.suppress(StoreUnavailable):
        await store.get("none")
    await healthy.wait()
    await store.aclose()
    say("replayed", store.counts.replayed)


def tell(event: Event) -> None:
    match event:
        case StateChanged(new=new):
            say("state", new.value)
        case ConflictFound(key=key):
            say("conflict", key)
        case Quarantined(key=key):
            say("quarantined", key)


COMMANDS = {each.__name__: each for each in (hold, add, show, fill, write, replay)}

if __name__ == "__main__":
    # Outages are what the tests are about; what else is said there fails them.
    logging.getLogger("sessionkit").setLevel(logging.CRITICAL)
    asyncio.run(COMMANDS[sys.argv[1]](*sys.argv[2:]))
