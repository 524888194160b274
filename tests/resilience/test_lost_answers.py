"""Answers that come late or never: what this instance takes for its own, and for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.errors import Applied, CircuitOpen, JournalFull, StoreUnavailable
from sessionkit.resilience import (
    CircuitBreaker,
    ConflictFound,
    Journal,
    Quarantined,
    ResilientStore,
    RetryPolicy,
    State,
)
from sessionkit.store import ABSENT, Put
from sessionkit.testing.chaos import ChaosStore
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore
from tests.resilience.world import World, in_virtual_time, world

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkit.store import Record

ONCE = RetryPolicy(attempts=1)


async def hanging(*calls: asyncio.Task[Any]) -> None:
    """Return once the calls are on their way and hang."""
    await asyncio.sleep(1)
    assert not any(call.done() for call in calls)


class LateReads(MemoryStore):
    """A store whose answers to reads are on their way until ``arrive`` is set."""

    def __init__(self) -> None:
        super().__init__(clock=virtual_clock)
        self.arrive = asyncio.Event()

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        record = await super().get(key, renew_for=renew_for)
        await self.arrive.wait()
        return record

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        records = await super().get_many(keys)
        await self.arrive.wait()
        return records


@pytest.mark.parametrize("there", [True, False], ids=["an old record", "no record"])
@in_virtual_time
async def test_a_late_answer_is_no_newer_than_what_was_written_meanwhile(there: bool) -> None:
    primary = LateReads()
    link = ChaosStore(primary, seed=1, clock=virtual_clock)
    async with ResilientStore(link, retry=ONCE, clock=virtual_clock) as store:
        keys = ["read", "renewed", "one of many"]
        if there:
            await primary.put_many([Put(key, b"old") for key in keys])
        late: list[asyncio.Task[object]] = [
            asyncio.create_task(store.get("read")),
            asyncio.create_task(store.get("renewed", renew_for=300)),
            asyncio.create_task(store.get_many(["one of many"])),
        ]
        await hanging(*late)
        await store.put_many([Put(key, b"new") for key in keys])
        primary.arrive.set()
        await asyncio.gather(*late)
        link.refuse()
        assert {record.value for record in (await store.get_many(keys)).values()} == {b"new"}
        link.heal()


@in_virtual_time
async def test_a_cancelled_put_that_arrives_is_no_conflict() -> None:
    async with world(retry=ONCE) as here:
        await here.store.put("key", b"base")
        here.link.hang()
        call = asyncio.create_task(here.store.put("key", b"cancelled"))
        await hanging(call)
        call.cancel()
        await asyncio.wait([call])
        here.link.heal()
        await asyncio.sleep(1)
        arrived = await here.primary.get("key")
        assert arrived is not None
        assert arrived.value == b"cancelled"
        here.link.refuse()
        await here.store.put("key", b"journaled")
        await here.heal()
        assert here.conflicts == []
        record = await here.primary.get("key")
        assert record is not None
        assert record.value == b"journaled"


@in_virtual_time
async def test_cancelled_puts_of_a_batch_are_no_conflicts() -> None:
    async with world(retry=ONCE) as here:
        keys = ["a", "b"]
        await here.store.put_many([Put(key, b"base") for key in keys])
        here.link.hang()
        call = asyncio.create_task(here.store.put_many([Put(key, b"cancelled") for key in keys]))
        await hanging(call)
        call.cancel()
        await asyncio.wait([call])
        here.link.heal()
        await asyncio.sleep(1)
        here.link.refuse()
        for key in keys:
            await here.store.put(key, b"journaled")
        await here.heal()
        assert here.conflicts == []
        assert {record.value for record in (await here.primary.get_many(keys)).values()} == {b"journaled"}


@in_virtual_time
async def test_a_put_that_found_no_room_and_arrives_is_no_conflict() -> None:
    async with world(retry=ONCE, journal=Journal(max_bytes=2000)) as here:
        await here.store.put("key", b"base")
        here.link.hang()
        call = asyncio.create_task(here.store.put("key", bytes(2000)))
        await hanging(call)
        here.link.heal(drop=True)
        here.link.lose_replies(1)
        with pytest.raises(JournalFull) as caught:
            await call
        assert caught.value.applied is Applied.MAYBE
        here.link.refuse()
        await here.store.put("key", b"journaled")
        await here.heal()
        assert here.conflicts == []


@in_virtual_time
async def test_a_deletion_that_arrives_and_a_later_put_are_no_conflict() -> None:
    async with world(retry=ONCE) as here:
        await here.store.put("key", b"base")
        here.link.lose_replies(1)
        assert await here.store.delete("key")
        here.link.heal()
        here.link.refuse()
        assert await here.primary.get("key") is None
        await here.store.put("key", b"journaled")
        await here.heal()
        assert here.conflicts == []
        record = await here.primary.get("key")
        assert record is not None
        assert record.value == b"journaled"


@in_virtual_time
async def test_what_somebody_deleted_is_a_conflict_all_the_same() -> None:
    async with world(retry=ONCE) as here:
        await here.store.put("key", b"base")
        here.link.hang()
        call = asyncio.create_task(here.store.delete("key"))
        await hanging(call)
        call.cancel()
        await asyncio.wait([call])
        here.link.heal(drop=True)
        here.link.refuse()
        await here.store.put("key", b"journaled")
        assert await here.primary.delete("key")
        await here.heal()
        assert here.conflicts == [ConflictFound("key", "primary")]


@in_virtual_time
async def test_a_deletion_that_is_tried_again_says_that_there_was_something() -> None:
    async with world(retry=RetryPolicy(first_pause=10, longest_pause=10), deadline=1000) as here:
        await here.store.put("key", b"base")
        here.link.refuse()
        call = asyncio.create_task(here.store.delete("key"))
        await asyncio.sleep(0)
        here.link.heal()
        here.link.lose_replies(1)
        await asyncio.sleep(20)  # as long as both pauses may take
        here.link.heal()
        assert await call
        assert here.store.state is State.HEALTHY


@in_virtual_time
async def test_a_replayed_renewal_is_known_in_the_next_outage() -> None:
    async with world(retry=ONCE) as here:
        await here.store.put("key", b"1", expires_in=100)
        here.link.refuse()
        assert await here.store.touch("key", expires_in=1000)
        await here.heal()
        await asyncio.sleep(500)
        here.link.refuse()
        record = await here.store.get("key")
        assert record is not None
        assert record.stale


@in_virtual_time
async def test_what_has_ended_here_only_is_deleted_there() -> None:
    async with world(retry=ONCE) as here:
        await here.store.put("key", b"1", expires_in=10_000)
        here.link.refuse()
        assert await here.store.touch("key", expires_in=1)
        await asyncio.sleep(2)
        assert not await here.store.delete("key")
        await here.heal()
        assert await here.primary.get("key") is None


@in_virtual_time
async def test_a_write_that_ends_while_it_is_replayed_is_not_made() -> None:
    async with world(retry=ONCE, on_conflict="local_wins", deadline=1000) as here:
        await here.store.put("key", b"base")
        here.link.refuse()
        await here.store.put("key", b"short", expires_in=20)
        await here.primary.put("key", b"theirs")
        here.link.heal()
        here.link.latency(15)
        await here.settle()
        record = await here.primary.get("key")
        assert record is not None
        assert record.value == b"theirs"


@in_virtual_time
async def test_an_open_circuit_says_why() -> None:
    async with world(outage="raise", retry=ONCE, breaker=CircuitBreaker(failures=1)) as here:
        here.link.refuse(StoreUnavailable("the cable is out"))
        with pytest.raises(StoreUnavailable):
            await here.store.get("key")
        with pytest.raises(CircuitOpen, match="the cable is out"):
            await here.store.get("key")


@in_virtual_time
async def test_a_policy_that_fails_is_named_without_what_it_was_given() -> None:
    def merge(base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
        raise ValueError(f"secret {mine!r}")

    here = World(retry=ONCE, on_conflict=merge)
    here.link.refuse()
    await here.store.put("key", b"mine", if_version=ABSENT)
    await here.primary.put("key", b"theirs")
    await here.heal()
    (event,) = [event for event in here.events if isinstance(event, Quarantined)]
    assert "on_conflict raised ValueError (merge, line" in event.reason
    assert "secret" not in event.reason
    with pytest.raises(StoreUnavailable):
        await here.store.aclose()
