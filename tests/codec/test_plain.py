"""Plain data takes a fast lane: the same bytes as msgpack's, and no way in for anything else."""

from __future__ import annotations

import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.codec.plain import NOT_PLAIN, pack_plain, unpack_plain
from sessionkit.codec.raw import pack
from sessionkit.errors import UnsupportedType
from sessionkit.testing.equality import exactly_equal
from sessionkit.testing.strategies import plain_values, values

LIMITS = Limits()


def _packed_alike(value: object) -> None:
    body = pack_plain(value, LIMITS)
    assert body is not None
    assert body == pack(value)
    assert exactly_equal(unpack_plain(body, LIMITS), value)


EDGES = sorted({sign * 2**bits + step for bits in range(64) for step in (-1, 0, 1) for sign in (1, -1)})
LENGTHS = (0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536)


@pytest.mark.parametrize(
    "value",
    [
        *([edge] for edge in EDGES if edge >= -(2**63)),
        2**64 - 1,
        *([number] for number in (0.0, -0.0, 5e-324, sys.float_info.max, float("inf"), float("-inf"))),
        float("nan"),
        *("a" * length for length in LENGTHS),
        *("é" * (length // 2) for length in LENGTHS),
        *(bytes(length) for length in LENGTHS),
    ],
    ids=lambda value: f"{value!r:.24}",
)
def test_scalars_at_the_edges_are_written_as_msgpack_writes_them(value: object) -> None:
    _packed_alike(value)
    _packed_alike({"a": [value]})


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 8_000])
def test_heads_at_the_edges_are_written_as_msgpack_writes_them(length: int) -> None:
    _packed_alike([None] * length)
    _packed_alike({str(key): key for key in range(length)})
    _packed_alike([dict.fromkeys(range(min(length, 15)), b"")])


def test_the_longest_heads_are_written_as_msgpack_writes_them() -> None:
    wide = Limits(items=10**6)
    for value in ([0] * 65_535, [0] * 65_536, dict.fromkeys(map(str, range(65_536)))):
        body = pack_plain(value, wide)
        assert body == pack(value)
        assert unpack_plain(body, wide) == value


@given(plain_values())
def test_plain_data_is_written_as_msgpack_writes_it(value: object) -> None:
    body = pack_plain(value, LIMITS)
    assert body is None or body == pack(value)


@given(values())
def test_only_what_msgpack_writes_alike_takes_the_lane(value: object) -> None:
    body = pack_plain(value, LIMITS)
    assert body is None or (body == pack(value) and exactly_equal(unpack_plain(body, LIMITS), value))


@pytest.mark.parametrize("levels", range(1, 65))
def test_plain_data_of_every_depth_comes_back(levels: int) -> None:
    value: Any = "deep"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    _packed_alike(value)
    assert pack_plain(value, Limits(depth=levels)) is not None
    if levels > 1:
        assert pack_plain(value, Limits(depth=levels - 1)) is None
        assert unpack_plain(pack(value), Limits(depth=levels - 1)) is NOT_PLAIN


@pytest.mark.parametrize("box", [[], {}])
def test_an_empty_container_is_a_level(box: object) -> None:
    assert pack_plain([box], Limits(depth=2)) is not None
    assert pack_plain([box], Limits(depth=1)) is None
    assert unpack_plain(pack([box]), Limits(depth=1)) is NOT_PLAIN


TIME = msgpack.Timestamp(1, 1)
ODD = {
    "timestamp": pack(TIME),
    "timestamp in a list": pack([TIME]),
    "timestamp as value": pack({"a": TIME}),
    "timestamp beside bytes": pack([b"", TIME]),
    "timestamp deep": pack([[[[[[[[[TIME]]]]]]]]]),
    "extension": pack([msgpack.ExtType(1, b"")]),
    "list as key": b"\x81\x91\x01\x02",
    "map as key": b"\x81\x80\x01",
    "key twice": b"\x82\xa1a\x01\xa1a\x02",
    "equal keys": b"\x82\x01\x01\xc3\x02",
    "wide map of int keys": pack(dict.fromkeys(range(16))),
    "long int": b"\xcd\x00\x01",
    "short float": b"\xca\x00\x00\x00\x00",
    "long head": b"\xdc\x00\x01\x01",
    "tail": b"\x01\x01",
    "bad utf-8": b"\xa1\xff",
    "surrogate": b"\xa3\xed\xa0\x80",
    "reserved byte": b"\xc1",
    "claimed list": b"\xdd\x7f\xff\xff\xff",
    "claimed text": b"\xdb\xff\xff\xff\xff",
    "cut short": b"\x92\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_what_is_odd_is_left_to_the_careful_way(body: bytes) -> None:
    assert unpack_plain(body, LIMITS) is NOT_PLAIN


@given(st.binary(max_size=64))
def test_what_comes_out_is_what_msgpack_unpacks(body: bytes) -> None:
    value = unpack_plain(body, LIMITS)
    if value is not NOT_PLAIN:
        assert pack(value) == body
        assert exactly_equal(value, msgpack.unpackb(body, strict_map_key=False))


class Cart:
    def __init__(self) -> None:
        self.items: Any = (1, 2)
        self.tags = {"a"}


def test_the_attributes_of_a_living_object_are_seen() -> None:
    cart = Cart()
    for value in (vars(cart), {"cart": vars(cart)}, [vars(cart)]):
        assert pack_plain(value, LIMITS) is None
        codec = MsgpackCodec()
        assert exactly_equal(codec.decode(codec.encode(value)), value)
    cart.items = cart
    with pytest.raises(UnsupportedType):
        MsgpackCodec().encode({"cart": vars(cart)})
