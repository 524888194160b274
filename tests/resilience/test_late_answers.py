"""Writes whose answers, or whose retries, come when others have been acknowledged already."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.errors import Applied, BatchFailed, SessionKitError, StoreTimeout, StoreUnavailable
from sessionkit.resilience import CircuitBreaker, ConflictFound, ResilientStore, RetryPolicy, State
from sessionkit.store import Put, Where
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore
from tests.resilience.held import HeldStore, cancelled, turns
from tests.resilience.world import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sessionkit.resilience import Event
    from sessionkit.store import Receipt

ONCE = RetryPolicy(attempts=1)
TWICE = RetryPolicy(attempts=2, first_pause=5, longest_pause=5)


class Bot:
    """A resilient store over one that holds what it is told to hold."""

    def __init__(self, **options: Any) -> None:
        self.primary = HeldStore()
        breaker = CircuitBreaker(failures=50, first_pause=60, longest_pause=60)
        self.store = ResilientStore(
            self.primary, breaker=breaker, deadline=1000, clock=virtual_clock, **{"retry": ONCE, **options}
        )
        self.events: list[Event] = []
        self.store.subscribe(self.events.append)

    @property
    def conflicts(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, ConflictFound)]

    def outage(self) -> None:
        self.primary.holds, self.primary.down = False, True
        self.store._recovery.open("found away by somebody")

    async def heal(self) -> None:
        self.primary.holds = self.primary.down = False
        async with asyncio.timeout(3600):
            while self.store.state is not State.HEALTHY:  # noqa: ASYNC110 - in virtual time
                await asyncio.sleep(1)

    async def stands(self) -> bytes | None:
        record = await MemoryStore.get(self.primary, "key")
        return None if record is None else record.value

    async def read(self) -> bytes | None:
        record = await self.store.get("key")
        return None if record is None else record.value


@asynccontextmanager
async def bot(**options: Any) -> AsyncIterator[Bot]:
    bot = Bot(**options)
    async with bot.store:
        await bot.store.put("key", b"base", expires_in=10_000)
        yield bot


def lost() -> StoreTimeout:
    return StoreTimeout("the answer is lost", applied=Applied.MAYBE)


@in_virtual_time
async def test_a_retry_that_gives_up_does_not_take_the_place_of_a_later_write() -> None:
    async with bot(retry=TWICE) as here:
        here.primary.holds = True
        first = asyncio.create_task(here.store.put("key", b"first"))
        call = await here.primary.held.get()
        await call.apply()
        await call.reply(lost())
        here.primary.holds = False
        assert (await here.store.put("key", b"second")).where is Where.PRIMARY
        assert not first.done(), "it is to be tried again"
        here.outage()
        assert (await here.store.put("key", b"third")).where is Where.JOURNALED
        await first
        assert await here.read() == b"third"
        await here.heal()
        assert (await here.stands(), here.conflicts) == (b"third", [])


@pytest.mark.parametrize("before", [True, False], ids=["sent", "never sent"])
@in_virtual_time
async def test_repeating_a_write_that_was_given_up_undoes_no_later_one(before: bool) -> None:
    async with bot() as here:
        put = Put("key", b"first", write_id=b"12345678")  # type: ignore[arg-type]  # a Version is bytes
        here.primary.holds = True
        first = asyncio.create_task(here.store.put("key", put.value, write_id=put.write_id))
        call = await here.primary.held.get()
        if before:
            await call.apply()
        await cancelled(first)
        here.primary.holds = False
        await here.store.put("key", b"second")
        here.outage()
        await here.store.put("key", b"third")
        await here.store.put("key", put.value, write_id=put.write_id)
        await here.heal()
        assert (await here.stands(), here.conflicts) == (b"third", [])


@in_virtual_time
async def test_a_replay_that_changes_nothing_is_not_taken_for_what_stands() -> None:
    async with bot() as here:
        here.primary.holds = True
        first = asyncio.create_task(here.store.put("key", b"first"))
        one = await here.primary.held.get()
        await one.apply()
        second = asyncio.create_task(here.store.put("key", b"second"))
        other = await here.primary.held.get()
        await other.apply()
        await other.reply()
        await second
        here.primary.holds = False
        await one.reply(lost())
        assert (await first).where is Where.JOURNALED
        await here.heal()
        assert await here.stands() == b"second"
        here.outage()
        await here.store.put("key", b"last")
        await here.heal()
        assert (await here.stands(), here.conflicts) == (b"last", [])


@in_virtual_time
async def test_a_retry_of_a_batch_that_is_cancelled_may_be_met() -> None:
    async with bot(retry=TWICE) as here:
        here.primary.holds = True
        batch = asyncio.create_task(here.store.put_many([Put("key", b"batch")]))
        await (await here.primary.held.get()).refuse()
        await (await here.primary.held.get()).apply()
        await cancelled(batch)
        assert await here.stands() == b"batch"
        here.outage()
        await here.store.put("key", b"last")
        await here.heal()
        assert (await here.stands(), here.conflicts) == (b"last", [])


@in_virtual_time
async def test_a_renewal_that_is_replayed_replaces_no_put() -> None:
    async with bot() as here:
        here.primary.holds = True
        put = asyncio.create_task(here.store.put("key", b"new"))
        call = await here.primary.held.get()
        await call.apply()
        here.outage()
        assert await here.store.touch("key", expires_in=2000)
        await here.heal()
        await call.reply()
        await put
        here.outage()
        assert await here.read() == b"new"


@in_virtual_time
async def test_a_renewal_takes_no_condition_from_the_write_after_it() -> None:
    async with bot() as here:
        record = await here.store.get("key")
        assert record is not None
        here.primary.holds = True
        deletion = asyncio.create_task(here.store.delete("key"))
        call = await here.primary.held.get()
        here.outage()
        await here.store.touch("key", expires_in=1000)
        await here.store.put("key", b"based on it", if_version=record.version)
        await call.apply()
        await call.reply()
        assert await deletion
        await here.heal()
        assert (await here.stands(), here.conflicts) == (None, [ConflictFound("key", "primary")])


@in_virtual_time
async def test_a_renewal_gives_no_condition_to_the_write_after_it() -> None:
    async with bot() as here:
        record = await here.store.get("key")
        assert record is not None
        here.primary.holds = True
        put = asyncio.create_task(here.store.put("key", b"cancelled"))
        await (await here.primary.held.get()).apply()
        await cancelled(put)
        here.outage()
        await here.store.touch("key", expires_in=1000, if_version=record.version)
        await here.store.put("key", b"last")
        await here.heal()
        assert (await here.stands(), here.conflicts) == (b"last", [])


@in_virtual_time
async def test_a_replay_that_was_answered_is_not_made_again() -> None:
    async with bot() as here:
        await here.store.delete("key")
        here.primary.holds = True
        put = asyncio.create_task(here.store.put("key", b"1"))
        await (await here.primary.held.get()).refuse()
        here.primary.holds = False
        assert (await put).where is Where.JOURNALED
        entry = here.store.journal.get("key")
        assert entry is not None
        here.store.journal.note(entry.also_sent([entry.write_id]))  # as after a replay without an answer
        here.primary.blind = True
        await here.heal()
        await MemoryStore.delete(here.primary, "key")
        await here.heal()
        assert (await here.stands(), here.store.journal.depth) == (None, 0)


@pytest.mark.parametrize("answers", [True, False], ids=["replayed", "away again"])
@in_virtual_time
async def test_a_renewal_that_came_too_late_is_told_before_nothing_is_found(answers: bool) -> None:
    async with bot() as here:
        here.outage()
        assert await here.store.touch("key", expires_in=None)
        await asyncio.sleep(20_000)
        here.primary.holds, here.primary.down = True, False
        renewal = await here.primary.held.get()
        reading = asyncio.create_task(here.store.get_many(["key"]))
        await turns()
        assert not reading.done()
        if answers:
            await renewal.apply()
            await renewal.reply()
            assert await reading == {}
            assert here.conflicts == [ConflictFound("key", "primary")]
        else:
            await renewal.refuse()
            record = (await reading)["key"]
            assert (record.value, record.stale, here.conflicts) == (b"base", True, [])
        here.primary.holds = False


class HalfTaken(MemoryStore):
    """A store that takes only the last of a batch."""

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        *refused, last = puts
        receipts = await super().put_many([last])
        raise BatchFailed([*(StoreUnavailable("refused") for _ in refused), *receipts])


@in_virtual_time
async def test_what_a_batch_has_written_is_known_before_the_rest_is_tried_again() -> None:
    primary = HalfTaken(clock=virtual_clock)
    async with ResilientStore(primary, retry=TWICE, deadline=1000, clock=virtual_clock) as store:
        batch = asyncio.create_task(store.put_many([Put("other", b""), Put("key", b"ours")]))
        await turns()
        assert not batch.done(), "it is to be tried again"
        await primary.put("key", b"theirs")
        assert await store.get("key") is not None
        await batch
        store._recovery.open("found away by somebody")
        record = await store.get("key")
        assert record is not None
        assert record.value == b"theirs"


@in_virtual_time
async def test_what_was_never_sent_is_not_to_be_met() -> None:
    async with bot() as here:
        for wrong in (0, -1):
            with pytest.raises(SessionKitError):
                await here.store.put("key", b"1", expires_in=wrong)
        assert not here.store._flights
