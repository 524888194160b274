"""Writes that were on their way to the primary when other writes of the same record were journaled."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import Applied, BatchFailed, VersionConflict
from sessionkit.resilience import CircuitBreaker, RetryPolicy, State, StateChanged
from sessionkit.store import Put, Receipt, Where
from tests.resilience.world import World, in_virtual_time, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.resilience import Event


@asynccontextmanager
async def open_circuit(**options: object) -> AsyncIterator[World]:
    """A world in which no probe is made for long after the circuit has opened."""
    random.seed(7)
    async with world(
        breaker=CircuitBreaker(failures=2, first_pause=1000, longest_pause=1000), **options
    ) as here:
        yield here


async def left_with(here: World, receipt: Receipt) -> None:
    """Check that after the outage the primary has this write, and that nobody was told of a conflict."""
    await here.heal()
    record = await here.primary.get("key")
    assert record is not None
    assert record.version == receipt.version
    assert here.conflicts == []


@in_virtual_time
async def test_a_retry_does_not_pass_by_what_was_journaled_meanwhile() -> None:
    async with open_circuit(retry=RetryPolicy(attempts=3, first_pause=1)) as here:
        base = await here.store.put("key", b"base")
        here.link.refuse()
        retried = asyncio.create_task(here.store.put("key", b"retried", if_version=base.version))
        await asyncio.sleep(0)
        journaled = await here.store.put("key", b"journaled", if_version=base.version)
        assert journaled.where is Where.JOURNALED
        here.link.heal()
        with pytest.raises(VersionConflict) as caught:
            await retried
        assert caught.value.current == journaled.version
        assert here.store.state is State.OPEN, "the primary was not asked"
        await left_with(here, journaled)


@in_virtual_time
async def test_a_retry_without_a_condition_gives_way_to_what_was_acknowledged_meanwhile() -> None:
    async with open_circuit(retry=RetryPolicy(attempts=3, first_pause=1)) as here:
        here.link.refuse()
        retrying = asyncio.create_task(here.store.put("key", b"retried"))
        await asyncio.sleep(0)
        journaled = await here.store.put("key", b"journaled")
        here.link.heal()
        retried = await retrying
        assert retried.where is Where.JOURNALED
        await left_with(here, journaled)


@asynccontextmanager
async def slow(here: World) -> AsyncIterator[None]:
    """What is begun in the body takes 5 seconds, and nothing reaches the primary meanwhile."""
    here.link.latency(5)
    yield
    await asyncio.sleep(0)
    here.link.heal()
    here.link.refuse()


@in_virtual_time
async def test_a_slow_write_on_a_condition_gives_way_to_what_was_acknowledged() -> None:
    async with open_circuit(retry=RetryPolicy(attempts=1)) as here:
        base = await here.store.put("key", b"base")
        async with slow(here):
            writing = asyncio.create_task(here.store.put("key", b"slow", if_version=base.version))
        journaled = await here.store.put("key", b"journaled", if_version=base.version)
        here.link.heal()
        with pytest.raises(VersionConflict) as caught:
            await writing
        assert caught.value.current == journaled.version
        # It stands there until the replay.
        assert caught.value.applied is Applied.MAYBE
        await left_with(here, journaled)


@in_virtual_time
async def test_so_does_one_of_a_batch() -> None:
    async with open_circuit(retry=RetryPolicy(attempts=1)) as here:
        base = await here.store.put("key", b"base")
        async with slow(here):
            puts = [Put("key", b"slow", if_version=base.version), Put("other", b"slow")]
            writing = asyncio.create_task(here.store.put_many(puts))
        journaled = await here.store.put("key", b"journaled", if_version=base.version)
        here.link.heal()
        with pytest.raises(BatchFailed) as caught:
            await writing
        mine, other = caught.value.results
        assert isinstance(mine, VersionConflict)
        assert isinstance(other, Receipt)
        await left_with(here, journaled)


@in_virtual_time
async def test_a_slow_write_without_a_condition_came_first() -> None:
    async with open_circuit(retry=RetryPolicy(attempts=1)) as here:
        await here.store.put("key", b"base")
        async with slow(here):
            writing = asyncio.create_task(here.store.put("key", b"slow"))
        journaled = await here.store.put("key", b"journaled")
        here.link.heal()
        assert (await writing).where is Where.PRIMARY
        await left_with(here, journaled)


@in_virtual_time
async def test_a_slow_write_whose_answer_is_lost_and_that_is_refused_is_replaced() -> None:
    async with open_circuit(retry=RetryPolicy(attempts=1)) as here:
        base = await here.store.put("key", b"base")
        async with slow(here):
            writing = asyncio.create_task(here.store.put("key", b"slow", if_version=base.version))
        journaled = await here.store.put("key", b"journaled", if_version=base.version)
        here.link.heal()
        here.link.lose_replies(1)
        with pytest.raises(VersionConflict):
            await writing
        arrived = await here.primary.get("key")
        assert arrived is not None
        assert arrived.value == b"slow"
        await left_with(here, journaled)


@in_virtual_time
async def test_a_write_that_arrived_and_is_tried_again_is_replaced_by_what_was_journaled_meanwhile() -> None:
    async with open_circuit(
        retry=RetryPolicy(attempts=3, first_pause=3000, longest_pause=3000), deadline=1e6
    ) as here:
        await here.store.put("key", b"base")
        here.link.lose_replies(1)
        retrying = asyncio.create_task(here.store.put("key", b"arrived"))
        await asyncio.sleep(0)
        here.link.refuse()
        journaled = await here.store.put("key", b"journaled")
        await left_with(here, journaled)
        assert not retrying.done(), "it does not know yet that it arrived"
        assert (await retrying).where is Where.PRIMARY
        await left_with(here, journaled)
        here.link.refuse()
        known = await here.store.get("key")
        assert known is not None
        assert known.version == journaled.version


@in_virtual_time
async def test_a_slow_write_that_arrives_during_the_replay_is_no_conflict() -> None:
    breaker = CircuitBreaker(failures=1, first_pause=0.1, longest_pause=0.1)
    async with world(breaker=breaker, retry=RetryPolicy(attempts=1)) as here:
        await here.store.put("key", b"base")
        async with slow(here):
            writing = asyncio.create_task(here.store.put("key", b"slow"))
        journaled = await here.store.put("key", b"journaled")
        await asyncio.sleep(4)

        def hold_up_the_replay(event: Event) -> None:
            if isinstance(event, StateChanged) and event.new is State.REPLAYING:
                here.link.latency(2)

        here.store.subscribe(hold_up_the_replay)
        here.link.heal()
        assert (await writing).where is Where.PRIMARY
        assert here.store.state is State.REPLAYING
        await left_with(here, journaled)
