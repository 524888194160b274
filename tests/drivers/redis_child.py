"""What the tests of the Redis store run in processes of their own: ``redis_child.py COMMAND URL ...``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

from sessionkit.errors import Applied, StoreError, VersionConflict
from sessionkit.store import ABSENT, StoreURL, new_version
from sessionkit_redis import open_driver

if TYPE_CHECKING:
    from sessionkit.store import Record, SessionStore


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def read(store: SessionStore, key: str) -> Record | None:
    """Read until it is answered."""
    while True:
        try:
            return await store.get(key)
        except StoreError as error:
            assert error.temporary, error


async def count(url: str, name: str, times: str) -> None:
    """Increment one counter by compare-and-set; say how often an answer was lost, and what a repetition met.

    The record remembers the last four writes. Where others wrote more than that between a write whose
    answer was lost and its repetition, the repetition meets a conflict; so each value also says whose
    increments are in it.
    """
    lost = acknowledged_again = conflicts_after = 0
    async with open_driver(StoreURL.parse(url)) as store:
        for mine in range(int(times)):
            maybe = False
            while True:
                record = await read(store, "counter")
                by: dict[str, int] = {} if record is None else json.loads(record.value)
                if by.get(name, 0) > mine:
                    assert maybe, "a write that was refused is there"
                    conflicts_after += 1
                    break
                value = json.dumps(by | {name: mine + 1}).encode()
                outcome, maybe_now = await put_until_told(
                    store, value, ABSENT if record is None else record.version
                )
                lost += maybe_now
                maybe = maybe or maybe_now
                if outcome:
                    acknowledged_again += maybe_now
                    break
    say(json.dumps({"lost": lost, "again": acknowledged_again, "conflicts": conflicts_after}))


async def put_until_told(store: SessionStore, value: bytes, version: object) -> tuple[bool, bool]:
    """Repeat one write with its id; return whether it was acknowledged, and whether an answer was lost."""
    write_id = new_version()
    lost = False
    while True:
        try:
            receipt = await store.put("counter", value, if_version=version, write_id=write_id)  # type: ignore[arg-type]  # as it was read
        except VersionConflict:
            return False, lost
        except StoreError as error:
            assert error.temporary, error
            lost = lost or error.applied is Applied.MAYBE
        else:
            assert receipt.version == write_id
            return True, lost


async def hold(url: str, key: str, lease: str) -> None:
    """Hold a lock, say so, and never let go."""
    async with open_driver(StoreURL.parse(url)) as store, store.lock(key, lease=float(lease)):
        say("held")
        await asyncio.Event().wait()


COMMANDS = {each.__name__: each for each in (count, hold)}

if __name__ == "__main__":
    # Lost connections are what some tests are about; what else is said there fails them.
    logging.getLogger("sessionkit.redis").setLevel(logging.ERROR)
    asyncio.run(COMMANDS[sys.argv[1]](*sys.argv[2:]))
