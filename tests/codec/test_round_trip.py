"""What goes in comes out, equal and of the same type, and always as the same bytes."""

from __future__ import annotations

import enum
import math
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, find, given, settings

from sessionkit.codec import MsgpackCodec
from sessionkit.testing.equality import exactly_equal
from sessionkit.testing.strategies import nested_values, plain_values, values

codec = MsgpackCodec()


@given(values())
def test_what_goes_in_comes_out(value: object) -> None:
    data = codec.encode(value)
    back = codec.decode(data)
    assert exactly_equal(value, back)
    assert codec.encode(back) == data


@given(plain_values())
def test_plain_values_come_out(value: object) -> None:
    assert exactly_equal(value, codec.decode(codec.encode(value)))


def test_a_value_in_twenty_containers_is_drawn() -> None:
    deep = find(
        nested_values(20),
        lambda value: _depth(value) >= 20,
        settings=settings(max_examples=5_000, phases=[Phase.generate], derandomize=True, database=None),
    )
    assert exactly_equal(deep, codec.decode(codec.encode(deep)))


def _depth(value: object) -> int:
    parts = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(_depth, parts), default=0) if isinstance(parts, (list, tuple, deque)) else 0


EXAMPLES: list[object] = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    -(2**63) - 1,
    2**64,
    10**1000,
    math.nan,
    -math.inf,
    -0.0,
    "",
    "ü\0🙂",
    b"",
    bytearray(b"\x00"),
    [],
    [[], {}],
    (),
    (1, (2, [3])),
    {"a": 1, 1: "int", True and 2: 2.0, None: 0, b"b": 1, 1.5: 1},
    {(1, "a"): (1,), frozenset({1}): 2, date(2024, 1, 1): 3},
    {True: "bool"},
    {1: "int"},
    {2**70: 1},
    set(),
    {1, "a", (1, 2), None},
    frozenset({frozenset({1}), frozenset()}),
    datetime(2024, 2, 29, 23, 59, 59, 999999),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=timezone(timedelta(seconds=-1, microseconds=1))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2), "EET")),
    time(1, 2, 3, 4, fold=1),
    time(1, tzinfo=timezone(timedelta(0), "")),
    date.max,
    timedelta.min,
    timedelta.max,
    Decimal("-0E+5"),
    Decimal("sNaN12"),
    Decimal("-Infinity"),
    Decimal("1E-999999999999999999"),
    Decimal("1.10"),
    Fraction(-1, 3),
    complex(math.nan, -0.0),
    UUID(int=2**128 - 1),
    deque([1, 2], maxlen=2),
    deque(maxlen=0),
    OrderedDict(b=1, a=(1,)),
    defaultdict(list, {"a": [1], 2: [(3,)]}),
    defaultdict(None, {True: 1}),
    defaultdict(OrderedDict),
    UUID(int=1, is_safe=SafeUUID.safe),
    UUID(int=1, is_safe=SafeUUID.unsafe),
    time(1, tzinfo=timezone(timedelta(0), "UTC")),
    time(1, tzinfo=timezone(timedelta(hours=2), "UTC+02:00")),
    10**10_000,
    -(10**10_000),
    [{"key": [(i,) for i in range(100)]}] * 20,
    [{str(i): {"n": i}} for i in range(300)],
]


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_examples(value: object) -> None:
    assert exactly_equal(value, codec.decode(codec.encode(value)))


def test_nan_keys_and_elements_stay_apart() -> None:
    value = {float("nan"): 1, float("nan"): 2, Decimal("NaN"): 3, Decimal("NaN"): 4}
    assert exactly_equal(value, codec.decode(codec.encode(value)))
    elements = {float("nan"), float("nan"), Decimal("NaN"), Decimal("NaN")}
    assert len(codec.decode(codec.encode(elements))) == 4


def test_a_shared_object_comes_back_as_equal_ones() -> None:
    shared = [1]
    assert codec.decode(codec.encode([shared, shared, (shared,)])) == [[1], [1], ([1],)]


def test_the_decimal_context_of_the_caller_does_not_matter() -> None:
    value = Decimal("1.23456789E+50")
    expected = codec.encode(value)
    with localcontext(prec=2, capitals=0):
        assert codec.encode(value) == expected
        assert codec.decode(expected).as_tuple() == value.as_tuple()


def test_dict_order_is_part_of_the_value() -> None:
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert codec.encode(one) != codec.encode(other)
    assert list(codec.decode(codec.encode(other))) == ["b", "a"]


def test_bytes_are_the_same_in_every_process() -> None:
    program = (
        "from sessionkit.codec import MsgpackCodec;"
        "s = {f'key{i}' for i in range(50)} | {(i, 'a') for i in range(50)};"
        "print(MsgpackCodec().encode({'s': s, 'f': frozenset(s)}).hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


class Color(enum.Enum):
    RED = "r"
    ALIAS = "r"


class Level(enum.IntEnum):
    LOW = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    name: str
    at: Point
    tags: frozenset[str] = frozenset()


class Text(str):
    __slots__ = ()


def _nested() -> defaultdict[int, int]:
    return defaultdict(int)


@pytest.fixture
def registered() -> MsgpackCodec:
    made = MsgpackCodec()
    made.register_enum("color", Color)
    made.register_enum("level", Level)
    made.register_enum("rights", Rights)
    made.register_namedtuple("point", Point)
    made.register_dataclass("item", Item)
    made.register("text", Text, str, Text)
    made.register_factory("nested", _nested)
    return made


def test_registered_types_come_back(registered: MsgpackCodec) -> None:
    value = {
        Color.RED: [Level.LOW, Rights.READ, Rights.READ | Rights.WRITE, Rights(0)],
        "grades": defaultdict(_nested, a=defaultdict(int, {1: 2})),
        Point(1, (2,)): Item(name="a", at=Point(3), tags=frozenset({"x"})),
        "text": Text("a"),
        "items": {Item(name="a", at=Point(i)) for i in range(5)},
    }
    data = registered.encode(value)
    back = registered.decode(data)
    assert exactly_equal(value, back)
    assert registered.encode(back) == data
