"""What cannot be kept is refused on the way in, with the path to it."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, time, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import TZPATH, ZoneInfo

import msgpack
import pytest

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import RecordTooLarge, UnsupportedType


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


@dataclasses.dataclass
class Loose:
    a: int

    @functools.cached_property
    def twice(self) -> int:
        return 2 * self.a


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
        ([Level.LOW], f"user_data[0]: {HERE}.Level {NOT_KEPT.replace('register(', 'register_enum(')}"),
        ([Pair(1, 2)], f"user_data[0]: {HERE}.Pair {NOT_KEPT.replace('register(', 'register_namedtuple(')}"),
        ([Loose(1)], f"user_data[0]: {HERE}.Loose {NOT_KEPT.replace('register(', 'register_dataclass(')}"),
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
    ids=lambda part: part.partition(":")[0] if isinstance(part, str) else type(part).__name__,
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


def test_colliding_keys_are_refused() -> None:
    keys = {(i * (2**61 - 1) << 70): i for i in range(200)}
    with pytest.raises(UnsupportedType, match="hashes collide this often"):
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
    with pytest.raises(RecordTooLarge, match="too many containers inside one another, and the limit is 64"):
        endless.encode(Plain())


def test_of_a_deep_path_both_ends_are_shown() -> None:
    deep: Any = {"last": object()}
    for level in range(30):
        deep = [None] * level + [deep]
    with pytest.raises(UnsupportedType) as caught:
        MsgpackCodec().encode(deep, name="cart")
    path = "cart[29][28][27][26][25][24][23][22]…[6][5][4][3][2][1][0].last"
    assert str(caught.value).startswith(f"{path}: builtins.object is not a type")
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    with pytest.raises(RecordTooLarge) as refused:
        MsgpackCodec().encode(nested)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("box", [lambda key: {key: 1}, lambda key: {key}, lambda key: {(1, (key,)): 1}])
def test_a_long_int_is_no_key(box: Any) -> None:
    """To compare one with a Decimal of the same hash takes time quadratic in its length."""
    codec = MsgpackCodec()
    for fits in (2**1023 - 1, -(2**1023)):
        assert codec.decode(codec.encode(box(fits))) == box(fits)
    with pytest.raises(
        UnsupportedType, match=r"^value.*: an int of 129 bytes in a key or set, and at most 128"
    ):
        codec.encode(box(2**1023))
    assert codec.decode(codec.encode({1: 2**1023, (1,): [2**1023]})) == {1: 2**1023, (1,): [2**1023]}


class Bits(enum.IntFlag):
    ONE = 1
    BOTH = 6


def test_flags_with_bits_of_no_name_are_refused() -> None:
    codec = MsgpackCodec()
    codec.register_enum("bits", Bits)
    for flag in (Bits(2), Bits(8), Bits.ONE | Bits(16), Bits.ONE | Bits.BOTH):
        with pytest.raises(UnsupportedType, match=r"^value\[0\]: this .*Bits is no member with a name, nor"):
            codec.encode([flag])


class _Base:
    __slots__ = ("__hidden", "extra")

    def hide(self) -> None:
        self.__hidden = 1


@dataclasses.dataclass
class Slotted(_Base):
    __slots__ = ("a",)
    a: int


class Named(Pair):
    pass


def test_attributes_beside_the_fields_are_refused() -> None:
    codec = MsgpackCodec()
    codec.register_dataclass("loose", Loose)
    codec.register_dataclass("slotted", Slotted)
    codec.register_namedtuple("named", Named)
    loose: Any = Loose(1)
    assert loose.twice == 2
    assert codec.decode(codec.encode(loose)) == loose
    loose.note = "lost"
    slotted: Any = Slotted(1)
    hiding = Slotted(1)
    codec.encode(slotted)
    slotted.extra = 1
    hiding.hide()
    named: Any = Named(1, 2)
    codec.encode(named)
    named.note = 1
    for value, name in ((loose, "note"), (slotted, "extra"), (hiding, "_Base__hidden"), (named, "note")):
        with pytest.raises(UnsupportedType, match=rf"^value\[0\]: .* attributes that are no fields: {name}$"):
            codec.encode([value])


def test_a_zone_from_a_file_under_a_known_key_is_refused() -> None:
    with (Path(TZPATH[0]) / "Asia/Tokyo").open("rb") as file:
        foreign = ZoneInfo.from_file(file, key="Europe/Berlin")
    with pytest.raises(
        UnsupportedType, match=r"^value: a ZoneInfo .* from a file under the key 'Europe/Berlin'"
    ):
        MsgpackCodec().encode(datetime(2024, 1, 1, tzinfo=foreign))


def test_a_zone_that_is_another_than_its_key_gives_is_refused() -> None:
    """In an hour that is there twice, it would make a datetime unequal to itself."""
    other = ZoneInfo.no_cache("Europe/Berlin")
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=other)
    assert twice != twice.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    for value in (twice, twice.timetz()):
        with pytest.raises(
            UnsupportedType, match=r"^value\.at: a ZoneInfo .* than ZoneInfo\('Europe/Berlin'\)"
        ):
            MsgpackCodec().encode({"at": value})


class Span(timedelta):
    pass


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), Text("own"))),
        time(1, tzinfo=timezone(Span(hours=1))),
        UUID(int=Number(5)),
    ],
    ids=["name", "offset", "int"],
)
def test_a_subclass_inside_a_leaf_is_refused(value: object) -> None:
    with pytest.raises(
        UnsupportedType, match=r"^value\[0\]: .* of a subclass of .* would come back without it"
    ):
        MsgpackCodec().encode([value])


@pytest.mark.parametrize("factory", [lambda: 0, Plain, [].copy, Counter])
def test_a_defaultdict_of_an_unknown_factory_is_refused(factory: Any) -> None:
    with pytest.raises(
        UnsupportedType, match=r"^value\.a: a defaultdict of a factory .* codec.register_factory"
    ):
        MsgpackCodec().encode({"a": defaultdict(factory)})


class Moody:
    """A key and a factory whose hash, or comparison, raises once it is put in place."""

    calm = True

    def __call__(self) -> object:
        return None

    def __hash__(self) -> int:
        if not self.calm:
            raise ZeroDivisionError("hunter2")
        return hash(list)

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("hunter2")


MANY: dict[Any, None] = dict.fromkeys(range(100))


@pytest.mark.parametrize(
    "box",
    [
        lambda moody: {**MANY, moody: 1},
        lambda moody: {*MANY, moody},
        lambda moody: {**MANY, (moody, 1): 1},
        defaultdict,
    ],
    ids=["key", "element", "tuple", "factory"],
)
def test_what_a_hash_raises_is_told_with_the_path(box: Any) -> None:
    codec, moody = MsgpackCodec(), Moody()
    codec.register("moody", Moody, lambda _: None, lambda _: Moody())
    value = {"of": box(moody)}
    moody.calm = False
    with pytest.raises(
        UnsupportedType, match=r"^value\.of: code of the value's own raised ZeroDivisionError \(__hash__"
    ) as caught:
        codec.encode(value)
    assert "hunter2" not in str(caught.value)


def test_what_the_comparison_of_a_factory_raises_is_told_with_the_path() -> None:
    with pytest.raises(UnsupportedType, match=r"^value\[0\]: code .* raised ZeroDivisionError \(__eq__"):
        MsgpackCodec().encode([defaultdict(Moody())])
