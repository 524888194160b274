"""Several writes, all or none: on the primary, in the journal, and on the way from one to the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import (
    Applied,
    BatchRefused,
    CircuitOpen,
    ConfigurationError,
    JournalFull,
    StoreTimeout,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.resilience import (
    ConflictFound,
    Journal,
    Quarantined,
    ResilientStore,
    RetryPolicy,
    State,
    StoreFile,
)
from sessionkit.store import ABSENT, Capabilities, Delete, Put, Receipt, Where, new_version
from sessionkit.testing.chaos import ChaosStore
from sessionkit_memory import MemoryStore
from tests.resilience.held import cancelled, turns
from tests.resilience.test_late_answers import Bot, bot, lost
from tests.resilience.wire import Disk
from tests.resilience.world import World, in_virtual_time, world

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from sessionkit.store import Absent, SessionStore, Version

ONCE = RetryPolicy(attempts=1)
KEYS = ["a", "b", "c"]


async def values(store: SessionStore) -> dict[str, bytes]:
    """Return what stands under the keys."""
    return {key: record.value for key, record in (await store.get_many(KEYS)).items()}


async def fill(here: World) -> dict[str, Version]:
    """Have the store know a record of each key."""
    return {key: (await here.store.put(key, b"old")).version for key in KEYS}


def conflicts(refused: BatchRefused) -> dict[str, Version | Absent]:
    found = {}
    for key, refusal in refused.refusals.items():
        assert isinstance(refusal, VersionConflict)
        found[key] = refusal.current
    return found


# While the primary is well


class OneByOne(MemoryStore):
    """A store that does not write several records together."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, atomic=False)


async def test_what_the_primary_cannot_is_refused() -> None:
    async with ResilientStore(MemoryStore()) as store:
        assert store.capabilities.atomic
    async with ResilientStore(OneByOne()) as store:
        assert not store.capabilities.atomic
        with pytest.raises(ConfigurationError, match="one by one"):
            await store.write_all([Put("a", b"1")])
        assert await store.get("a") is None


@in_virtual_time
async def test_it_is_one_operation_of_the_primary_and_known_afterwards() -> None:
    async with world(retry=ONCE) as here:
        await fill(here)
        before = here.link.operations
        receipt = await here.store.write_all([Put("a", b"new"), Put("b", b"brief", 10), Delete("c")])
        assert here.link.operations == before + 1
        assert receipt.where is Where.PRIMARY
        here.link.refuse()
        records = await here.store.get_many(["a", "b"])
        assert {key: (record.value, record.version) for key, record in records.items()} == {
            "a": (b"new", receipt.version),
            "b": (b"brief", receipt.version),
        }
        with pytest.raises(StoreUnavailable):
            await here.store.get("c")
        await asyncio.sleep(11)
        with pytest.raises(StoreUnavailable):
            await here.store.get("b")
        assert not here.store._flights


@in_virtual_time
async def test_a_lost_answer_is_asked_for_again_under_the_same_id() -> None:
    async with world(retry=RetryPolicy(attempts=2)) as here:
        versions = await fill(here)
        here.link.lose_replies(1)
        receipt = await here.store.write_all([Put("a", b"new", if_version=versions["a"]), Delete("b")])
        assert receipt.where is Where.PRIMARY
        assert (here.store.retries.retries, here.store.state) == (1, State.HEALTHY)
        assert await values(here.primary) == {"a": b"new", "c": b"old"}


@in_virtual_time
async def test_a_refusal_is_an_answer() -> None:
    async with world(retry=RetryPolicy(attempts=2)) as here:
        versions = await fill(here)
        before = here.link.operations
        with pytest.raises(BatchRefused) as caught:
            await here.store.write_all([Put("a", b"new", if_version=ABSENT), Delete("b")])
        assert conflicts(caught.value) == {"a": versions["a"]}
        assert caught.value.applied is Applied.NO
        assert (here.link.operations, here.store.state) == (before + 1, State.HEALTHY)
        assert await values(here.store) == dict.fromkeys(KEYS, b"old")
        assert not here.store._flights


