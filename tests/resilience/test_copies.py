"""Copies of what was last seen: bounded, and never of anything else."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import ConfigurationError
from sessionkit.resilience import LastKnown, ResilientStore
from sessionkit.resilience.copies import Copy
from sessionkit.store import Record, Version, new_version
from sessionkit_memory import MemoryStore

MAX_BYTES = 4000
OVERHEAD = 400
keys = st.sampled_from([f"key{number}" for number in range(8)])


def bytes_of(copies: LastKnown) -> int:
    """Return how many bytes the copies take, also those that another one hides."""
    return sum(
        OVERHEAD + len(key) + len(held.value)
        for generation in (copies.young, copies._old)
        for key, held in generation.items()
    )


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), keys, st.integers(0, 3000)),
            st.tuples(st.just("read"), keys, st.integers(0, 3000)),
            st.tuples(st.sampled_from(["renew", "forget", "read again"]), keys, st.just(0)),
        )
    )
)
def test_it_knows_the_last_or_nothing_within_its_bound(taken: list[tuple[str, str, int]]) -> None:
    copies = LastKnown(MAX_BYTES)
    model: dict[str, Copy] = {}
    for number, (step, key, size) in enumerate(taken):
        last = model.get(key)
        version = new_version()
        if step == "take":
            model[key] = Copy(bytes(size), version, float(number))
            copies.take(key, *model[key])
        elif step == "read":
            model[key] = Copy(bytes(size), version, None)
            copies.read(key, Record(bytes(size), version), copies.mark(key), 0.0)
        elif step == "forget":
            model.pop(key, None)
            copies.forget(key)
        elif last is not None and step == "renew":
            model[key] = last._replace(until=float(number))
            copies.renew(key, float(number))
        elif last is not None and copies.get(key) is not None:
            # When it ends stays known as long as it is the same.
            copies.read(key, Record(last.value, last.version), copies.mark(key), -1.0)
        for name, known in model.items():
            assert copies.get(name) in {None, known}
        if step in {"take", "read"}:
            fits = OVERHEAD + len(key) + size <= MAX_BYTES // 2
            assert (copies.get(key) is not None) is fits, "what was seen last is kept, if it is not too large"
        elif step == "forget":
            assert copies.get(key) is None
        assert bytes_of(copies) <= MAX_BYTES


@given(st.lists(st.tuples(st.sampled_from(["write", "take", "read", "forget"]), keys, st.integers(0, 3000))))
def test_a_ticket_beside_a_copy_outlives_the_copy(steps: list[tuple[str, str, int]]) -> None:
    copies = LastKnown(MAX_BYTES)
    flights = copies.flights
    under_way: dict[str, list[Version]] = {}
    for step, key, size in steps:
        version = new_version()
        if step == "write":
            held = copies.young.get(key)
            if held is not None and held.ticket is None and key not in flights:
                held.ticket = (version, None)
            else:
                flights.begin(key, version)
            under_way.setdefault(key, []).append(version)
        elif step == "take":
            copies.take(key, bytes(size), version, None)
        elif step == "read":
            copies.read(key, Record(bytes(size), version), copies.mark(key), 0.0)
        else:
            copies.forget(key)
        for known, held in copies.young.items():
            assert held.ticket is None or known not in flights
        assert all(held.ticket is None for held in copies._old.values())
    for key, versions in under_way.items():
        assert flights.of(key, None) == versions


def test_what_was_seen_lately_outlives_the_rest() -> None:
    copies = LastKnown(MAX_BYTES)
    copies.take("kept", b"", new_version(), None)
    for number in range(100):
        copies.take(f"{number}", b"", new_version(), None)
        kept = copies.get("kept")
        assert kept is not None
        copies.take("kept", *kept)
    assert copies.get("0") is None


def test_without_room_nothing_is_kept() -> None:
    copies = LastKnown(0)
    copies.take("key", b"", Version(bytes(8)), None)
    copies.renew("key", 1.0)
    assert copies.get("key") is None


def test_a_bound_is_not_below_zero() -> None:
    with pytest.raises(ConfigurationError, match="max_bytes"):
        LastKnown(-1)


def test_a_mark_is_the_same_until_something_is_written() -> None:
    copies = LastKnown(MAX_BYTES)
    none = copies.mark("key")
    assert copies.mark("key") is none
    copies.take("key", b"1", new_version(), None)
    first = copies.mark("key")
    assert first is not none
    copies.take("other", b"", new_version(), None)
    copies.renew("key", 1.0)
    assert copies.mark("key") is first
    copies.forget("key")
    assert copies.mark("key") not in {none, first}, "it was there, and is gone again"


def test_of_answers_that_overlap_the_last_one_counts() -> None:
    copies = LastKnown(MAX_BYTES)
    mark = copies.mark("key")
    first, second = (Record(value, new_version()) for value in (b"1", b"2"))
    for record in (first, second):
        copies.read("key", record, mark, 0.0)
        assert copies.get("key") == Copy(record.value, record.version, None)
    copies.read_none("key", mark)
    assert copies.get("key") is None
    copies.read("key", first, mark, 0.0)
    assert copies.get("key") is None, "it was asked for before the record was gone"


def test_an_answer_that_is_older_than_a_write_changes_nothing() -> None:
    copies = LastKnown(MAX_BYTES)
    mark = copies.mark("key")
    written = Copy(b"2", new_version(), 5.0)
    copies.take("key", *written)
    copies.read("key", Record(b"1", new_version()), mark, 0.0)
    copies.read_none("key", mark)
    assert copies.get("key") == written


def test_that_one_key_is_empty_takes_no_copy_from_another() -> None:
    copies = LastKnown(MAX_BYTES)
    marks = {key: copies.mark(key) for key in ("full", "empty")}
    copies.read_none("empty", marks["empty"])
    record = Record(b"1", new_version())
    copies.read("full", record, marks["full"], 0.0)
    assert copies.get("full") == Copy(b"1", record.version, None)


def test_what_is_there_though_it_should_have_ended_was_renewed_by_others() -> None:
    copies = LastKnown(MAX_BYTES)
    record = Record(b"1", new_version())
    copies.take("key", record.value, record.version, 60.0)
    copies.read("key", record, copies.mark("key"), 59.0)
    assert copies.get("key") == Copy(b"1", record.version, 60.0)
    copies.read("key", record, copies.mark("key"), 60.0)
    assert copies.get("key") == Copy(b"1", record.version, None)


async def test_what_is_read_while_generations_change_is_seen_again() -> None:
    class Slow(MemoryStore):
        """Its reads wait until they may go on."""

        go_on = asyncio.Event()

        async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
            await self.go_on.wait()
            return await super().get(key, renew_for=renew_for)

    copies = LastKnown(MAX_BYTES)
    async with ResilientStore(Slow(), copies) as store:
        await store.put("key", b"1")
        reading = asyncio.create_task(store.get("key"))
        await asyncio.sleep(0)
        for number in range(4):
            await store.put(f"first{number}", b"")
        assert "key" not in copies.young
        Slow.go_on.set()
        assert await reading is not None
        for number in range(4):
            await store.put(f"second{number}", b"")
        assert copies.get("key") is not None
