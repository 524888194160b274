"""Every bound holds for writing and for reading alike."""

from __future__ import annotations

import sys
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.codec.envelope import HEADER_BYTES
from sessionkit.errors import CodecError, ConfigurationError, RecordTooLarge


@pytest.mark.parametrize("name", ["stored_bytes", "items", "depth", "string_bytes", "int_bytes"])
@pytest.mark.parametrize("bound", [0, -1, 1.5, True, None])
def test_limits_are_whole_numbers(name: str, bound: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"Limits.{name} is a whole number"):
        Limits(**{name: bound})


def test_depth_has_a_bound_itself() -> None:
    Limits(depth=128)
    with pytest.raises(ConfigurationError, match="at most 128"):
        Limits(depth=129)


def _nested(levels: int, box: Any) -> Any:
    value: Any = box([])
    for _ in range(levels - 1):
        value = box([value])
    return value


BOXES = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "dict": lambda items: dict(enumerate(items)),
    "pairs": lambda items: {(i,): item for i, item in enumerate(items)} or {},
    "mixed": lambda items: (*items,) if items and type(items[0]) is list else [*items],
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_depth_is_bound_alike_both_ways(box: Any) -> None:
    wide, narrow = MsgpackCodec(), MsgpackCodec(limits=Limits(depth=10))
    fits, deep = _nested(10, box), _nested(11, box)
    if box is BOXES["pairs"]:  # its keys are containers one level further down
        fits, deep = _nested(9, box), _nested(11, box)
    assert narrow.decode(narrow.encode(fits)) == fits
    with pytest.raises(RecordTooLarge, match="too many containers inside one another, and the limit is 10: "):
        narrow.encode(deep)
    with pytest.raises(RecordTooLarge, match="too many containers inside one another, and the limit is 10: "):
        narrow.decode(wide.encode(deep))


CROWDS = {
    "ints": [0] * 2000,
    "lists": [[]] * 1000,
    "dict": {i: i for i in range(1000)},
    "tuples": [()] * 1000,
}


@pytest.mark.parametrize("value", CROWDS.values(), ids=CROWDS)
def test_items_are_bound_and_what_is_written_is_read(value: Any) -> None:
    encoded = MsgpackCodec().encode(value)
    accepted = []
    for items in (500, 900, 1000, 1500, 1999, 2000, 2001, 2002, 3000, 3001, 4001):
        codec = MsgpackCodec(limits=Limits(items=items))
        try:
            assert codec.decode(codec.encode(value)) == value
        except RecordTooLarge:
            if 3 * items < len(encoded) - HEADER_BYTES:  # shorter ones are small whatever they hold
                with pytest.raises(RecordTooLarge, match=f"too many elements, and the limit is {items}: "):
                    codec.decode(encoded)
        else:
            accepted.append(items)
    assert 4001 in accepted
    assert 500 not in accepted


def test_the_size_of_a_record_is_bound_both_ways() -> None:
    codec = MsgpackCodec()
    data = codec.encode("x" * 100)
    exact = MsgpackCodec(limits=Limits(stored_bytes=len(data)))
    assert exact.decode(exact.encode("x" * 100)) == "x" * 100
    tight = MsgpackCodec(limits=Limits(stored_bytes=len(data) - 1))
    with pytest.raises(RecordTooLarge, match=f"{len(data)} bytes, and the limit is {len(data) - 1}: "):
        tight.encode("x" * 100)
    with pytest.raises(RecordTooLarge, match=f"a record of {len(data)} bytes, and the limit is"):
        tight.decode(data)


@pytest.mark.parametrize(
    ("fits", "long"),
    [
        ("a" * 100, "a" * 101),
        ("é" * 50, "é" * 50 + "a"),
        (b"a" * 100, b"a" * 101),
        (bytearray(100), bytearray(101)),
        (Decimal("1" * 100), Decimal("1" * 101)),
        ("a" * 2000, "a" * 2001),
    ],
    ids=lambda value: f"{len(str(value))} of {type(value).__name__}",
)
def test_every_string_is_bound_both_ways(fits: Any, long: Any) -> None:
    wide = MsgpackCodec()
    bound = 2000 if len(str(fits)) == 2000 else 100
    tight = MsgpackCodec(limits=Limits(string_bytes=bound))
    for box in (lambda value: [value, 1], lambda value: {"a": (value,)}):
        assert tight.decode(tight.encode(box(fits))) == box(fits)
        with pytest.raises(
            RecordTooLarge, match=rf"^value.*: .* {bound + 1} bytes, and the limit is {bound}: "
        ):
            tight.encode(box(long))
        with pytest.raises(
            RecordTooLarge, match=rf"{bound + 1} bytes, and the limit is {bound}: to raise it,"
        ):
            tight.decode(wide.encode(box(long)))


def test_a_long_key_is_no_way_around() -> None:
    tight = MsgpackCodec(limits=Limits(string_bytes=100))
    with pytest.raises(RecordTooLarge, match="a string of 200 bytes"):
        tight.encode({"a" * 200: 1})
    with pytest.raises(RecordTooLarge, match="a string of 200 bytes"):
        tight.decode(MsgpackCodec().encode({"a" * 200: 1}))


def test_ints_and_fractions_are_bound_both_ways() -> None:
    tight, wide = MsgpackCodec(limits=Limits(int_bytes=100)), MsgpackCodec()
    largest = 2**799 - 1
    assert tight.decode(tight.encode(largest)) == largest
    for value in (2**799, -(2**799) - 1):
        with pytest.raises(RecordTooLarge, match="an int of 101 bytes"):
            tight.encode(value)
        with pytest.raises(RecordTooLarge, match="an extension INT of 101 bytes"):
            tight.decode(wide.encode(value))
    with pytest.raises(RecordTooLarge, match=r"^value\[0\]: a fraction's"):
        wide.encode([Fraction(1, 3**10_000)])


def test_a_value_of_shared_parts_does_not_explode() -> None:
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(RecordTooLarge, match="too many elements, and the limit is 50000: "):
        MsgpackCodec().encode(value)


def test_a_schema_is_a_small_number() -> None:
    for schema in (0, 65536, True, "1"):
        wrong: Any = schema
        with pytest.raises(ConfigurationError, match="a schema version is"):
            MsgpackCodec(schema=wrong)


def test_a_newer_schema_is_refused_and_an_older_one_read() -> None:
    old, new = MsgpackCodec(schema=1), MsgpackCodec(schema=2)
    assert new.decode(old.encode([1])) == [1]
    with pytest.raises(CodecError, match="a record of schema 2, and this codec knows schemas up to 1"):
        old.decode(new.encode([1]))


def test_recursion_stays_within_the_default_limit() -> None:
    assert sys.getrecursionlimit() >= 1000
    codec = MsgpackCodec(limits=Limits(depth=128))
    for box in BOXES.values():
        value = _nested(120, box)
        assert codec.decode(codec.encode(value)) == value
