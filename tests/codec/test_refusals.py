"""What cannot be kept is refused on the way in, with the path to it."""

from __future__ import annotations

import enum
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta, tzinfo
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack  # type: ignore[import-untyped]
import pytest
from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.codec.envelope import HEADER_BYTES
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, RecordTooLarge, UnsupportedType


class Plain:
    pass


def _plain(_data: object) -> Plain:
    return Plain()


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Pair(NamedTuple):
    a: int
    b: int


class Level(enum.IntEnum):
    LOW = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class OwnZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> str:
        return "own"


def _zone_without_key() -> ZoneInfo:
    source = ZoneInfo("Europe/Berlin")
    for root in (Path(p) for p in __import__("zoneinfo").TZPATH):
        if (root / source.key).exists():
            with (root / source.key).open("rb") as file:
                return ZoneInfo.from_file(file)
    pytest.skip("no zone files on this machine")


def _cycle() -> list[object]:
    parent: dict[str, Any] = {"name": "p"}
    parent["children"] = [{"parent": parent}, {"parent": parent}]
    return [parent]


NOT_KEPT = "is not a type sessionkit keeps; register it with codec.register(...)"
HERE = Plain.__module__


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Plain(), f"user_data: {HERE}.Plain {NOT_KEPT}"),
        ({"cart": [1, 2, Plain()]}, f"user_data.cart[2]: {HERE}.Plain {NOT_KEPT}"),
        ({"cart": [1, Plain]}, f"user_data.cart[1]: builtins.type {NOT_KEPT}"),
        ({123: (1, {"a b": Plain()})}, f"user_data[123][1]['a b']: {HERE}.Plain {NOT_KEPT}"),
        ({(1, "x"): deque([Plain()])}, f"user_data[(1, 'x')][0]: {HERE}.Plain {NOT_KEPT}"),
        ({Plain(): 1}, f"user_data.keys()[<Plain>]: {HERE}.Plain {NOT_KEPT}"),
        ({"a": {Text("x")}}, f"user_data.a{{…}}: {HERE}.Text {NOT_KEPT}"),
        (OrderedDict(a=Number(1)), f"user_data.a: {HERE}.Number {NOT_KEPT}"),
        ([Level.LOW], f"user_data[0]: {HERE}.Level {NOT_KEPT}"),
        ([Pair(1, 2)], f"user_data[0]: {HERE}.Pair {NOT_KEPT}"),
        (defaultdict(list), f"user_data: collections.defaultdict {NOT_KEPT}"),
        ({"c": Counter()}, f"user_data.c: collections.Counter {NOT_KEPT}"),
        ([memoryview(b"a")], f"user_data[0]: builtins.memoryview {NOT_KEPT}"),
        ([msgpack.ExtType(1, b"")], f"user_data[0]: msgpack.ext.ExtType {NOT_KEPT}"),
        ([msgpack.Timestamp(1)], f"user_data[0]: msgpack.ext.Timestamp {NOT_KEPT}"),
        ({"t": "a\ud800"}, "user_data.t: a str with a lone surrogate at position 1 is no text"),
        ({"\udfff": 1}, "user_data.keys()['\\udfff']: a str with a lone surrogate"),
        (
            [datetime(2024, 1, 1, tzinfo=OwnZone())],
            f"user_data[0]: a time zone of class {HERE}.OwnZone is not kept",
        ),
        (_cycle(), "user_data[0].children[0].parent: this dict contains itself; only trees are kept"),
    ],
    ids=str,
)
def test_refused_with_the_path(value: object, message: str) -> None:
    with pytest.raises(UnsupportedType) as caught:
        MsgpackCodec().encode(value, name="user_data")
    assert str(caught.value).startswith(message)


def test_the_path_starts_at_value_unless_told() -> None:
    with pytest.raises(UnsupportedType, match=r"^value\[0\]: "):
        MsgpackCodec().encode([Plain()])


def test_a_zone_without_a_key_is_refused() -> None:
    with pytest.raises(UnsupportedType, match=r"^value: a ZoneInfo is kept by its key"):
        MsgpackCodec().encode(datetime(2024, 1, 1, tzinfo=_zone_without_key()))


def test_an_ordered_dict_with_attributes_is_refused() -> None:
    value: Any = OrderedDict(a=1)
    value.extra = 1
    with pytest.raises(UnsupportedType, match="attributes of its own"):
        MsgpackCodec().encode(value)


def test_colliding_keys_are_refused_both_ways() -> None:
    keys = {(i * (2**61 - 1) << 70): i for i in range(200)}
    with pytest.raises(UnsupportedType, match="equal hashes"):
        MsgpackCodec().encode(keys)


def test_what_registered_functions_raise_is_told() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, lambda obj: 1 // 0, lambda data: Plain())
    with pytest.raises(
        UnsupportedType, match=rf"^value\.a: the function .*{HERE}\.Plain raised ZeroDivisionError"
    ):
        codec.encode({"a": Plain()})


def test_what_registered_functions_make_is_checked() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, lambda obj: {"inner": Text("x")}, lambda data: Plain())
    with pytest.raises(UnsupportedType, match=r"^value\.a<plain>\.inner: "):
        codec.encode({"a": Plain()})


def test_a_registered_object_that_makes_itself_is_refused() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, lambda obj: obj, lambda data: Plain())
    with pytest.raises(UnsupportedType, match=r"^value<plain>: this Plain contains itself"):
        codec.encode(Plain())
    endless = MsgpackCodec()
    endless.register("plain", Plain, lambda obj: Plain(), lambda data: Plain())
    with pytest.raises(RecordTooLarge, match="more than 64 containers"):
        endless.encode(Plain())