@in_virtual_time
async def test_what_waits_for_the_primary_is_replayed_before() -> None:
    async with bot() as here:
        here.outage()
        waiting = await here.store.put("a", b"waits")
        here.primary.holds, here.primary.down = True, False
        replay = await here.primary.held.get()
        writing = asyncio.create_task(
            here.store.write_all([Put("b", b"new"), Put("a", b"new", if_version=waiting.version)])
        )
        await turns()
        assert here.primary.held.empty(), "it waits for its turn"
        await replay.apply()
        await replay.reply()
        together = await here.primary.held.get()
        assert await MemoryStore.get(here.primary, "b") is None
        await together.apply()
        assert (await MemoryStore.get_many(here.primary, ["a", "b"])).keys() == {"a", "b"}
        await together.reply()
        assert (await writing).where is Where.PRIMARY
        here.primary.holds = False


# While it is not


@in_virtual_time
async def test_it_is_journaled_and_then_written() -> None:
    async with world(retry=ONCE) as here:
        versions = await fill(here)
        here.link.refuse()
        receipt = await here.store.write_all(
            [Put("a", b"new", 100, versions["a"]), Delete("b"), Put("new", b"1", if_version=ABSENT)]
        )
        assert receipt.where is Where.JOURNALED
        assert [(entry.key, entry.makes) for entry in here.store.journal] == [
            ("a", receipt.version),
            ("b", ABSENT),
            ("new", receipt.version),
        ]
        assert here.store.counts.journaled == 3
        assert await values(here.store) == {"a": b"new", "c": b"old"}
        await here.heal()
        assert await values(here.primary) == {"a": b"new", "c": b"old"}
        record = await here.primary.get("new")
        assert record is not None
        assert record.version == receipt.version
        assert here.conflicts == []


@in_virtual_time
async def test_a_conflict_that_is_known_here_leaves_the_journal_as_it_is() -> None:
    async with world(retry=ONCE) as here:
        versions = await fill(here)
        here.link.refuse()
        newer = await here.store.put("b", b"newer")
        before = list(here.store.journal)
        with pytest.raises(BatchRefused) as caught:
            await here.store.write_all(
                [
                    Put("unknown", b"1"),
                    Put("a", b"new", if_version=ABSENT),
                    Put("b", b"new", if_version=versions["b"]),
                    Delete("c", if_version=versions["c"]),
                ]
            )
        assert conflicts(caught.value) == {"a": versions["a"], "b": newer.version}
        assert caught.value.applied is Applied.NO
        assert list(here.store.journal) == before


@in_virtual_time
async def test_the_journal_has_room_for_all_or_takes_none() -> None:
    async with world(retry=ONCE, journal=Journal(6000)) as here:
        here.link.refuse()
        await here.store.put("other", b"x" * 500)
        before = list(here.store.journal)
        with pytest.raises(JournalFull) as caught:
            await here.store.write_all([Put(key, b"x" * 1000) for key in KEYS])
        assert caught.value.applied is Applied.NO
        assert list(here.store.journal) == before
        assert here.store.state is State.SATURATED
        await here.store.write_all([Put("a", b"short"), Put("b", b"x" * 500), Delete("c")])
        await here.heal()
        assert await values(here.primary) == {"a": b"short", "b": b"x" * 500}


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "lost"])
@in_virtual_time
async def test_what_may_have_arrived_is_written_once(applied: bool) -> None:
    async with world(retry=ONCE) as here:
        versions = await fill(here)
        (here.link.lose_replies if applied else here.link.lose_requests)(1)
        receipt = await here.store.write_all(
            [Put("a", b"new", if_version=versions["a"]), Put("b", b"new"), Delete("c")]
        )
        assert receipt.where is Where.JOURNALED
        if applied:
            await here.primary.put("a", b"theirs", if_version=receipt.version)
        await here.settle()
        assert await values(here.primary) == {"a": b"theirs" if applied else b"new", "b": b"new"}
        assert here.conflicts == []


@in_virtual_time
async def test_without_a_fallback_it_raises() -> None:
    async with world(retry=ONCE, outage="raise") as here:
        here.link.lose_replies(1)
        with pytest.raises(StoreTimeout) as lost_answer:
            await here.store.write_all([Put("a", b"1"), Put("b", b"1")])
        assert lost_answer.value.applied is Applied.MAYBE
        with pytest.raises(CircuitOpen):
            await here.store.write_all([Put("a", b"2"), Put("b", b"2")])
        assert here.store.journal.depth == 0
        assert await values(here.primary) == {"a": b"1", "b": b"1"}


