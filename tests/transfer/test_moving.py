"""Records are taken from store to store as they are, and nothing is written over unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import CorruptRecord, StoreUnavailable
from sessionkit.store import Record, TimedStore
from sessionkit.testing import ManualClock
from sessionkit.transfer import MovedRecord, SourceReader, TargetWriter, Transfer
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sessionkit.store import SessionStore


class DamagedStore(MemoryStore):
    """A memory store that holds something else than records under some keys."""

    damaged: frozenset[str] = frozenset()

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        if key in self.damaged:
            raise CorruptRecord(f"{key} is damaged")
        return await super().get(key, renew_for=renew_for)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        wanted = list(keys)
        for key in wanted:
            if key in self.damaged:
                raise CorruptRecord(f"{key} is damaged")
        return await super().get_many(wanted)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000.0)


@pytest.fixture
async def source(clock: ManualClock) -> AsyncIterator[DamagedStore]:
    async with DamagedStore(clock=clock) as store:
        yield store


@pytest.fixture
async def target(clock: ManualClock) -> AsyncIterator[DamagedStore]:
    async with DamagedStore(clock=clock) as store:
        yield store


async def copy(
    source: SessionStore, target: SessionStore, clock: ManualClock, *, overwrite: bool = False
) -> Transfer:
    reader, writer = (
        SourceReader(source, "bot:", clock=clock),
        TargetWriter(target, overwrite=overwrite, clock=clock),
    )
    async for page in reader.pages(await reader.keys()):
        await writer.write(page)
    return writer.transfer


async def values(store: SessionStore) -> dict[str, bytes]:
    keys = [key async for key in store.scan("")]
    return {key: record.value for key, record in (await store.get_many(keys)).items()}


async def test_records_keep_their_bytes_and_the_life_they_have_left(
    source: DamagedStore, target: DamagedStore, clock: ManualClock
) -> None:
    for number in range(250):
        await source.put(f"bot:{number}", b"%d" % number, expires_in=100.5 if number % 2 else None)
    await source.put("other:1", b"somebody else's")
    clock.advance(40)
    done = await copy(source, target, clock)
    assert done.complete
    assert (done.written, done.found.count) == (250, 250)
    assert done.sent == done.found
    assert await values(target) == {
        key: value for key, value in (await values(source)).items() if key[0] == "b"
    }
    assert isinstance(target, TimedStore)
    assert await target.time_left(["bot:1", "bot:2"]) == {"bot:1": pytest.approx(60.5), "bot:2": None}


async def test_what_is_there_is_left(source: DamagedStore, target: DamagedStore, clock: ManualClock) -> None:
    for name in "abc":
        await source.put(f"bot:{name}", name.encode())
    same = await target.put("bot:a", b"a")
    await target.put("bot:b", b"different")
    done = await copy(source, target, clock)
    assert (done.written, done.unchanged, done.conflicts, done.complete) == (1, 1, ["bot:b"], False)
    assert done.sent == done.found
    assert await values(target) == {"bot:a": b"a", "bot:b": b"different", "bot:c": b"c"}
    assert await target.get("bot:a") == Record(b"a", same.version)
    done = await copy(source, target, clock, overwrite=True)
    assert (done.written, done.conflicts, done.complete) == (3, [], True)
    assert await values(target) == await values(source)


async def test_what_expires_on_the_way_is_not_brought_back(
    source: DamagedStore, target: DamagedStore, clock: ManualClock
) -> None:
    writer = TargetWriter(target, clock=clock)
    await writer.write([MovedRecord("bot:a", b"a", clock() - 1), MovedRecord("bot:b", b"b", clock() + 1)])
    assert (writer.transfer.written, writer.transfer.expired) == (1, 1)
    assert await values(target) == {"bot:b": b"b"}
    clock.advance(2)
    assert await values(target) == {}


async def test_what_vanishes_after_it_was_written_is_noticed(clock: ManualClock) -> None:
    class Forgetful(MemoryStore):
        async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
            await self.delete("bot:a")
            return await super().get_many(keys)

    async with Forgetful(clock=clock) as target:
        writer = TargetWriter(target, clock=clock)
        await writer.write([MovedRecord("bot:a", b"a", clock() + 100), MovedRecord("bot:b", b"b", None)])
    assert not writer.transfer.complete
    assert (writer.transfer.sent.count, writer.transfer.found.count) == (2, 1)


async def test_damaged_records_stop_no_other(
    source: DamagedStore, target: DamagedStore, clock: ManualClock
) -> None:
    for name in "abc":
        await source.put(f"bot:{name}", name.encode())
    source.damaged = frozenset({"bot:b"})
    reader = SourceReader(source, "bot:", clock=clock)
    pages = [page async for page in reader.pages(await reader.keys())]
    assert [record.key for page in pages for record in page] == ["bot:a", "bot:c"]
    assert reader.damaged == ["bot:b"]
    # And in the target: what is there is no record, and is kept.
    await target.put("bot:a", b"")
    target.damaged = frozenset({"bot:a"})
    source.damaged = frozenset()
    done = await copy(source, target, clock)
    assert (done.written, done.conflicts) == (2, ["bot:a"])


async def test_a_store_that_is_full_is_an_error(source: DamagedStore, clock: ManualClock) -> None:
    for name in "ab":
        await source.put(f"bot:{name}", bytes(600))
    async with MemoryStore(max_bytes=2_000, clock=clock) as target:
        with pytest.raises(StoreUnavailable, match="the memory store is full"):
            await copy(source, target, clock)
