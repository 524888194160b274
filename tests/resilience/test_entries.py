"""Entries of a journal: what they count for, and that what was written is what is read."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import CorruptRecord
from sessionkit.resilience import Entry, Kind
from sessionkit.resilience.entries import MOST_SENT, _checksum
from sessionkit.store import ABSENT, VERSION_BYTES, Absent, Version
from sessionkit.testing.strategies import text

versions = st.binary(min_size=VERSION_BYTES, max_size=VERSION_BYTES).map(Version)
seconds = st.none() | st.floats(min_value=0, allow_infinity=False) | st.integers(0, 2**40)
entries = st.builds(
    Entry,
    key=text(),
    seq=st.integers(0, 2**63),
    write_id=versions,
    kind=st.sampled_from(Kind),
    value=st.binary(),
    deadline=seconds,
    expires_in=seconds,
    base=st.none() | st.just(ABSENT) | versions,
    base_value=st.none() | st.binary(),
    sent=st.lists(versions | st.just(ABSENT), max_size=MOST_SENT, unique=True).map(tuple),
)


@given(entries)
def test_what_is_read_is_what_was_written(entry: Entry) -> None:
    assert Entry.decode(entry.encode()) == entry


@given(entries, st.data())
def test_any_damage_is_noticed(entry: Entry, data: st.DataObject) -> None:
    written = entry.encode()
    at = data.draw(st.integers(0, len(written) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(written)
    flipped[at] ^= 1 << bit
    for damaged in (bytes(flipped), written[:at], written + b"\0"):
        with pytest.raises(CorruptRecord):
            Entry.decode(damaged)


@given(st.binary())
def test_bytes_of_others_are_no_entry(data: bytes) -> None:
    for foreign in (data, _checksum(data) + data):
        with pytest.raises(CorruptRecord):
            Entry.decode(foreign)


@pytest.mark.parametrize("content", [None, [], {}, [1], [1, *range(10)], [1, *range(11)], {1: 2}, "1", [[]]])
def test_what_is_well_packed_need_not_be_an_entry(content: object) -> None:
    packed: bytes = msgpack.packb(content)
    with pytest.raises(CorruptRecord):
        Entry.decode(_checksum(packed) + packed)


def test_a_later_format_is_said_to_be_one() -> None:
    packed: bytes = msgpack.packb([2, "all", "else", "may", "differ"])
    with pytest.raises(CorruptRecord, match="another version of sessionkit"):
        Entry.decode(_checksum(packed) + packed)


@given(entries)
def test_it_counts_for_all_the_bytes_it_carries(entry: Entry) -> None:
    carried = len(entry.key.encode()) + len(entry.value) + len(entry.base_value or b"")
    assert entry.size == replace(entry, key="", value=b"", base_value=None).size + carried
    assert entry.size > carried


@given(entries, st.lists(versions | st.just(ABSENT)))
def test_the_last_of_what_was_sent_is_remembered_each_once(
    entry: Entry, later: list[Version | Absent]
) -> None:
    sent = entry.also_sent(later).sent
    assert len(set(sent)) == len(sent) <= MOST_SENT
    latest_first = dict.fromkeys((*reversed(later), *reversed(entry.sent)))
    assert sent == tuple(reversed(latest_first))[-MOST_SENT:]
    assert entry.also_sent(sent[:0]) == entry


def test_it_ends_at_its_deadline() -> None:
    entry = Entry("key", 1, Version(bytes(8)), Kind.PUT, deadline=100.0, expires_in=10.0)
    assert not entry.expired(99.9)
    assert entry.expired(100.0)
    assert not replace(entry, deadline=None).expired(1e300)
