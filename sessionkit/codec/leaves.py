"""The native types that hold no other values, as payloads of their extension code.

All numbers are big endian.

============= =========================================================================================
``INT``       two's complement, as short as it can be; only ints that need more than 64 bits
``BYTEARRAY`` the bytes
``DECIMAL``   ``str()`` of it, which is exact
``FRACTION``  length of the numerator in 2 bytes, numerator, denominator: both as for ``INT``
``COMPLEX``   two float64
``UUID``      16 bytes, then 1 if it is known to be safe, 0 if unsafe, nothing if neither
``DATE``      year in 2 bytes, month, day
``TIME``      hour, minute, second, microseconds in 4 bytes, fold, time zone (see ``zones``)
``DATETIME``  a date, then a time
``TIMEDELTA`` days in 4 bytes signed, seconds and microseconds in 4 bytes each
============= =========================================================================================
"""

from __future__ import annotations

import struct
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, SafeUUID

from sessionkit.codec.wire import Leaf
from sessionkit.codec.zones import dump_zone, load_zone
from sessionkit.errors import RecordTooLarge, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Callable

FRACTION_BYTES: Final = 160
"""The most bytes of a numerator or denominator, enough for any float's: to reduce a fraction takes time
quadratic in them."""

KEY_INT_BYTES: Final = 128
"""The most bytes of an int in a key or set: to compare 64 KiB of it with a Decimal takes 0.2 s."""

_LENGTH: Final = struct.Struct(">H")
_COMPLEX: Final = struct.Struct(">dd")
_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_DATETIME: Final = struct.Struct(">HBBBBBIB")
_TIMEDELTA: Final = struct.Struct(">iII")
_SAFETY: Final = {SafeUUID.unknown: b"", SafeUUID.safe: b"\1", SafeUUID.unsafe: b"\0"}
_SPELLING: Final = Context(capitals=1)
"""``str()`` would follow the caller's decimal context."""


def int_size(value: int) -> int:
    """Return how many bytes an int needs in two's complement."""
    return ((value if value >= 0 else ~value).bit_length()) // 8 + 1


def dump_int(value: int) -> bytes:
    """Return the shortest two's complement of an int."""
    return value.to_bytes(int_size(value), "big", signed=True)


def load_int(data: bytes) -> int:
    """Return the int of its shortest two's complement."""
    value = int.from_bytes(data, "big", signed=True)
    if int_size(value) != len(data):
        raise ValueError("an int longer than it needs to be")
    return value


def _load_big_int(data: bytes) -> int:
    value = load_int(data)
    if -(2**63) <= value < 2**64:
        raise ValueError("a small int written as a big one")
    return value


def _dump_decimal(value: Decimal) -> bytes:
    return _SPELLING.to_sci_string(value).encode("ascii")


def _load_decimal(data: bytes) -> Decimal:
    value = Decimal(data.decode("ascii"))
    if _dump_decimal(value) != data:
        raise ValueError("a decimal in another spelling than its own")
    return value


def _dump_fraction(value: Fraction) -> bytes:
    if max(int_size(value.numerator), int_size(value.denominator)) > FRACTION_BYTES:
        raise RecordTooLarge(
            f"a fraction's numerator and denominator have at most {FRACTION_BYTES} bytes each"
        )
    numerator = dump_int(value.numerator)
    return _LENGTH.pack(len(numerator)) + numerator + dump_int(value.denominator)


def _load_fraction(data: bytes) -> Fraction:
    (length,) = _LENGTH.unpack_from(data)
    numerator, denominator = data[2 : 2 + length], data[2 + length :]
    if max(len(numerator), len(denominator)) > FRACTION_BYTES:
        raise ValueError("a fraction too long")
    value = Fraction(load_int(numerator), load_int(denominator))
    if _dump_fraction(value) != data:
        raise ValueError("a fraction not in lowest terms")
    return value


def _dump_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _load_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _dump_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _load_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _dump_time(value: time | datetime) -> bytes:
    clock = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return clock + dump_zone(value.tzinfo)


def _load_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, load_zone(data[_TIME.size :]), fold=fold)


def _dump_datetime(value: datetime) -> bytes:
    return _dump_date(value) + _dump_time(value)


def _load_datetime(data: bytes) -> datetime:
    # At once, as combining a date and a time takes half as long again.
    year, month, day, hour, minute, second, microsecond, fold = _DATETIME.unpack_from(data)
    zone = load_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _dump_timedelta(value: timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _load_timedelta(data: bytes) -> timedelta:
    value = timedelta(*_TIMEDELTA.unpack(data))
    if _dump_timedelta(value) != data:
        raise ValueError("a timedelta not in normal form")
    return value


def _dump_uuid(value: UUID) -> bytes:
    if type(value.int) is not int:
        raise UnsupportedType("a UUID whose int is of a subclass of int would come back without it")
    return value.bytes + _SAFETY[value.is_safe]


def _load_uuid(data: bytes) -> UUID:
    for is_safe, suffix in _SAFETY.items():
        if data[16:] == suffix:
            return UUID(bytes=data[:16], is_safe=is_safe)
    raise ValueError("a UUID with a tail")


# Any: a dumper is only ever called with the type it stands beside.
DUMPERS: Final[dict[type, tuple[Leaf, Callable[[Any], bytes]]]] = {
    bytearray: (Leaf.BYTEARRAY, bytes),
    Decimal: (Leaf.DECIMAL, _dump_decimal),
    Fraction: (Leaf.FRACTION, _dump_fraction),
    complex: (Leaf.COMPLEX, _dump_complex),
    UUID: (Leaf.UUID, _dump_uuid),
    date: (Leaf.DATE, _dump_date),
    time: (Leaf.TIME, _dump_time),
    datetime: (Leaf.DATETIME, _dump_datetime),
    timedelta: (Leaf.TIMEDELTA, _dump_timedelta),
}

LOADERS: Final[dict[Leaf, Callable[[bytes], object]]] = {
    Leaf.INT: _load_big_int,
    Leaf.BYTEARRAY: bytearray,
    Leaf.DECIMAL: _load_decimal,
    Leaf.FRACTION: _load_fraction,
    Leaf.COMPLEX: _load_complex,
    Leaf.UUID: _load_uuid,
    Leaf.DATE: _load_date,
    Leaf.TIME: _load_time,
    Leaf.DATETIME: _load_datetime,
    Leaf.TIMEDELTA: _load_timedelta,
}
