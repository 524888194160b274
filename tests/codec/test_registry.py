"""What can be registered, and what a reader with other registrations is told."""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import datetime
from fractions import Fraction
from functools import partialmethod
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, UnsupportedType

T = TypeVar("T")


class Plain:
    pass


def _plain(_data: object) -> Plain:
    return Plain()


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("tag", ["", "a:b", "a b", "é", "x" * 65, "a\n", 1])
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


def test_a_dataclass_that_is_a_container_too_is_no_record() -> None:
    @dataclass
    class Basket(dict[str, int]):
        owner: str

    @dataclass
    class Failure(Exception):
        code: int

    for cls in (Basket, Failure):
        with pytest.raises(ConfigurationError, match="holds more than its fields"):
            MsgpackCodec().register_dataclass("a", cls)


@dataclass
class Box(Generic[T]):
    content: T


class Pair(NamedTuple):
    a: int
    b: int


def test_an_object_that_would_not_be_made_again_as_it_is_is_refused() -> None:
    codec = MsgpackCodec()
    codec.register_dataclass("box", Box)
    codec.register_namedtuple("pair", Pair)
    for kept in (Box[int](1), Pair(1, 2)):
        assert codec.decode(codec.encode(kept)) == kept
    for wrong in (tuple.__new__(Pair, (1,)), tuple.__new__(Pair, (1, 2, 3))):
        with pytest.raises(UnsupportedType, match=r"^value: this .*Pair has [13] items for 2 fields"):
            codec.encode(wrong)


