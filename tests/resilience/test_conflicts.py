"""Merging dicts: the laws of a three-way merge, by value and by type."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec
from sessionkit.errors import CodecError, ConfigurationError, DecryptionError
from sessionkit.resilience import merge_dicts, merge_three
from sessionkit.resilience.conflicts import check_policy
from sessionkit.testing.equality import exactly_equal

codec = MsgpackCodec()
merge = merge_dicts(codec).for_key("key")

# Many that are equal by ``==`` and are not the same: 0, 0.0, -0.0 and False, NaN and itself.
leaves = st.sampled_from([None, False, True, 0, 1, 0.0, -0.0, 1.0, float("nan"), "", "a", b"a"])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.lists(inner, max_size=2).map(deque)
        | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
dicts = st.dictionaries(st.sampled_from("abcd"), values)
others = st.none() | values.filter(lambda value: not isinstance(value, dict))

ABSENT = object()


def merged(base: object, mine: object, theirs: object) -> Any:
    result = merge(*(None if side is ABSENT else codec.encode(side) for side in (base, mine, theirs)))
    return ABSENT if result is None else codec.decode(result)


def same(one: Any, other: Any) -> bool:
    """Whether two dicts hold the same, in whatever order."""
    return one.keys() == other.keys() and all(exactly_equal(one[name], other[name]) for name in one)


def changed(base: dict[str, Any], side: dict[str, Any]) -> set[str]:
    """Return the names that one side changed, added or removed."""
    return {
        name
        for name in base.keys() | side.keys()
        if not exactly_equal(base.get(name, ABSENT), side.get(name, ABSENT))
    }


@given(dicts, dicts)
def test_what_one_side_changed_is_taken(base: dict[str, Any], changed: dict[str, Any]) -> None:
    assert same(merged(base, changed, base), changed)
    assert same(merged(base, base, changed), changed)
    assert same(merged(base, changed, changed), changed)


@given(dicts, dicts, dicts)
def test_each_name_is_merged_by_itself_and_theirs_wins(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    result = merged(base, mine, theirs)
    for name in base.keys() | mine.keys() | theirs.keys():
        side = theirs if name in changed(base, theirs) or name not in changed(base, mine) else mine
        assert exactly_equal(result.get(name, ABSENT), side.get(name, ABSENT)), name
    assert result.keys() <= mine.keys() | theirs.keys()


@given(dicts, dicts, dicts)
def test_changes_of_different_names_commute(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    for name in changed(base, mine) & changed(base, theirs):
        mine.pop(name, None)
        if name in base:
            mine[name] = base[name]
    assert same(merged(base, mine, theirs), merged(base, theirs, mine))


@given(st.just(ABSENT) | dicts, dicts, dicts)
def test_merging_again_changes_nothing(
    base: dict[str, Any] | object, mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    once = merged(base, mine, theirs)
    assert same(merged(base, mine, once), once)


@given(dicts, dicts)
def test_without_a_base_both_are_kept_and_theirs_wins(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert same(merged(ABSENT, mine, theirs), {**mine, **theirs})


@given(st.just(ABSENT) | dicts, dicts)
def test_what_is_deleted_there_stays_deleted(base: object, mine: object) -> None:
    assert merged(base, mine, ABSENT) is ABSENT


@given(dicts, dicts)
def test_what_is_deleted_here_and_changed_there_stays(base: object, theirs: dict[str, Any]) -> None:
    assert same(merged(base, ABSENT, theirs), theirs)


@given(dicts, dicts, others)
def test_what_is_no_dict_is_not_merged(one: object, two: object, other: object) -> None:
    assert exactly_equal(merged(one, two, other), other)
    assert exactly_equal(merged(one, other, two), two)
    assert exactly_equal(merged(other, one, two), two)


@pytest.mark.parametrize("policy", ["", "merge", None, 1])
def test_what_is_no_policy_is_refused(policy: object) -> None:
    with pytest.raises(ConfigurationError, match="on_conflict"):
        check_policy(policy)


@pytest.mark.parametrize("policy", ["primary_wins", "local_wins", merge])
def test_a_policy_is_taken(policy: object) -> None:
    check_policy(policy)


def test_encrypted_dicts_are_merged_for_their_key() -> None:
    encrypting = MsgpackCodec(keyring=Keyring([EncryptionKey("a", bytes(32))]))

    def stored(value: object, key: str = "k") -> bytes:
        return encrypting.encode(value, key=key)

    merge = merge_dicts(encrypting).for_key("k")
    result = merge(stored({"a": 1, "b": 1}), stored({"a": 2, "b": 1}), stored({"a": 1, "b": 3}))
    assert result is not None
    assert encrypting.decode(result, key="k") == {"a": 2, "b": 3}
    theirs = stored({"a": 5})
    assert merge(stored({"a": 1}), stored({"a": 1}), theirs) == theirs, "not written again"
    with pytest.raises(DecryptionError):
        merge(None, stored({}), stored({}, "other"))


def test_dicts_of_different_schemas_are_not_mixed() -> None:
    now = MsgpackCodec(schema=2, migrations={1: lambda data: data})
    old, theirs = MsgpackCodec().encode({"a": 1}), now.encode({"b": 1})
    assert merge_dicts(now).for_key("k")(None, old, theirs) == theirs
    assert merge_dicts(now).for_key("k")(old, theirs, old) == old
    with pytest.raises(CodecError, match="schema 2"):
        merge_dicts(MsgpackCodec()).for_key("k")(None, old, theirs)


counts = st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3))


@given(counts, counts, counts)
def test_counters_add_up(base: dict[str, int], mine: dict[str, int], theirs: dict[str, int]) -> None:
    result = merge_three(base, base | mine, base | theirs, add_ints=True)
    assert result.clashes == []
    for name in base.keys() | mine.keys() | theirs.keys():
        start = base.get(name, 0)
        assert result.value[name] == mine.get(name, start) + theirs.get(name, start) - start


@given(dicts, dicts, dicts)
def test_what_clashes_is_told_and_theirs_stands(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    result = merge_three(base, mine, theirs)
    both = changed(base, mine) & changed(base, theirs)
    differ = {n for n in both if not exactly_equal(mine.get(n, ABSENT), theirs.get(n, ABSENT))}
    assert set(result.clashes) == differ
    for name in differ:
        assert exactly_equal(result.value.get(name, ABSENT), theirs.get(name, ABSENT))


def test_only_ints_add_up() -> None:
    base, mine, theirs = {"a": 1, "b": True, "c": 1.0}, {"a": 2, "b": 2, "c": 2.0}, {"b": 3, "c": 3.0}
    result = merge_three(base, mine, theirs, add_ints=True)
    assert result == ({"b": 3, "c": 3.0}, ["b", "c", "a"])
