"""The default codec."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from sessionkit.codec.envelope import HEADER_BYTES, MAX_SCHEMA, seal, unseal
from sessionkit.codec.lifting import Lifting
from sessionkit.codec.limits import Limits
from sessionkit.codec.lowering import Lowering
from sessionkit.codec.plain import is_plain, is_plain_tree, may_be_odd, pack, unique, unpack
from sessionkit.codec.registry import Registry
from sessionkit.errors import CodecError, ConfigurationError, RecordTooLarge, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=Enum)


class MsgpackCodec:
    """Keeps values as msgpack in a checked envelope; see ``Codec`` for the contract.

    Natively: None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, datetime,
    date, time, timedelta, Decimal, Fraction, UUID, complex, deque and OrderedDict, each exactly: a subclass
    is another type. Other types are opened by registration; no name found in a record is ever imported.

    Values are trees. An object that stands in two places comes back as two equal ones, and one that
    contains itself is refused. Time zones are ``datetime.timezone`` or, by their key, ``ZoneInfo``.

    Args:
        limits: How large a record may be.
        schema: The version of what your values mean, 1 to 65535; written into every record. A record of a
            newer schema is refused.

    Raises:
        ConfigurationError: The schema is no such number.
    """

    def __init__(self, *, limits: Limits = Limits(), schema: int = 1) -> None:
        if type(schema) is not int or not 1 <= schema <= MAX_SCHEMA:
            raise ConfigurationError(
                f"a schema version is a whole number from 1 to {MAX_SCHEMA}, not {schema!r}"
            )
        self._limits = limits
        self._schema = schema
        self._registry = Registry()

    def register(self, tag: str, type: type[T], to: Callable[[T], object], from_: Callable[[Any], T]) -> None:
        """Keep values of a type.

        Args:
            tag: What stands for the type in records, forever: 1 to 64 characters of ``a-z0-9_.-``.
            type: The type itself; its subclasses need registrations of their own.
            to: Makes a value of supported types from an object; it may hold other registered objects. Equal
                objects must give equal results if unchanged data is to be recognised as such.
            from_: Makes the object again.

        Raises:
            ConfigurationError: The tag is none or taken, or the type is native or taken.
        """
        self._registry.add(tag, type, to, from_)

    def register_enum(self, tag: str, cls: type[EnumT]) -> None:
        """Keep the members of an enumeration by their names, which must then never change.

        Raises:
            ConfigurationError: See ``register``.
        """
        self._registry.add_enum(tag, cls)

    def register_dataclass(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a dataclass by their fields; a record must have exactly these.

        Raises:
            ConfigurationError: See ``register``; or the class is not made from exactly its fields.
        """
        self._registry.add_dataclass(tag, cls)

    def register_namedtuple(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a named tuple by their fields; a record must have exactly these.

        Raises:
            ConfigurationError: See ``register``.
        """
        self._registry.add_namedtuple(tag, cls)

    def encode(self, obj: object, *, name: str = "value") -> bytes:
        """Return the bytes of a value; see ``Codec.encode``."""
        body = self._pack_plain(obj)
        if body is None:
            body = pack(Lowering(self._registry, self._limits, name).lower(obj))
        size = HEADER_BYTES + len(body)
        if size > self._limits.stored_bytes:
            raise RecordTooLarge(
                f"{name}: {size} bytes, and a record has at most {self._limits.stored_bytes}"
            )
        return seal(body, self._schema)

    def decode(self, data: bytes) -> Any:
        """Return the value of its bytes; see ``Codec.decode``."""
        if type(data) is not bytes:
            raise UnsupportedType(f"a codec decodes bytes, not {type(data).__qualname__}")
        if len(data) > self._limits.stored_bytes:
            raise RecordTooLarge(f"{len(data)} bytes, and a record has at most {self._limits.stored_bytes}")
        schema, body = unseal(data)
        if schema > self._schema:
            raise CodecError(
                f"a record of schema {schema}, and this codec knows schemas up to {self._schema}"
            )
        try:
            value = unpack(body, self._limits, unique, _stop)
        except _ExtensionMet:
            return Lifting(self._registry, self._limits).lift(body)
        if may_be_odd(body, self._limits) and not is_plain_tree(value, self._limits.depth):
            return Lifting(self._registry, self._limits).lift(body)
        return value

    def _pack_plain(self, obj: object) -> bytes | None:
        """Pack plain data, or return None for what needs a closer look."""
        if not is_plain(obj, self._limits):
            return None
        try:
            body = pack(obj)
        except (OverflowError, UnicodeEncodeError):  # an int over 64 bits, a lone surrogate
            return None
        return body if len(body) <= self._limits.items else None


class _ExtensionMet(Exception):
    """The body is not plain data."""


def _stop(_code: int, _payload: bytes) -> object:
    raise _ExtensionMet