def test_factories_have_tags_of_their_own() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, vars, _plain)
    codec.register_factory("plain", Plain)
    wrong: Any = 1
    for tag, factory, message in (
        ("plain", Text, "'plain' already stands for a factory"),
        ("list", Text, "'list' already stands for a factory"),
        ("other", Plain, "already has the tag 'plain'"),
        ("other", list, "already has the tag 'list'"),
        ("other", wrong, "a factory is a hashable callable"),
        ("a b", Text, "a tag is 1 to 64 characters"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            codec.register_factory(tag, factory)
    value = codec.encode(defaultdict(Plain))
    with pytest.raises(
        UnsupportedType, match="a defaultdict of factory 'plain', which is registered nowhere"
    ):
        MsgpackCodec().decode(value)


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

    for cls, message in ((New, "lacks: c; keep a class"), (Smaller, "the record has 1 fields that")):
        reader = MsgpackCodec()
        reader.register_dataclass("item", cls)
        reader.register_enum("color", NewColor)
        for record, what in ((item, message), (color, "NewColor has no such member")):
            with pytest.raises(CodecError, match=what) as caught:
                reader.decode(record)
            assert not isinstance(caught.value, CorruptRecord), "the class has changed, and not the record"
    with pytest.raises(UnsupportedType, match="tag 'item', which is registered nowhere"):
        MsgpackCodec().decode(item)


def test_what_making_an_object_raises_is_told() -> None:
    codec = MsgpackCodec()
    codec.register("plain", Plain, lambda obj: 0, lambda data: _plain(1 // data))
    with pytest.raises(CodecError, match="'plain' raised ZeroDivisionError") as caught:
        codec.decode(codec.encode(Plain()))
    assert not isinstance(caught.value, CorruptRecord)


def test_what_is_made_is_of_the_type_it_was() -> None:
    class Money:
        cents = 5

    codec = MsgpackCodec()
    codec.register("money", Money, lambda money: money.cents, lambda cents: cents)
    with pytest.raises(CodecError, match=r"made an object of builtins.int, and the tag is that of .*Money"):
        codec.decode(codec.encode(Money()))


def test_a_class_that_decides_what_it_is_made_of_is_refused() -> None:
    @dataclass
    class After:
        tags: list[str]

        def __post_init__(self) -> None:
            self.tags.append("seen")

    @dataclass
    class Shouting:
        name: str

        def __init__(self, name: str) -> None:
            self.name = f"{name}!"

    @dataclass
    class Escaping:
        name: str

        def __setattr__(self, name: str, value: object) -> None:
            object.__setattr__(self, name, f"<{value}>")

    class Sorted(Pair):
        def __new__(cls, a: int, b: int) -> Sorted:
            return super().__new__(cls, *sorted((a, b)))

    codec = MsgpackCodec()
    for number, cls in enumerate((After, Shouting, Escaping)):
        with pytest.raises(ConfigurationError, match="of its own"):
            codec.register_dataclass(f"{number}", cls)
    with pytest.raises(ConfigurationError, match="has __new__ of its own"):
        codec.register_namedtuple("sorted", Sorted)

    @dataclass(frozen=True, slots=True)
    class Plain:
        name: str

    codec.register_dataclass("plain", Plain)
    assert codec.decode(codec.encode(Plain("a"))) == Plain("a")


PROMPT = """
@dataclass
class Typed:
    name: str
    def {maker}: self.name = "another"
"""


@pytest.mark.parametrize("maker", ["__init__(self, name)", "__post_init__(self)"])
@pytest.mark.parametrize("file", ["<stdin>", "<python-input-0>"])
def test_a_class_typed_in_at_a_prompt_is_looked_at_too(maker: str, file: str) -> None:
    names: dict[str, Any] = {"dataclass": dataclass, "__name__": __name__}
    exec(compile(PROMPT.format(maker=maker), file, "exec", dont_inherit=True), names)
    with pytest.raises(ConfigurationError, match="of its own"):
        MsgpackCodec().register_dataclass("typed", names["Typed"])


def test_a_maker_that_is_no_function_is_its_own() -> None:
    maker = partialmethod(lambda self, tag: self.tags.append(tag), "seen")
    cls: Any = make_dataclass("Partial", [("tags", list[str])], namespace={"__post_init__": maker})

    with pytest.raises(ConfigurationError, match="has __post_init__ of its own"):
        MsgpackCodec().register_dataclass("partial", cls)
    with pytest.raises(UnsupportedType, match=r"register it with codec.register\(\.\.\.\)"):
        MsgpackCodec().encode(cls([]))


def test_names_of_flags_are_looked_at_before_they_are_hashed() -> None:
    codec, liar = MsgpackCodec(), MsgpackCodec()
    codec.register_enum("flag", Colour)
    liar.register("flag", Liar, lambda liar: liar.names, lambda _: Liar(()))
    for names in (tuple(k * (2**61 - 1) for k in range(1, 5000)), ("RED", "RED"), ("RED", 1)):
        with pytest.raises(CodecError, match="has no such member"):
            codec.decode(liar.encode(Liar(names)))


class Colour(enum.Flag):
    RED = 1
    BLUE = 2


class Liar:
    def __init__(self, names: tuple[object, ...]) -> None:
        self.names = names


class Moody:
    calm = True

    def __hash__(self) -> int:
        if not self.calm:
            raise TypeError("hunter2")
        return 1


@pytest.mark.parametrize("box", [lambda key: {key}, lambda key: {key: 1}, lambda key: OrderedDict({key: 1})])
def test_a_registered_key_that_is_none_any_more_is_no_damage(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a class that lost its hash since the record was written."""
    codec = MsgpackCodec()
    codec.register("moody", Moody, lambda _: None, lambda _: Moody())
    record = codec.encode([box(Moody())])
    monkeypatch.setattr(Moody, "calm", False)
    with pytest.raises(CodecError, match=r"with registered objects raised TypeError \(__hash__") as caught:
        codec.decode(record)
    assert not isinstance(caught.value, CorruptRecord)
    assert "hunter2" not in str(caught.value)


class Priced(NamedTuple):
    price: int


class Dear(Priced):
    __slots__ = ()

    @property
    def price(self) -> int:
        return 10 * super().price


def test_the_items_of_a_named_tuple_are_kept_and_not_what_its_names_give() -> None:
    codec = MsgpackCodec()
    codec.register_namedtuple("dear", Dear)
    back = codec.decode(codec.encode(Dear(3)))
    assert (tuple(back), type(back)) == ((3,), Dear)


@dataclass
class Shouting:
    name: str

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return value.upper() if isinstance(value, str) else value


def test_a_dataclass_that_answers_for_its_fields_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="__getattribute__ of its own"):
        MsgpackCodec().register_dataclass("shouting", Shouting)


class Cents:
    """Keeps a price in cents, under the field's own name."""

    def __get__(self, obj: object, owner: type) -> Any:
        return self if obj is None else vars(obj)["price"]

    def __set__(self, obj: object, value: Any) -> None:
        vars(obj)["price"] = value * 100


@dataclass
class Converting:
    price: Any = Cents()


@dataclass(slots=True)
class Slotted:
    price: int = 3


def test_a_field_that_a_descriptor_keeps_is_refused() -> None:
    codec = MsgpackCodec()
    with pytest.raises(ConfigurationError, match="price is a descriptor"):
        codec.register_dataclass("priced", Converting)
    codec.register_dataclass("slotted", Slotted)
    assert codec.decode(codec.encode(Slotted(5))) == Slotted(5)
