"""What becomes of a store that is closed in the middle of something."""

from __future__ import annotations

import asyncio

import pytest

from sessionkit.errors import Applied, ConfigurationError, StoreUnavailable
from sessionkit.resilience import ResilientStore, RetryPolicy, State
from sessionkit.store import Put
from tests.resilience.world import World, in_virtual_time, world


@in_virtual_time
async def test_a_write_that_is_tried_again_meanwhile_is_not_acknowledged() -> None:
    here = World(retry=RetryPolicy(first_pause=1000.0, longest_pause=1000.0), deadline=5000.0)
    await here.store.put("other", b"1")
    here.link.refuse()
    writing = asyncio.create_task(here.store.put("key", b"1"))
    await asyncio.sleep(0.001)
    await here.store.aclose()
    with pytest.raises(StoreUnavailable) as caught:
        await writing
    assert caught.value.applied is Applied.NO
    assert here.store.journal.depth == 0


@in_virtual_time
async def test_who_gives_up_waiting_may_ask_again() -> None:
    here = World(retry=RetryPolicy(attempts=1))
    here.link.refuse()
    await here.store.put("key", b"1")
    here.link.heal()
    here.link.hang()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(here.store.aclose(), 1.0)
    with pytest.raises(StoreUnavailable, match="1 keys"):
        await here.store.aclose()
    await here.store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await here.primary.get("key")


@in_virtual_time
async def test_a_closed_store_stays_closed() -> None:
    here = World(retry=RetryPolicy(attempts=1))
    here.link.refuse()
    await here.store.put("key", b"1")
    here.link.heal()
    here.link.latency(1.0)
    await asyncio.sleep(0.6)  # a probe is under way
    await here.store.aclose()
    await asyncio.sleep(100)
    assert here.store.state is State.DRAINING
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_the_last_put_of_a_key_in_a_batch_is_the_one_that_stands() -> None:
    async with world() as here:
        batch = [Put("key", b"first"), Put("key", b"last")]
        here.link.fail_key("key", StoreUnavailable("no"))
        receipts = await here.store.put_many(batch)
        assert len({receipt.where for receipt in receipts}) == 1
        await here.heal()
        record = await here.store.get("key")
        assert record is not None
        assert record.value == b"last"
        assert here.conflicts == []


@pytest.mark.parametrize("options", [{"on_conflict": {}}, {"outage": []}], ids=repr)
def test_what_is_no_option_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ResilientStore(World().link, **options)  # type: ignore[arg-type]