def test_a_combined_flag_is_refused() -> None:
    codec = MsgpackCodec()
    codec.register_enum("rights", Rights)
    with pytest.raises(UnsupportedType, match=r"^value\[0\]: this .*Rights is no member with a name"):
        codec.encode([Rights.READ | Rights.WRITE])


# --- registration


@pytest.mark.parametrize("tag", ["", "A", "a b", "é", "x" * 65, "a\n", 1])
def test_a_tag_is_stable_text(tag: Any) -> None:
    with pytest.raises(ConfigurationError, match="a tag is 1 to 64 characters"):
        MsgpackCodec().register(tag, Plain, vars, _plain)


def test_nothing_is_registered_twice() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, vars, _plain)
    with pytest.raises(ConfigurationError, match=r"'plain' already stands for .*Plain"):
        codec.register("plain", Text, str, Text)
    with pytest.raises(ConfigurationError, match="is already registered under 'plain'"):
        codec.register("other", Plain, vars, _plain)


@pytest.mark.parametrize("native", [int, type(None), bool, list, OrderedDict, datetime, bytearray, Fraction])
def test_native_types_are_not_registered(native: Any) -> None:
    with pytest.raises(ConfigurationError, match="is kept natively"):
        MsgpackCodec().register("native", native, str, native)


def test_register_takes_classes() -> None:
    codec = MsgpackCodec()
    wrong: Any = "Plain"
    with pytest.raises(ConfigurationError, match="a class is registered, not str"):
        codec.register("a", wrong, str, str)
    with pytest.raises(ConfigurationError, match="takes an Enum class"):
        codec.register_enum("a", wrong)
    with pytest.raises(ConfigurationError, match="takes a dataclass"):
        codec.register_dataclass("a", wrong)
    with pytest.raises(ConfigurationError, match="takes a named tuple class"):
        codec.register_namedtuple("a", wrong)


def test_a_dataclass_is_made_from_exactly_its_fields() -> None:
    @dataclass
    class Derived:
        a: int
        b: int = field(init=False, default=0)

    @dataclass
    class Initialised:
        a: int
        seed: InitVar[int]

    for cls in (Derived, Initialised):
        with pytest.raises(ConfigurationError, match="is not made from exactly its fields"):
            MsgpackCodec().register_dataclass("a", cls)


def test_changed_fields_members_and_tags_are_told_apart_on_reading() -> None:
    @dataclass
    class Old:
        a: int
        b: int

    @dataclass
    class New:
        a: int
        c: int

    @dataclass
    class Smaller:
        a: int

    class OldColor(enum.Enum):
        RED = 1

    class NewColor(enum.Enum):
        BLUE = 1

    writer = MsgpackCodec()
    writer.register_dataclass("item", Old)
    writer.register_enum("color", OldColor)
    item, color = writer.encode((Old(1, 2),)), writer.encode(OldColor.RED)

    for cls, message in ((New, "fields that the record lacks: c"), (Smaller, "the record has 1 fields that")):
        reader = MsgpackCodec()
        reader.register_dataclass("item", cls)
        reader.register_enum("color", NewColor)
        with pytest.raises(CorruptRecord, match=message):
            reader.decode(item)
        with pytest.raises(CorruptRecord, match="NewColor has no such member"):
            reader.decode(color)
    with pytest.raises(UnsupportedType, match="tag 'item', which is registered nowhere"):
        MsgpackCodec().decode(item)


def test_what_making_an_object_raises_is_told() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, lambda obj: 0, lambda data: _plain(1 // data))
    with pytest.raises(CorruptRecord, match="'plain' raised ZeroDivisionError"):
        codec.decode(codec.encode(Plain()))


# --- limits


@pytest.mark.parametrize("name", ["stored_bytes", "depth", "int_bytes", "items"])
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
    with pytest.raises(RecordTooLarge, match="more than 10 containers inside one another"):
        narrow.encode(deep)
    with pytest.raises(RecordTooLarge, match="more than 10 containers inside one another"):
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
            if items < len(encoded) - HEADER_BYTES:  # shorter ones are small whatever they hold
                with pytest.raises(RecordTooLarge, match=f"more than {items} elements"):
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
    with pytest.raises(RecordTooLarge, match=f"{len(data)} bytes, and a record has at most {len(data) - 1}"):
        tight.encode("x" * 100)
    with pytest.raises(RecordTooLarge, match="a record has at most"):
        tight.decode(data)


def test_ints_and_fractions_are_bound_both_ways() -> None:
    tight, wide = MsgpackCodec(limits=Limits(int_bytes=100)), MsgpackCodec()
    largest = 2**799 - 1
    assert tight.decode(tight.encode(largest)) == largest
    for value in (2**799, -(2**799) - 1):
        with pytest.raises(RecordTooLarge, match="an int of 101 bytes"):
            tight.encode(value)
        with pytest.raises(RecordTooLarge, match="an int of 101 bytes"):
            tight.decode(wide.encode(value))
    with pytest.raises(RecordTooLarge, match=r"^value\[0\]: a fraction's"):
        wide.encode([Fraction(1, 3**10_000)])


def test_a_value_of_shared_parts_does_not_explode() -> None:
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(RecordTooLarge, match="more than 1000000 elements"):
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
