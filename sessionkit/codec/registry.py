"""The types that a codec keeps because its user said how."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import OrderedDict, deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sessionkit.codec.leaves import DUMPERS
from sessionkit.codec.wire import SCALARS
from sessionkit.errors import CodecError, ConfigurationError, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=Enum)

NATIVE: Final = SCALARS | DUMPERS.keys() | {list, dict, tuple, set, frozenset, deque, OrderedDict}
"""The types that need no registration."""

_TAG: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)


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

    def add(self, tag: str, type_: type[T], to: Callable[[T], object], from_: Callable[[Any], T]) -> None:
        """Keep values of exactly ``type_``, not of its subclasses, under ``tag``.

        Raises:
            ConfigurationError: The tag is none or taken, or the type is native or taken.
        """
        if not isinstance(tag, str) or not _TAG.fullmatch(tag):
            raise ConfigurationError(
                f"a tag is 1 to 64 characters of a-z, 0-9, '_', '.' and '-', not {tag!r}"
            )
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

    def add_enum(self, tag: str, cls: type[EnumT]) -> None:
        """Keep the members of an enumeration by name."""
        if not (isinstance(cls, type) and issubclass(cls, Enum)):
            raise ConfigurationError(f"tag {tag!r}: register_enum takes an Enum class, not {cls!r}")

        def to(member: EnumT) -> str:
            if member.name is None or cls.__members__.get(member.name) is not member:
                raise UnsupportedType(f"this {name_of(cls)} is no member with a name of its own")
            return member.name

        def make(name: object) -> EnumT:
            member = cls.__members__.get(name) if isinstance(name, str) else None
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

        def to(obj: T) -> dict[str, object]:
            return {name: getattr(obj, name) for name in names}

        self.add(tag, cls, to, lambda data: cls(**_fields_of(cls, names, data)))

    def add_namedtuple(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a named tuple by their fields."""
        names = getattr(cls, "_fields", None)
        if not (isinstance(cls, type) and issubclass(cls, tuple) and isinstance(names, tuple)):
            raise ConfigurationError(
                f"tag {tag!r}: register_namedtuple takes a named tuple class, not {cls!r}"
            )

        def to(obj: T) -> dict[str, object]:
            return {name: getattr(obj, name) for name in names}

        self.add(tag, cls, to, lambda data: cls(**_fields_of(cls, names, data)))


def name_of(type_: type) -> str:
    """Return a type's name as its importer writes it."""
    return f"{type_.__module__}.{type_.__qualname__}"


def _fields_of(cls: type, names: tuple[str, ...], data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CodecError(f"the fields of {name_of(cls)} are not a dict")
    missing = [name for name in names if name not in data]
    if missing:
        raise CodecError(f"{name_of(cls)} has fields that the record lacks: {', '.join(missing)}")
    if len(data) > len(names):
        raise CodecError(f"the record has {len(data) - len(names)} fields that {name_of(cls)} lacks")
    return data
