"""The types that a codec keeps because its user said how."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable
from decimal import Decimal
from enum import Enum, Flag
from functools import cached_property
from types import BuiltinMethodType, FunctionType, MemberDescriptorType, WrapperDescriptorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from sessionkit.codec.leaves import DUMPERS
from sessionkit.codec.wire import SCALARS
from sessionkit.errors import CodecError, ConfigurationError, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=Enum)

_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset, deque, OrderedDict, defaultdict})

NATIVE: Final = SCALARS | DUMPERS.keys() | _CONTAINERS
"""The types that need no registration."""

FACTORIES: Final[dict[str, Callable[[], object]]] = {
    "bool": bool,
    "bytes": bytes,
    "complex": complex,
    "decimal": Decimal,
    "deque": deque,
    "dict": dict,
    "float": float,
    "frozenset": frozenset,
    "int": int,
    "list": list,
    "ordered-dict": OrderedDict,
    "set": set,
    "str": str,
    "tuple": tuple,
}
"""What a defaultdict may make its values with before anything is registered."""

_TAG: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


_MAKERS: Final = ("__post_init__", "__init__", "__new__", "__setattr__", "__getattribute__")
"""What decides what an object is that is made of its fields."""


class Registration(NamedTuple):
    """How one type is kept. ``Any``: ``to`` is only called with the type it was registered for."""

    tag: str
    type: type
    to: Callable[[Any], object]
    make: Callable[[Any], object]


class Registry:
    """Registrations by type, to write, and by tag, to read."""

    def __init__(self) -> None:
        self.by_type: dict[type, Registration] = {}
        self.by_tag: dict[str, Registration] = {}
        self.factories = FACTORIES.copy()
        self.factory_tags = {factory: tag for tag, factory in FACTORIES.items()}

    def add(self, tag: str, type_: type[T], to: Callable[[T], object], from_: Callable[[Any], T]) -> None:
        """Keep values of exactly ``type_``, not of its subclasses, under ``tag``.

        Raises:
            ConfigurationError: The tag is none or taken, or the type is native or taken.
        """
        _check_tag(tag)
        if not isinstance(type_, type):
            raise ConfigurationError(f"tag {tag!r}: a class is registered, not {type(type_).__qualname__}")
        if type_ in NATIVE:
            raise ConfigurationError(f"{name_of(type_)} is kept natively and cannot be registered")
        if tag in self.by_tag:
            raise ConfigurationError(f"tag {tag!r} already stands for {name_of(self.by_tag[tag].type)}")
        if type_ in self.by_type:
            raise ConfigurationError(
                f"{name_of(type_)} is already registered under {self.by_type[type_].tag!r}"
            )
        self.by_tag[tag] = self.by_type[type_] = Registration(tag, type_, to, from_)

    def add_factory(self, tag: str, factory: Callable[[], object]) -> None:
        """Keep defaultdicts of a factory.

        Raises:
            ConfigurationError: The tag is none or taken, or the factory is taken or cannot be called.
        """
        _check_tag(tag)
        if not callable(factory) or not isinstance(factory, Hashable):
            raise ConfigurationError(f"tag {tag!r}: a factory is a hashable callable, not {factory!r}")
        if tag in self.factories:
            raise ConfigurationError(f"tag {tag!r} already stands for a factory")
        if factory in self.factory_tags:
            raise ConfigurationError(f"this factory already has the tag {self.factory_tags[factory]!r}")
        self.factories[tag] = factory
        self.factory_tags[factory] = tag

    def add_enum(self, tag: str, cls: type[EnumT]) -> None:
        """Keep the members of an enumeration by name, and combined flags by the names of their parts."""
        if not (isinstance(cls, type) and issubclass(cls, Enum)):
            raise ConfigurationError(f"tag {tag!r}: register_enum takes an Enum class, not {cls!r}")

        def to(member: EnumT) -> str | tuple[str, ...]:
            if member.name is not None and cls.__members__.get(member.name) is member:
                return member.name
            if isinstance(member, Flag):
                names = tuple(name for name, part in cls.__members__.items() if _is_one_bit_of(part, member))
                if _combined(cls, names) is member:
                    return names
            raise UnsupportedType(f"this {name_of(cls)} is no member with a name, nor made of such")

        def make(names: object) -> EnumT:
            member = cls.__members__.get(names) if isinstance(names, str) else None
            if isinstance(names, tuple) and issubclass(cls, Flag) and _are_names(cls, names):
                member = _combined(cls, names)
            if member is None:
                raise CodecError(f"{name_of(cls)} has no such member")
            return member

        self.add(tag, cls, to, make)

    def add_dataclass(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a dataclass by their fields."""
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            raise ConfigurationError(f"tag {tag!r}: register_dataclass takes a dataclass, not {cls!r}")
        names = tuple(field.name for field in dataclasses.fields(cls))
        if set(inspect.signature(cls).parameters) != set(names):
            raise ConfigurationError(
                f"{name_of(cls)} is not made from exactly its fields (it has init=False fields, InitVars or"
                " an __init__ of its own); register it with codec.register and two functions"
            )
        if not NATIVE.isdisjoint(cls.__mro__) or issubclass(cls, BaseException):
            raise ConfigurationError(
                f"{name_of(cls)} holds more than its fields, as it is derived from a type of values;"
                " register it with codec.register and two functions"
            )
        for name in names:
            if _is_set_by_a_function(inspect.getattr_static(cls, name, None)):
                raise ConfigurationError(
                    f"{name_of(cls)}.{name} is a descriptor, which might keep another value than it is given;"
                    " register the class with codec.register and two functions"
                )
        self._add_record(tag, cls, names)

    def add_namedtuple(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a named tuple by their fields."""
        names = getattr(cls, "_fields", None)
        if not (isinstance(cls, type) and issubclass(cls, tuple) and isinstance(names, tuple)):
            raise ConfigurationError(
                f"tag {tag!r}: register_namedtuple takes a named tuple class, not {cls!r}"
            )
        self._add_record(tag, cls, names)

    def _add_record(self, tag: str, cls: type[T], names: tuple[str, ...]) -> None:
        slots = {slot for base in cls.__mro__ for slot in _slots_of(base)} - set(names)
        if own := _makers_of(cls):
            raise ConfigurationError(
                f"{name_of(cls)} has {own[0]} of its own, which might make another object of the same"
                " fields; register it with codec.register and two functions"
            )

        def to(obj: T) -> dict[str, object]:
            more = getattr(obj, "__dict__", {}).keys() - names | {
                slot for slot in slots if hasattr(obj, slot)
            }
            if more := {name for name in more if not _is_made_again(cls, name)}:
                raise UnsupportedType(
                    f"this {name_of(cls)} has attributes that are no fields: {', '.join(sorted(more))}"
                )
            if isinstance(obj, tuple) and len(obj) != len(names):
                raise UnsupportedType(f"this {name_of(cls)} has {len(obj)} items for {len(names)} fields")
            if isinstance(obj, tuple):  # whatever the class makes of its names
                return dict(zip(names, tuple.__iter__(obj), strict=True))
            return {name: getattr(obj, name) for name in names}

        self.add(tag, cls, to, lambda data: cls(**_fields_of(tag, cls, names, data)))


def _makers_of(cls: type) -> list[str]:
    """Return the names of those of ``_MAKERS`` that neither Python, ``dataclass`` nor ``namedtuple`` made."""
    there = {name: getattr(cls, name, None) for name in _MAKERS}
    return [name for name, function in there.items() if not _is_generated(function)]


def _is_set_by_a_function(attribute: object) -> bool:
    return hasattr(type(attribute), "__set__") and not isinstance(attribute, MemberDescriptorType)


def _is_generated(function: object) -> bool:
    if isinstance(function, FunctionType):
        # What they made of a text; a class typed in at a prompt is of <stdin> or the like.
        return function.__code__.co_filename == "<string>" and function.__name__ != "__post_init__"
    return function is None or isinstance(function, (WrapperDescriptorType, BuiltinMethodType))


def _check_tag(tag: str) -> None:
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise ConfigurationError(
            f"a tag is 1 to 64 characters of A-Z, a-z, 0-9, '_', '.' and '-', not {tag!r}"
        )


def _is_one_bit_of(part: Enum, whole: Flag) -> bool:
    return isinstance(part, Flag) and part.value.bit_count() == 1 and part in whole


def _are_names(cls: type[Flag], names: tuple[object, ...]) -> bool:
    """Tell whether these are names of members, each once; whatever else they are, in no time."""
    if len(names) > len(cls.__members__) or not all(type(name) is str for name in names):
        return False
    return len(set(names)) == len(names) and cls.__members__.keys() >= set(names)


def _combined(cls: type[EnumT], names: Iterable[str]) -> EnumT:
    value: Any = cls(0)
    for name in names:
        value |= cls.__members__[name]
    return cast("EnumT", value)


def _slots_of(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(_mangled(base, name) for name in names if name not in {"__dict__", "__weakref__"})


def _mangled(base: type, name: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{base.__name__.lstrip('_')}{name}" if private else name


def _is_made_again(cls: type, name: str) -> bool:
    """Tell whether an attribute is what a cached property computed, or what typing notes of ``C[int]()``."""
    cached = any(isinstance(base.__dict__.get(name), cached_property) for base in cls.__mro__)
    return cached or name == "__orig_class__"


def name_of(type_: type) -> str:
    """Return a type's name as its importer writes it."""
    return f"{type_.__module__}.{type_.__qualname__}"


def registration_for(type_: type) -> str:
    """Return the name of the codec's method that registers types of this kind."""
    if issubclass(type_, Enum):
        return "register_enum"
    if _makers_of(type_):
        return "register"
    if dataclasses.is_dataclass(type_):
        return "register_dataclass"
    return "register_namedtuple" if issubclass(type_, tuple) and hasattr(type_, "_fields") else "register"


def _fields_of(tag: str, cls: type, names: tuple[str, ...], data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CodecError(f"the fields of {name_of(cls)} are not a dict")
    change = ""
    if missing := [name for name in names if name not in data]:
        change = f"{name_of(cls)} has fields that the record lacks: {', '.join(missing)}"
    elif len(data) > len(names):
        change = f"the record has {len(data) - len(names)} fields that {name_of(cls)} lacks"
    if change:
        raise CodecError(
            f"{change}; keep a class with the old fields under the tag {tag!r}, register the new one under"
            " another, and have a migration make the new of the old"
        )
    return data