@in_virtual_time
async def test_a_repetition_changes_nothing() -> None:
    async with world(retry=ONCE) as here:
        versions = await fill(here)
        here.link.refuse()
        write_id = new_version()
        writes: list[Put | Delete] = [
            Put("a", b"new", if_version=versions["a"]),
            Put("b", b"new"),
            Delete("c"),
        ]
        assert await here.store.write_all(writes, write_id=write_id) == Receipt(write_id, Where.JOURNALED)
        await here.store.write_all([Put("b", b"newer"), Put("c", b"newer")])
        before = {entry.key: entry for entry in here.store.journal}
        assert await here.store.write_all(writes, write_id=write_id) == Receipt(write_id, Where.JOURNALED)
        assert {entry.key: entry for entry in here.store.journal} == before
        await here.heal()
        assert await values(here.primary) == {"a": b"new", "b": b"newer", "c": b"newer"}
        here.link.refuse()
        assert await here.store.write_all(writes, write_id=write_id) == Receipt(write_id)
        assert here.store.journal.depth == 0


@in_virtual_time
async def test_nothing_at_all_is_done_at_once() -> None:
    async with world(retry=ONCE) as here:
        here.link.refuse()
        await here.store.put("a", b"1")
        assert isinstance(await here.store.write_all([]), Receipt)
        assert here.store.journal.depth == 1


@pytest.mark.parametrize("policy", ["primary_wins", "local_wins"])
@in_virtual_time
async def test_a_conflict_at_the_replay_is_one_of_its_key_alone(
    policy: Literal["primary_wins", "local_wins"],
) -> None:
    async with world(retry=ONCE, on_conflict=policy) as here:
        versions = await fill(here)
        here.link.refuse()
        await here.store.write_all(
            [Put("a", b"new", if_version=versions["a"]), Put("b", b"new"), Delete("c")]
        )
        await here.primary.put("a", b"theirs")
        await here.heal()
        winner: Literal["primary", "local"] = "primary" if policy == "primary_wins" else "local"
        assert here.conflicts == [ConflictFound("a", winner)]
        assert await values(here.primary) == {
            "a": b"theirs" if winner == "primary" else b"new",
            "b": b"new",
        }


# On the way when an outage begins


@in_virtual_time
async def test_an_answer_that_comes_late_undoes_nothing_of_the_journal() -> None:
    async with bot() as here:
        here.primary.holds = True
        writing = asyncio.create_task(here.store.write_all([Put("key", b"first"), Put("b", b"first")]))
        call = await here.primary.held.get()
        await call.apply()
        here.outage()
        await here.store.put("key", b"second")
        await call.reply()
        assert (await writing).where is Where.PRIMARY
        assert await here.read() == b"second"
        await here.heal()
        assert await values(here.primary) == {"b": b"first"}
        assert (await here.stands(), here.conflicts) == (b"second", [])


@in_virtual_time
async def test_an_answer_that_comes_late_tells_of_what_has_replaced_it() -> None:
    async with bot() as here:
        base = await here.store.get("key")
        assert base is not None
        here.primary.holds = True
        writing = asyncio.create_task(
            here.store.write_all([Put("key", b"first", if_version=base.version), Put("b", b"first")])
        )
        call = await here.primary.held.get()
        await call.apply()
        here.outage()
        second = await here.store.put("key", b"second", if_version=base.version)
        await call.reply()
        with pytest.raises(BatchRefused) as caught:
            await writing
        assert conflicts(caught.value) == {"key": second.version}
        assert caught.value.applied is Applied.MAYBE
        await here.heal()
        assert await values(here.primary) == {"b": b"first"}
        assert (await here.stands(), here.conflicts) == (b"second", [])


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "lost"])
@in_virtual_time
async def test_what_was_journaled_meanwhile_comes_after_all_of_it(applied: bool) -> None:
    async with bot() as here:
        await here.store.write_all([Put(key, b"old") for key in KEYS])
        here.primary.holds = True
        writing = asyncio.create_task(
            here.store.write_all([Put("a", b"first"), Delete("b"), Put("c", b"first")])
        )
        call = await here.primary.held.get()
        if applied:
            await call.apply()
        here.outage()
        await here.store.write_all([Put("a", b"second"), Put("b", b"second")])
        if applied:
            await call.reply(lost())
        else:
            await call.refuse()
        assert (await writing).where is Where.JOURNALED
        expected = {"a": b"second", "b": b"second", "c": b"first"}
        assert await values(here.store) == expected
        await here.heal()
        assert (await values(here.primary), here.conflicts) == (expected, [])


