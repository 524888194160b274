from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import InvalidKey
from sessionkit.keys import DEFAULT_PREFIX, KeyPart, KeySpace

space = KeySpace("conversation")
parts = st.lists(
    st.one_of(
        st.integers(),
        st.text(st.characters(codec="utf-8"), min_size=1),
        st.integers().map(str),
        st.sampled_from(["a:b", "*", "{x}", "\n", "%41", "007", "-0", "+1", "1_000", "٣", "😀" * 300]),
    ),
    min_size=1,
    max_size=4,
)


@given(parts)
def test_parts_come_back_equal_and_of_the_same_type(given_parts: list[KeyPart]) -> None:
    back = space.parts(space.key(*given_parts))
    assert back == tuple(given_parts)
    assert list(map(type, back)) == list(map(type, given_parts))


@given(parts)
def test_a_key_holds_only_safe_characters(given_parts: list[KeyPart]) -> None:
    key = space.key(*given_parts)
    assert key.startswith(f"{DEFAULT_PREFIX}conversation:")
    assert re.fullmatch(r"([A-Za-z0-9_.~%-]+:?)+", key.removeprefix(space.start))


@given(parts, parts)
def test_different_ids_have_different_keys(one: list[KeyPart], other: list[KeyPart]) -> None:
    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert (space.key(*one) == space.key(*other)) is same


def test_keys_read_as_the_guides_have_them() -> None:
    assert space.key("deposit", 123, 456) == "telegram_bot:conversation:deposit:123:456"
    assert KeySpace("session", "shop:").key(-5) == "shop:session:-5"
    assert space.key("123", 123) == "telegram_bot:conversation:%3123:123"


def test_the_start_of_one_namespace_is_not_that_of_another() -> None:
    assert not KeySpace("session_index").key(1).startswith(KeySpace("session").start)


@pytest.mark.parametrize(
    "bad", [(), ("",), (None,), (True,), (1.0,), (b"a",), ("\ud800",), (10**100,)], ids=repr
)
def test_what_is_no_id_is_refused(bad: tuple[KeyPart, ...]) -> None:
    with pytest.raises(InvalidKey):
        space.key(*bad)


@pytest.mark.parametrize(
    "key",
    [
        "telegram_bot:conversation:",
        "telegram_bot:conversation:a::b",
        "telegram_bot:conversation:%",
        "telegram_bot:conversation:%zz",
        "telegram_bot:conversation:%41",
        "telegram_bot:conversation:a b",
        "telegram_bot:conversation:%FF",
        "telegram_bot:conversation:" + "9" * 5000,
        "telegram_bot:session:1",
        "",
    ],
)
def test_what_it_did_not_make_it_does_not_read(key: str) -> None:
    with pytest.raises(InvalidKey):
        space.parts(key)


@pytest.mark.parametrize(
    ("namespace", "prefix"), [("", "p:"), ("a:b", "p:"), ("a*", "p:"), ("a", "p{x}:"), ("a", "#")]
)
def test_what_is_no_key_space_is_refused(namespace: str, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        KeySpace(namespace, prefix)
