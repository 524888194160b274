"""An outage from its beginning to its end, as one instance lives it."""

from __future__ import annotations

import asyncio

import pytest

from sessionkit.errors import (
    Applied,
    CircuitOpen,
    JournalFull,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.resilience import (
    CircuitBreaker,
    ConflictFound,
    Journal,
    Quarantined,
    RetryPolicy,
    State,
)
from sessionkit.store import ABSENT, Put, Receipt, Record, Where, new_version
from tests.resilience.world import World, in_virtual_time, world


@in_virtual_time
async def test_writes_are_journaled_and_replayed() -> None:
    async with world() as here:
        first = await here.store.put("key", b"1", expires_in=300)
        assert first.where is Where.PRIMARY
        here.link.refuse()
        second = await here.store.put("key", b"2", expires_in=300, if_version=first.version)
        assert second.where is Where.JOURNALED
        assert here.store.state is State.OPEN
        assert await here.store.get("key") == Record(b"2", second.version, stale=True)
        third = await here.store.put("key", b"3", expires_in=300, if_version=second.version)
        with pytest.raises(VersionConflict) as caught:
            await here.store.put("key", b"4", if_version=second.version)
        assert caught.value.current == third.version
        assert here.store.journal.depth == 1
        await here.heal()
        assert here.store.journal.depth == here.store.journal.bytes == 0
        assert await here.primary.get("key") == Record(b"3", third.version)
        assert await here.store.get("key") == Record(b"3", third.version)
        assert here.states == [
            State.OPEN,
            *[State.PROBING, State.OPEN] * 0,
            State.PROBING,
            State.REPLAYING,
            State.HEALTHY,
        ]
        assert here.conflicts == []


@in_virtual_time
async def test_a_write_whose_answer_was_lost_is_applied_once() -> None:
    async with world() as here:
        await here.store.put("key", b"1")
        here.link.lose_replies()
        receipt = await here.store.put("key", b"2")
        assert receipt.where is Where.JOURNALED
        assert await here.primary.get("key") == Record(b"2", receipt.version)
        await here.store.put("key", b"3")
        await here.heal()
        record = await here.primary.get("key")
        assert record is not None
        assert record.value == b"3"
        assert here.conflicts == []


@in_virtual_time
@pytest.mark.parametrize("conditional", [False, True])
async def test_a_put_again_changes_nothing_before_its_replay_and_after(conditional: bool) -> None:
    async with world() as here:
        first = await here.store.put("key", b"1")
        write_id = new_version()
        put = Put("key", b"2", None, first.version if conditional else None, write_id)
        here.link.refuse()
        for _ in range(2):
            assert await put_again(here, put) == Receipt(write_id, Where.JOURNALED)
        await here.heal()
        here.link.refuse()
        assert await put_again(here, put) == Receipt(write_id)
        assert here.store.journal.depth == 0
        await here.store.touch("key", expires_in=60)
        assert await put_again(here, put) == Receipt(write_id, Where.JOURNALED)
        await here.heal()
        assert await here.primary.get("key") == Record(b"2", write_id)
        assert here.conflicts == []


async def put_again(here: World, put: Put) -> Receipt:
    """Put under an id of its own, which may have been used before."""
    key, value, expires_in, if_version, write_id = put
    return await here.store.put(key, value, expires_in=expires_in, if_version=if_version, write_id=write_id)


@in_virtual_time
async def test_what_is_not_known_is_an_error() -> None:
    async with world() as here:
        await here.primary.put("key", b"1")
        here.link.refuse()
        for call in (
            here.store.get("key"),
            here.store.touch("key", expires_in=5),
            here.store.get_many(["key"]),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        with pytest.raises(StoreUnavailable):
            async for _ in here.store.scan(""):
                pass


@in_virtual_time
async def test_others_win_by_default_and_that_is_told() -> None:
    async with world() as here:
        base = await here.store.put("key", b"1")
        here.link.refuse()
        await here.store.put("key", b"mine", if_version=base.version)
        theirs = await here.primary.put("key", b"theirs")
        await here.heal()
        assert await here.store.get("key") == Record(b"theirs", theirs.version)
        assert here.conflicts == [ConflictFound("key", "primary")]


@in_virtual_time
async def test_mine_wins_where_told_so() -> None:
    async with world(on_conflict="local_wins") as here:
        base = await here.store.put("key", b"1")
        here.link.refuse()
        mine = await here.store.put("key", b"mine", if_version=base.version)
        await here.primary.put("key", b"theirs")
        await here.heal()
        assert await here.store.get("key") == Record(b"mine", mine.version)
        assert here.conflicts == [ConflictFound("key", "local")]


@in_virtual_time
async def test_what_was_deleted_does_not_come_back() -> None:
    async with world() as here:
        base = await here.store.put("key", b"1")
        here.link.refuse()
        await here.store.put("key", b"mine", if_version=base.version)
        await here.primary.delete("key")
        await here.heal()
        assert await here.store.get("key") is None
        assert here.conflicts == [ConflictFound("key", "primary")]


@in_virtual_time
async def test_a_deletion_is_kept_and_replayed() -> None:
    async with world() as here:
        await here.store.put("key", b"1")
        here.link.refuse()
        assert await here.store.delete("key") is True
        assert await here.store.delete("key") is False
        assert await here.store.get("key") is None
        await here.heal()
        assert await here.primary.get("key") is None


@in_virtual_time
async def test_a_renewal_is_replayed_and_lives_no_longer_than_it_said() -> None:
    async with world() as here:
        await here.store.put("key", b"1", expires_in=100)
        here.link.refuse()
        assert await here.store.touch("key", expires_in=1000)
        await asyncio.sleep(50)
        await here.heal()
        await asyncio.sleep(940)
        assert await here.primary.get("key") is not None
        await asyncio.sleep(10.1)
        assert await here.primary.get("key") is None


@in_virtual_time
async def test_what_ended_meanwhile_does_not_come_back() -> None:
    async with world() as here:
        await here.store.put("key", b"1")
        here.link.refuse()
        await here.store.put("key", b"2", expires_in=10)
        await asyncio.sleep(11)
        assert await here.store.get("key") is None
        await here.heal()
        assert await here.primary.get("key") is None


@in_virtual_time
async def test_a_full_journal_refuses_and_keeps_what_it_has() -> None:
    async with world(journal=Journal(max_bytes=2800)) as here:
        here.link.refuse()
        kept = [await here.store.put(f"{number}", b"x" * 500) for number in range(2)]
        with pytest.raises(JournalFull) as caught:
            await here.store.put("more", b"x" * 500)
        assert caught.value.temporary
        assert here.store.state is State.SATURATED
        assert here.store.journal.bytes <= 2800
        await here.heal()
        assert (await here.primary.get_many(["0", "1", "more"])).keys() == {"0", "1"}
        assert [receipt.where for receipt in kept] == [Where.JOURNALED] * 2


@in_virtual_time
async def test_told_to_raise_it_journals_nothing() -> None:
    async with world(outage="raise", breaker=CircuitBreaker(failures=2)) as here:
        await here.store.put("key", b"1")
        here.link.refuse()
        with pytest.raises(StoreUnavailable):
            await here.store.put("key", b"2")
        with pytest.raises(CircuitOpen):
            await here.store.get("key")
        assert here.store.journal.depth == 0
        await here.heal()
        record = await here.store.get("key")
        assert record is not None
        assert record.value == b"1"


@in_virtual_time
async def test_poison_is_set_aside_and_stops_nobody() -> None:
    async with world() as here:
        here.link.refuse()
        await here.store.put("poison", b"1")
        await here.store.put("good", b"2")
        here.link.heal()
        here.link.fail_key("poison", StoreUnavailable("no", temporary=False))
        await here.settle()
        assert set(here.store.journal.quarantined) == {"poison"}
        assert [event.key for event in here.events if isinstance(event, Quarantined)] == ["poison"]
        assert await here.primary.get("good") is not None
        with pytest.raises(StoreUnavailable, match="1 keys"):
            await here.store.aclose()


@in_virtual_time
async def test_a_lock_is_local_and_says_so() -> None:
    async with world() as here:
        async with here.store.lock("key") as lease:
            assert lease.local is False
        here.link.refuse()
        async with here.store.lock("key") as lease:
            assert lease.local is True


@in_virtual_time
async def test_a_batch_that_fails_is_journaled() -> None:
    async with world() as here:
        here.link.refuse()
        receipts = await here.store.put_many([Put("a", b"1"), Put("b", b"2"), Put("a", b"3")])
        assert [receipt.where for receipt in receipts] == [Where.JOURNALED] * 3
        found = await here.store.get_many(["a", "b"])
        assert {key: record.value for key, record in found.items()} == {"a": b"3", "b": b"2"}
        assert await here.store.delete_many(["a", "b"]) == 2
        await here.heal()
        assert await here.primary.get_many(["a", "b"]) == {}


@in_virtual_time
async def test_a_cancelled_write_may_have_happened() -> None:
    async with world() as here:
        here.link.hang()
        writing = asyncio.create_task(here.store.put("key", b"1", if_version=ABSENT))
        await asyncio.sleep(1)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        here.link.heal()
        await asyncio.sleep(1)
        assert here.store.state is State.HEALTHY
        assert await here.primary.get("key") is not None


@in_virtual_time
async def test_closing_with_a_journal_in_memory_says_what_is_lost() -> None:
    here = World(retry=RetryPolicy(attempts=1))
    here.link.refuse()
    await here.store.put("key", b"1")
    with pytest.raises(StoreUnavailable, match="1 keys") as caught:
        await here.store.aclose()
    assert caught.value.temporary is False
    assert caught.value.applied is Applied.NO


@in_virtual_time
async def test_what_has_no_follower_is_drained_at_the_end() -> None:
    here = World()
    here.link.refuse()
    await here.store.put("key", b"1")
    here.link.heal()
    primary = here.primary
    seen = []
    close = primary.aclose

    async def look() -> None:
        seen.append(await primary.get("key"))
        await close()

    primary.aclose = look  # type: ignore[method-assign]
    await here.store.aclose()
    assert seen[0] is not None


@in_virtual_time
async def test_a_write_that_ended_beside_another_record_is_a_conflict() -> None:
    async with world(retry=RetryPolicy(attempts=1)) as here:
        gone = await here.primary.put("key", b"rolled back since")
        await here.primary.put("key", b"theirs")
        here.link.refuse()
        await here.store.put("key", b"mine", expires_in=1, if_version=gone.version)
        await asyncio.sleep(2)
        await here.heal()
        assert here.conflicts == [ConflictFound("key", "primary")]