@in_virtual_time
async def test_a_retry_does_not_pass_by_what_was_journaled_meanwhile() -> None:
    async with bot(retry=RetryPolicy(attempts=2, first_pause=5, longest_pause=5)) as here:
        base = await here.store.get("key")
        assert base is not None
        here.primary.holds = True
        writing = asyncio.create_task(
            here.store.write_all([Put("b", b"1"), Put("key", b"1", if_version=base.version)])
        )
        await (await here.primary.held.get()).refuse()
        here.outage()
        journaled = await here.store.put("key", b"journaled")
        here.primary.down = False
        with pytest.raises(BatchRefused) as caught:
            await writing
        assert conflicts(caught.value) == {"key": journaled.version}
        assert caught.value.applied is Applied.NO
        await here.heal()
        assert (await values(here.primary), await here.stands()) == ({}, b"journaled")


@in_virtual_time
async def test_what_was_cancelled_and_arrives_is_no_conflict() -> None:
    async with bot() as here:
        here.primary.holds = True
        writing = asyncio.create_task(
            here.store.write_all([Put("key", b"cancelled"), Put("b", b"cancelled")])
        )
        await (await here.primary.held.get()).apply()
        await cancelled(writing)
        here.outage()
        await here.store.write_all([Put("key", b"last"), Put("b", b"last")])
        await here.heal()
        assert await values(here.primary) == {"b": b"last"}
        assert (await here.stands(), here.conflicts) == (b"last", [])


@in_virtual_time
async def test_what_was_set_aside_is_dropped_by_it() -> None:
    async with world(retry=ONCE) as here:
        here.link.refuse()
        await here.store.put("a", b"poison")
        here.link.heal()
        here.link.fail_key("a", StoreUnavailable("no", temporary=False))
        await here.settle()
        assert isinstance(here.events[-2], Quarantined)
        here.link.heal()
        await here.store.write_all([Put("a", b"new"), Put("b", b"new")])
        assert not here.store.journal.quarantined


# With a journal in a file


@in_virtual_time
async def test_the_file_takes_all_or_none(tmp_path: Path) -> None:
    for survives in (True, False):
        disk = ChaosStore(Disk(), seed=1)
        file = StoreFile(disk, tmp_path / "lock")
        async with ResilientStore(MemoryStore(), journal=Journal(file=file)) as store:
            await store.get("a")
            store._recovery.open("found away by somebody")
            before = disk.operations
            disk.hang()
            writing = asyncio.create_task(store.write_all([*(Put(key, b"1") for key in KEYS), Delete("d")]))
            await turns()
            assert disk.operations == before + 1
            assert not writing.done(), "it is acknowledged once the file has it"
            disk.heal(drop=not survives)
            await asyncio.wait([writing])
            assert {entry.key for entry in await file.read()} == ({*KEYS, "d"} if survives else set())
            assert (writing.exception() is None) is survives


@in_virtual_time
async def test_a_file_that_fails_is_told_and_asked_again(tmp_path: Path) -> None:
    disk = ChaosStore(Disk(), seed=1)
    file = StoreFile(disk, tmp_path / "lock")
    here = Bot(journal=Journal(file=file))
    async with here.store:
        await here.store.get("a")
        here.outage()
        disk.refuse()
        write_id = new_version()
        writes = [Put("a", b"1"), Put("b", b"1")]
        with pytest.raises(StoreUnavailable) as caught:
            await here.store.write_all(writes, write_id=write_id)
        assert caught.value.applied is Applied.MAYBE
        assert {entry.key for entry in here.store.journal} == {"a", "b"}
        disk.heal()
        assert await file.read() == []
        assert await here.store.write_all(writes, write_id=write_id) == Receipt(write_id, Where.JOURNALED)
        assert {entry.key for entry in await file.read()} == {"a", "b"}
        await here.heal()
        assert await values(here.primary) == {"a": b"1", "b": b"1"}


async def test_a_file_that_cannot_is_none(tmp_path: Path) -> None:
    class Durable(OneByOne):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, durable=True)

    async with Durable() as store:
        with pytest.raises(ConfigurationError, match="all or none"):
            StoreFile(store, tmp_path / "lock")
