"""What of a store's own is under way when an outage begins or ends, step by step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import Applied, JournalFull, StoreTimeout, StoreUnavailable, VersionConflict
from sessionkit.resilience import (
    CircuitBreaker,
    ConflictFound,
    Journal,
    ResilientStore,
    RetryPolicy,
    State,
)
from sessionkit.resilience.entries import MOST_SENT
from sessionkit.resilience.flights import Flights
from sessionkit.store import ABSENT, Put, new_version
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore
from tests.resilience.world import in_virtual_time, world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sessionkit.resilience import Event
    from sessionkit.store import Absent, Receipt, Version

    Hook = Callable[[str, str], Awaitable[None]]

ONCE = RetryPolicy(attempts=1)


class Hooked(MemoryStore):
    """A store that asks before and after each write what is to become of it, and raises what is raised."""

    def __init__(self) -> None:
        super().__init__(clock=virtual_clock)
        self.before: Hook | None = None
        self.after: Hook | None = None

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        if self.before is not None:
            await self.before("put", key)
        receipt = await super().put(
            key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
        )
        if self.after is not None:
            await self.after("put", key)
        return receipt

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        first, *rest = puts
        receipts = await super().put_many([first])
        if self.after is not None:
            await self.after("put_many", first.key)  # before the rest of the batch
        return [*receipts, *await super().put_many(rest)]


async def reached(store: ResilientStore, state: State) -> None:
    """Return once the store is in a state."""
    there = asyncio.Event()

    def look(_: Event) -> None:
        if store.state is state:
            there.set()

    forget = store.subscribe(look)
    if store.state is not state:
        async with asyncio.timeout(3600):
            await there.wait()
    forget()


def conflicts(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, ConflictFound)]


async def lost(_: str, __: str) -> None:
    raise StoreTimeout("the answer is lost", applied=Applied.MAYBE)


@pytest.mark.parametrize("merged", [b"merged", None], ids=["to a value", "to none"])
@in_virtual_time
async def test_a_renewal_during_a_merge_does_not_undo_it(merged: bytes | None) -> None:
    primary = Hooked()
    async with ResilientStore(
        primary, retry=ONCE, on_conflict=lambda *_: merged, clock=virtual_clock
    ) as store:
        await store.put("key", b"base", expires_in=1000)

        async def refuse(_: str, __: str) -> None:
            raise StoreUnavailable("no")

        async def slow(_: str, key: str) -> None:
            if key == "other":
                raise StoreUnavailable("no")
            await asyncio.sleep(5)

        primary.before = refuse
        await store.put("key", b"mine", expires_in=1000)
        await MemoryStore.put(primary, "key", b"theirs")
        primary.before = slow
        await reached(store, State.REPLAYING)
        await asyncio.sleep(0.1)
        await store.put("other", b"1")  # opens the circuit once more
        assert await store.get("key", renew_for=1000) is not None
        await asyncio.sleep(30)
        primary.before = None
        await reached(store, State.HEALTHY)
        found = await primary.get("key")
        assert (None if found is None else found.value) == merged


@in_virtual_time
async def test_of_two_writes_on_one_version_one_wins() -> None:
    async with world(retry=ONCE) as here:
        base = await here.store.put("key", b"base")
        here.link.hang()
        deleting = asyncio.create_task(here.store.delete("key", if_version=base.version))
        await asyncio.sleep(1)
        here.link.refuse()
        other = asyncio.create_task(here.store.put("other", b"1"))
        await asyncio.sleep(1)
        other.cancel()
        await asyncio.wait([other])
        here.store._recovery.open("found away by somebody")
        receipt = await here.store.put("key", b"mine", if_version=base.version)
        here.link.heal()
        with pytest.raises(VersionConflict) as caught:
            await deleting
        assert caught.value.applied is Applied.MAYBE
        await here.settle()
        found = await here.primary.get("key")
        assert found is not None
        assert found.version == receipt.version


@in_virtual_time
async def test_a_deletion_that_never_arrived_lets_nothing_come_back() -> None:
    slow = RetryPolicy(attempts=2, first_pause=20, longest_pause=20)
    async with world(retry=slow, deadline=1000) as here:
        base = await here.store.put("key", b"base")
        here.link.refuse()
        deleting = asyncio.create_task(here.store.delete("key", if_version=base.version))
        await asyncio.sleep(0)
        here.store._recovery.open("found away by somebody")
        await here.store.put("key", b"mine", if_version=base.version)
        with pytest.raises(VersionConflict) as caught:
            await deleting
        assert caught.value.applied is Applied.NO
        assert await here.primary.delete("key")
        await here.heal()
        assert here.conflicts == [ConflictFound("key", "primary")]
        assert await here.primary.get("key") is None


@in_virtual_time
async def test_the_first_of_a_batch_is_ours_if_only_it_has_arrived() -> None:
    primary = Hooked()
    async with ResilientStore(primary, retry=ONCE, clock=virtual_clock) as store:
        events: list[Event] = []
        store.subscribe(events.append)
        await store.put("key", b"base")
        primary.after = lost
        await store.put_many([Put("key", b"first"), Put("key", b"last")])
        assert await primary.get("key") is not None
        primary.after = None
        await reached(store, State.HEALTHY)
        found = await primary.get("key")
        assert found is not None
        assert (found.value, conflicts(events)) == (b"last", [])


@in_virtual_time
async def test_a_first_attempt_that_arrives_during_the_replay_is_ours() -> None:
    primary = Hooked()
    breaker = CircuitBreaker(failures=1, first_pause=0.1, longest_pause=0.1)
    async with ResilientStore(primary, retry=ONCE, breaker=breaker, clock=virtual_clock) as store:
        events: list[Event] = []
        store.subscribe(events.append)
        await store.put("key", b"base")
        held = asyncio.Event()

        async def hold(_: str, key: str) -> None:
            if key == "key":
                primary.after = None
                await held.wait()

        primary.after = hold
        first = asyncio.create_task(store.put("key", b"first"))
        await asyncio.sleep(1)
        store._recovery.open("found away by somebody")
        later = await store.put("key", b"later")
        await reached(store, State.HEALTHY)
        held.set()
        await first
        found = await primary.get("key")
        assert found is not None
        assert (found.version, conflicts(events)) == (later.version, [])


@in_virtual_time
async def test_what_was_renewed_by_others_outlives_the_replay() -> None:
    async with world(retry=ONCE, breaker=CircuitBreaker(first_pause=60, longest_pause=60)) as here:
        here.link.refuse()
        await here.store.put("key", b"mine", expires_in=1000, if_version=ABSENT)
        here.link.heal()
        here.link.lose_replies(1)
        async with asyncio.timeout(900):  # several pauses between probes
            while await here.primary.get("key") is None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(1)
        here.link.refuse()
        assert await here.primary.touch("key", expires_in=36_000)
        await asyncio.sleep(1200)
        await here.heal()
        assert await here.primary.get("key") is not None


@in_virtual_time
async def test_a_waiting_renewal_hides_no_record_from_a_batch() -> None:
    async with world(retry=ONCE) as here:
        await here.store.put("key", b"1", expires_in=1000)
        here.link.refuse()
        assert await here.store.touch("key", expires_in=2000)
        here.store._copies.forget("key")
        here.link.heal()
        here.link.latency(5)
        await reached(here.store, State.REPLAYING)
        assert set(await here.store.get_many(["key"])) == {"key"}


@in_virtual_time
async def test_a_renewal_that_finds_no_room_is_not_hidden() -> None:
    async with world(retry=ONCE, journal=Journal(max_bytes=1)) as here:
        await here.store.put("key", b"1", expires_in=1000)
        here.link.refuse()
        with pytest.raises(JournalFull):
            await here.store.get("key", renew_for=2000)
        record = await here.store.get("key")
        assert record is not None
        assert record.stale


@pytest.mark.parametrize("answers", [True, False], ids=["refused", "no answer"])
@in_virtual_time
async def test_a_renewal_that_finds_no_room_says_whether_it_may_have_arrived(answers: bool) -> None:
    renewals: list[Callable[[ResilientStore], Awaitable[object]]] = [
        lambda store: store.get("key", renew_for=5),
        lambda store: store.touch("key", expires_in=5),
    ]
    for renew in renewals:
        async with world(retry=ONCE, journal=Journal(max_bytes=1)) as here:
            await here.store.put("key", b"1", expires_in=1000)
            (here.link.refuse if answers else here.link.lose_replies)()
            with pytest.raises(JournalFull) as caught:
                await renew(here.store)
            assert caught.value.applied is (Applied.NO if answers else Applied.MAYBE)
            await asyncio.sleep(10)
            assert (await here.primary.get("key") is None) is not answers


@in_virtual_time
async def test_a_put_that_was_refused_makes_nothing_of_what_was_deleted_come_back() -> None:
    async with world(retry=ONCE, journal=Journal(max_bytes=1000)) as here:
        base = await here.store.put("key", b"base")
        assert await here.primary.delete("key")  # by another instance
        here.link.lose_replies()
        with pytest.raises(JournalFull) as caught:
            await here.store.put("key", bytes(500))
        assert caught.value.applied is Applied.MAYBE
        assert await here.primary.get("key") is not None
        await here.store.put("key", b"based on what is deleted", if_version=base.version)
        await here.heal()
        assert here.conflicts == [ConflictFound("key", "primary")]
        found = await here.primary.get("key")
        assert found is not None
        assert found.value == bytes(500)


@in_virtual_time
async def test_a_put_on_the_same_condition_that_was_refused_gives_way_to_the_next() -> None:
    async with world(retry=ONCE, journal=Journal(max_bytes=1000)) as here:
        base = await here.store.put("key", b"base")
        here.link.lose_replies()
        with pytest.raises(JournalFull):
            await here.store.put("key", bytes(500), if_version=base.version)
        await here.store.put("key", b"again", if_version=base.version)
        await here.heal()
        found = await here.primary.get("key")
        assert found is not None
        assert (found.value, here.conflicts) == (b"again", [])


def test_only_what_nobody_relies_on_gives_way_to_a_write_on_a_condition() -> None:
    flights = Flights({})
    condition = new_version()
    lost_, replaced, under_way, on_condition = (new_version() for _ in range(4))
    flights.end("key", flights.begin("key", lost_, condition))
    one, two = flights.begin("key", replaced), flights.begin("key", also := new_version())
    for ticket in (two, one):
        assert not flights.acknowledge("key", ticket).known
        flights.end("key", ticket)
    flights.begin("key", under_way)
    flights.begin("key", on_condition, condition)
    assert flights.of("key", None) == [lost_, also, replaced, under_way, on_condition]
    assert flights.of("key", condition) == [lost_, on_condition]
    assert flights.of("key", new_version()) == []
    assert flights.of("elsewhere", None) == []


def test_what_a_deletion_overlaps_is_in_doubt() -> None:
    flights = Flights({})
    version = new_version()
    put, deletion = flights.begin("key", version), flights.begin("key", ABSENT)
    flight = flights.acknowledge("key", put)
    assert (flight.deleted, flight.known) == (True, False)
    flights.end("key", put)
    flights.acknowledge("key", deletion)
    flights.end("key", deletion)
    assert flights.of("key", None) == [version]


def test_what_is_alone_leaves_nothing() -> None:
    flights = Flights({})
    ticket = flights.begin("key", new_version())
    assert flights["key"] is ticket
    assert flights.of("key", None) == [ticket[0]]
    flights.acknowledge("key", ticket)
    flights.end("key", ticket)
    assert not flights


def test_what_went_astray_is_bounded() -> None:
    flights = Flights({})
    for number in range(5000):
        flights.end(f"{number}", flights.begin(f"{number}", new_version()))
    for _ in range(500):
        flights.end("4999", flights.begin("4999", new_version()))
    assert len(flights._astray) == 1024
    assert len(flights.of("4999", None)) == MOST_SENT
    assert set(flights) == set(flights._astray)


def test_a_write_that_began_later_ends_what_was_acknowledged_before() -> None:
    flights = Flights({})
    first, second, third = (new_version() for _ in range(3))
    for ticket in [flights.begin("key", version) for version in (first, second)]:
        flights.acknowledge("key", ticket)
        flights.end("key", ticket)
    assert flights.of("key", None) == [first, second]
    ticket = flights.begin("key", third)
    assert flights.of("key", None) == [first, second, third]
    assert flights["key"] is not ticket, "there is something to forget"
    flights.acknowledge("key", ticket)
    flights.end("key", ticket)
    assert not flights
