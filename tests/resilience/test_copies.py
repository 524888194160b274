"""Copies of what was last seen: bounded, and never of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import ConfigurationError
from sessionkit.resilience import LastKnown
from sessionkit.resilience.copies import Copy
from sessionkit.store import Record, Version, new_version

MAX_BYTES = 4000
OVERHEAD = 400
keys = st.sampled_from([f"key{number}" for number in range(8)])


def bytes_of(copies: LastKnown) -> int:
    """Return how many bytes the copies take, also those that another one hides."""
    return sum(
        OVERHEAD + len(key) + len(value)
        for generation in (copies._young, copies._old)
        for key, (value, _, _) in generation.items()
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
            copies.read(key, Record(bytes(size), version), copies.mark(key))
        elif step == "forget":
            model.pop(key, None)
            copies.forget(key)
        elif last is not None and step == "renew":
            model[key] = last._replace(until=float(number))
            copies.renew(key, float(number))
        elif last is not None and copies.get(key) is not None:
            # When it ends stays known as long as it is the same.
            copies.read(key, Record(last.value, last.version), copies.mark(key))
        for name, known in model.items():
            assert copies.get(name) in {None, known}
        if step in {"take", "read"}:
            fits = OVERHEAD + len(key) + size <= MAX_BYTES // 2
            assert (copies.get(key) is not None) is fits, "what was seen last is kept, if it is not too large"
        elif step == "forget":
            assert copies.get(key) is None
        assert bytes_of(copies) <= MAX_BYTES


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


def test_a_mark_is_the_same_until_its_copy_changes() -> None:
    copies = LastKnown(MAX_BYTES)
    none = copies.mark("key")
    assert copies.mark("key") is none
    copies.take("key", b"1", new_version(), None)
    first = copies.mark("key")
    assert first is not none
    copies.take("other", b"", new_version(), None)
    assert copies.mark("key") is first
    copies.renew("key", 1.0)
    assert copies.mark("key") is not first
    copies.forget("key")
    assert copies.mark("key") is not none, "it was there, and is gone again"
