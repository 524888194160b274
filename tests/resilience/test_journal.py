"""The journal: one entry per key, in order, within its bound, and in step with its file."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionkit.errors import Applied, ConfigurationError, JournalFull, StoreUnavailable
from sessionkit.resilience import Entry, Journal, Kind, StoreFile
from sessionkit.store import new_version
from sessionkit.testing.chaos import ChaosStore
from sessionkit_sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

MAX_BYTES = 3000


def entry_of(journal: Journal, key: str, value: bytes = b"") -> Entry:
    return Entry(key, journal.next_seq(), new_version(), Kind.PUT, value)


def nothing_left_of(replayed: Entry) -> Callable[[Entry], Entry | None]:
    """What a replay of this entry leaves: what was written since."""
    return lambda now: None if now.seq == replayed.seq else now


@dataclass
class Model:
    """What a journal should hold."""

    waiting: dict[str, Entry] = field(default_factory=dict)
    aside: dict[str, Entry] = field(default_factory=dict)

    def bytes_without(self, *keys: str) -> int:
        entries = (*self.waiting.values(), *self.aside.values())
        return sum(entry.size for entry in entries if entry.key not in keys)

    def check(self, journal: Journal) -> None:
        assert list(journal) == list(self.waiting.values())
        assert journal.quarantined == self.aside
        assert journal.bytes == self.bytes_without() <= MAX_BYTES
        assert journal.depth == len(self.waiting)
        for key in "abc":
            assert (key in journal) is (key in self.waiting)
            assert journal.get(key) == self.waiting.get(key)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.sampled_from("abc"), unique=True), st.integers(0, 1500)),
            st.tuples(st.sampled_from(["settle", "set aside"]), st.sampled_from(["a", "b", "c"]), st.just(0)),
        )
    )
)
async def test_it_holds_one_entry_per_key_within_its_bound(
    taken: list[tuple[str, Sequence[str], int]],
) -> None:
    journal = Journal(MAX_BYTES)
    model = Model()
    for step, keys, size in taken:
        if step == "add":
            entries = [entry_of(journal, key, bytes(size)) for key in keys]
            needed = sum(entry.size for entry in entries)
            if model.bytes_without(*keys) + needed <= MAX_BYTES:
                await journal.add(*entries)
                for entry in entries:
                    model.aside.pop(entry.key, None)
                    model.waiting.pop(entry.key, None)
                    model.waiting[entry.key] = entry
            else:
                with pytest.raises(JournalFull):
                    await journal.add(*entries)
                assert journal.full or needed > MAX_BYTES
        elif (there := journal.get(keys[0])) is not None and step == "settle":
            await journal.settle(there.key, nothing_left_of(there))
            del model.waiting[there.key]
            assert not journal.full
        elif there is not None:
            journal.set_aside(there)
            model.aside[there.key] = model.waiting.pop(there.key)
        model.check(journal)


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_bound_is_above_zero(max_bytes: int) -> None:
    with pytest.raises(ConfigurationError, match="max_bytes"):
        Journal(max_bytes)


async def test_what_was_written_during_a_replay_is_kept() -> None:
    journal = Journal()
    first = entry_of(journal, "key")
    await journal.add(first)
    second = entry_of(journal, "key")
    await journal.add(second)
    rebased = replace(second, base=first.write_id)
    await journal.settle("key", lambda now: replace(now, base=first.write_id))
    assert list(journal) == [rebased]
    assert journal.bytes == rebased.size


# In step with a file


@asynccontextmanager
async def journal_in(directory: Path) -> AsyncIterator[tuple[Journal, ChaosStore]]:
    """A journal in a file, and what stands between the two."""
    disk = ChaosStore(SqliteStore(directory / "journal.db"), seed=1)
    journal = Journal(file=StoreFile(disk, directory / "lock"))
    await journal.load()
    try:
        yield journal, disk
    finally:
        disk.heal()
        await journal.aclose()


async def on_disk(directory: Path) -> dict[str, Entry]:
    async with journal_in(directory) as (journal, _):
        return {entry.key: entry for entry in journal}


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["add", "settle"]), st.sampled_from("ab")), max_size=40))
async def test_the_file_holds_the_last_of_what_was_asked_at_once(taken: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with journal_in(directory) as (journal, _):
            settling: set[str] = set()
            tasks = []
            for step, key in taken:
                there = journal.get(key)
                if step == "add":
                    tasks.append(asyncio.create_task(journal.add(entry_of(journal, key))))
                elif there is not None and key not in settling:  # a key is replayed by one task at a time
                    settling.add(key)
                    tasks.append(asyncio.create_task(journal.settle(key, nothing_left_of(there))))
                # Each has begun, and none has heard from the disk, when the next one comes.
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            waiting = {entry.key: entry for entry in journal}
        assert await on_disk(directory) == waiting


async def test_a_key_is_not_free_before_the_file_has_let_go_of_it(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        entry = entry_of(journal, "key")
        await journal.add(entry)
        disk.hang()
        settling = asyncio.create_task(journal.settle("key", nothing_left_of(entry)))
        await asyncio.sleep(0)
        assert disk.faults["hang"] == 1
        assert "key" in journal
        disk.heal()
        await settling
        assert "key" not in journal
    assert await on_disk(tmp_path) == {}


async def test_a_write_while_the_file_lets_go_stays(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        first, second = entry_of(journal, "key"), entry_of(journal, "key")
        await journal.add(first)
        disk.hang()
        settling = asyncio.create_task(journal.settle("key", nothing_left_of(first)))
        await asyncio.sleep(0)
        adding = asyncio.create_task(journal.add(second))
        await asyncio.sleep(0)
        disk.heal()
        await asyncio.gather(settling, adding)
        assert list(journal) == [second]
    assert await on_disk(tmp_path) == {"key": second}


async def test_a_replay_that_is_cancelled_leaves_the_entry(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        entry = entry_of(journal, "key")
        await journal.add(entry)
        disk.hang()
        settling = asyncio.create_task(journal.settle("key", nothing_left_of(entry)))
        await asyncio.sleep(0)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        disk.heal(drop=True)
        assert list(journal) == [entry]
        await journal.settle("key", nothing_left_of(entry))
    assert await on_disk(tmp_path) == {}


async def test_what_the_file_could_not_drop_it_drops_with_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        first, second = entry_of(journal, "first"), entry_of(journal, "second")
        for entry in (first, second):
            await journal.add(entry)
        disk.refuse()
        with caplog.at_level(logging.WARNING, "sessionkit.resilience"):
            await journal.settle("first", nothing_left_of(first))
        assert "keeps what is settled for now" in caplog.text
        assert list(journal) == [second]
        disk.heal()
        await journal.settle("second", nothing_left_of(second))
    assert await on_disk(tmp_path) == {}


async def test_what_the_file_could_not_drop_it_drops_at_the_end(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        entry = entry_of(journal, "key")
        await journal.add(entry)
        disk.refuse()
        await journal.settle("key", nothing_left_of(entry))
        assert list(journal) == []
    assert await on_disk(tmp_path) == {}


async def test_what_the_file_could_not_drop_does_not_take_a_later_write_along(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        first, later, other = (entry_of(journal, key) for key in ("key", "key", "other"))
        await journal.add(first)
        disk.refuse()
        await journal.settle("key", nothing_left_of(first))
        disk.heal()
        await journal.add(later)
        await journal.add(other)
        await journal.settle("other", nothing_left_of(other))
    assert await on_disk(tmp_path) == {"key": later}


async def test_a_write_that_the_file_refuses_may_be_replayed_and_says_so(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, disk):
        first, second = entry_of(journal, "key"), entry_of(journal, "key")
        await journal.add(first)
        disk.refuse()
        with pytest.raises(StoreUnavailable) as caught:
            await journal.add(second)
        assert caught.value.applied is Applied.MAYBE
        assert list(journal) == [second]
    assert await on_disk(tmp_path) == {"key": first}


async def test_what_was_set_aside_is_there_again_at_the_next_start(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for key in ("a", "b", "c"):
            await journal.add(entry_of(journal, key))
        entries = {entry.key: entry for entry in journal}
        journal.set_aside(entries["b"])
        assert journal.quarantined == {"b": entries["b"]}
    for _life in range(2):
        async with journal_in(tmp_path) as (journal, _):
            assert list(journal) == [entries["a"], entries["b"], entries["c"]], "in the order of their writes"
            assert journal.quarantined == {}
            assert journal.bytes == sum(entry.size for entry in entries.values())
            assert journal.next_seq() > entries["c"].seq
            journal.set_aside(entries["b"])


async def test_a_write_takes_the_place_of_one_that_was_set_aside(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        poison = entry_of(journal, "key", b"poison")
        await journal.add(poison)
        journal.set_aside(poison)
        later = entry_of(journal, "key")
        await journal.add(later)
        assert journal.quarantined == {}
        assert journal.bytes == later.size
    assert await on_disk(tmp_path) == {"key": later}


async def test_more_than_its_bound_is_taken_up_and_nothing_added(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for number in range(10):
            await journal.add(entry_of(journal, f"{number}", bytes(500)))
    small = Journal(MAX_BYTES, file=StoreFile.of(SqliteStore(tmp_path / "journal.db")))
    await small.load()
    assert small.depth == 10
    assert small.bytes > MAX_BYTES
    with pytest.raises(JournalFull):
        await small.add(entry_of(small, "more"))
    await small.add(entry_of(small, "1", b"shorter"))
    await small.aclose()
