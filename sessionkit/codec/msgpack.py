"""The default codec."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sessionkit.codec.compression import Compressor
from sessionkit.codec.envelope import HEADER_BYTES, open_record, schema_of, seal
from sessionkit.codec.lifting import Lifting
from sessionkit.codec.limits import Limits
from sessionkit.codec.lowering import Lowering
from sessionkit.codec.migrations import Migrations
from sessionkit.codec.plain import NOT_PLAIN, PLAIN_UNCOUNTED, pack_plain, unpack_plain
from sessionkit.codec.protocol import Codec
from sessionkit.codec.raw import NO_ROOM, check_lengths, pack
from sessionkit.codec.registry import Registry
from sessionkit.codec.wrapping import Wrapper
from sessionkit.errors import CodecError, RecordTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sessionkit.codec.compression import Compression
    from sessionkit.codec.encryption import Keyring
    from sessionkit.codec.migrations import Migration

DEFAULT_COMPRESS_FROM: Final = 16 * 1024
"""Below this, what compression saves is not worth the time it takes."""

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=Enum)


class MsgpackCodec(Codec):
    """Keeps values as msgpack in a checked envelope; see ``Codec`` for the contract.

    Natively: None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, datetime,
    date, time, timedelta, Decimal, Fraction, UUID, complex, deque, OrderedDict and defaultdict, each exactly:
    a subclass is another type. Other types are opened by registration; no name found in a record is ever
    imported.

    Values are trees. An object that stands in two places comes back as two equal ones, and one that
    contains itself is refused. Time zones are ``datetime.timezone`` or, by their key, ``ZoneInfo``.

    Args:
        limits: How large a record may be.
        schema: The version of what your values mean, 1 to 65535; written into every record. A record of a
            newer schema is refused.
        migrations: What makes of a value of each older schema one of the next, by the older one's number; for
            all of them, or for none, and then older values are read as they are.
        compression: How large records are compressed: ``"zstd"``, ``"zlib"``, ``"off"``, or ``"auto"``: zstd
            where it is installed. Records are read whatever they were compressed by.
        compress_from: From how many bytes on a record is compressed; it is so only if that saves some.
        keyring: The keys that encrypt and decrypt records; None: records are not encrypted.
        strict: Whether, with a keyring, records that are not encrypted are refused. False: they are read,
            which is for the time until ``sessionkit rekey`` has encrypted them all.

    Raises:
        ConfigurationError: One of them is not so, or needs a package that is not installed.
    """

    def __init__(
        self,
        *,
        limits: Limits = Limits(),
        schema: int = 1,
        migrations: Mapping[int, Migration] | None = None,
        compression: Compression = "auto",
        compress_from: int = DEFAULT_COMPRESS_FROM,
        keyring: Keyring | None = None,
        strict: bool = True,
    ) -> None:
        self._limits = limits
        self._migrations = Migrations(schema, migrations or {})
        self._schema = schema
        self._registry = Registry()
        compressor = Compressor(compression, compress_from, limits)
        self._wrapper = Wrapper(compressor, keyring, strict, limits)

    def register(self, tag: str, type: type[T], to: Callable[[T], object], from_: Callable[[Any], T]) -> None:
        """Keep values of a type.

        Args:
            tag: What stands for the type in records, forever: 1 to 64 characters of ``A-Za-z0-9_.-``.
            type: The type itself; its subclasses need registrations of their own.
            to: Makes a value of supported types from an object; it may hold other registered objects. Equal
                objects must give equal results if unchanged data is to be recognised as such.
            from_: Makes the object again.

        Raises:
            ConfigurationError: The tag is none or taken, or the type is native or taken.
        """
        self._registry.add(tag, type, to, from_)

    def register_factory(self, tag: str, factory: Callable[[], object]) -> None:
        """Keep defaultdicts that make their values with a factory.

        ``list``, ``dict``, ``set``, ``int`` and the other builtin types of values need no registration, nor
        does None.

        Args:
            tag: What stands for the factory in records, forever; see ``register``. Tags of types may be the
                same.
            factory: The very object that the defaultdicts have, such as a function of a module.

        Raises:
            ConfigurationError: The tag is none or taken, or the factory is taken or cannot be called.
        """
        self._registry.add_factory(tag, factory)

    def register_enum(self, tag: str, cls: type[EnumT]) -> None:
        """Keep the members of an enumeration by their names, which must then never change.

        Combined flags are kept by the names of their single bits.

        Raises:
            ConfigurationError: See ``register``.
        """
        self._registry.add_enum(tag, cls)

    def register_dataclass(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a dataclass by their fields; a record must have exactly these.

        An instance with other attributes is refused, but for what a ``functools.cached_property`` computed.

        Raises:
            ConfigurationError: See ``register``; or the class is not made from exactly its fields, as with a
                ``__post_init__``, which is not to be run again on what it has left.
        """
        self._registry.add_dataclass(tag, cls)

    def register_namedtuple(self, tag: str, cls: type[T]) -> None:
        """Keep the instances of a named tuple by their fields; a record must have exactly these.

        Raises:
            ConfigurationError: See ``register``.
        """
        self._registry.add_namedtuple(tag, cls)

    def pack(self, obj: object, *, name: str = "value") -> bytes:
        """Return the plain record of a value; see ``Codec.pack``."""
        body = pack_plain(obj, self._limits)
        if body is None:
            body = pack(Lowering(self._registry, self._limits, name).lower(obj))
        size = HEADER_BYTES + len(body)
        if size > self._limits.stored_bytes:
            raise RecordTooLarge(f"{name}: {self._limits.refusal(f'{size} bytes', 'stored_bytes')}")
        return seal(body, self._schema)

    def unpack(self, plain: bytes) -> Any:
        """Return the value of a plain record; see ``Codec.unpack``."""
        flags, schema, body = open_record(plain)
        if flags:
            raise CodecError("a record that is compressed or encrypted: unwrap it first")
        if schema > self._schema:
            raise CodecError(
                f"a record of schema {schema}, and this codec knows schemas up to {self._schema}:"
                " a newer version of the bot wrote it"
            )
        try:
            return self._value_of(body)
        except NO_ROOM as error:
            raise CodecError(f"a record cannot be read here and now ({type(error).__name__})") from None

    def _value_of(self, body: bytes) -> Any:
        check_lengths(body, self._limits, PLAIN_UNCOUNTED)
        value = unpack_plain(body, self._limits)
        if value is NOT_PLAIN:
            check_lengths(body, self._limits)
            value = Lifting(self._registry, self._limits).lift(body)
        return value

    def migrate(self, value: Any, plain: bytes, *, kind: str | None = None) -> Any:
        """Return a value of an older schema as one of this codec's; see ``Codec.migrate``."""
        schema = schema_of(plain)
        return value if schema == self._schema else self._migrations.apply(value, schema, kind)

    def wrap(self, plain: bytes, *, key: str | None = None) -> bytes:
        """Return what is stored of a plain record; see ``Codec.wrap``."""
        return self._wrapper.wrap(plain, key)

    def unwrap(self, data: bytes, *, key: str | None = None) -> bytes:
        """Return the plain record of what was stored; see ``Codec.unwrap``."""
        return self._wrapper.unwrap(data, key)

    def encode(self, obj: object, *, key: str | None = None, name: str = "value") -> bytes:
        """Return what is stored of a value; see ``Codec.encode``."""
        plain = self.pack(obj, name=name)
        return plain if len(plain) < self._wrapper.smallest else self._wrapper.wrap(plain, key)

    def decode(self, data: bytes, *, key: str | None = None) -> Any:
        """Return the value of what was stored; see ``Codec.decode``."""
        plain = self._wrapper.unwrap(data, key)
        value = self.unpack(plain)
        return self.migrate(value, plain) if self._schema > 1 else value
