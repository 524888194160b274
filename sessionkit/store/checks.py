"""Argument checks that every driver applies before it does anything, so that all refuse alike."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from sessionkit.errors import (
    ConfigurationError,
    InvalidExpiry,
    InvalidKey,
    RecordTooLarge,
    UnsupportedType,
)
from sessionkit.store.records import ABSENT, MAX_VALUE_BYTES, VERSION_BYTES, Delete, Put

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sessionkit.store.records import Absent, Version

MAX_KEY_BYTES: Final = 64 * 1024
MAX_EXPIRY_SECONDS: Final = 100 * 366 * 86_400
"""A hundred years; Redis refuses an expiry whose absolute time overflows 64-bit milliseconds."""

_TURN: Final = 1000
"""How many checks of a batch may keep the event loop busy at a stretch: about a millisecond."""

T = TypeVar("T")


def check_key(key: str) -> None:
    """Refuse what cannot be a key.

    A key is text of 1 to ``MAX_KEY_BYTES`` bytes of UTF-8 without ``#``, which marks the keys that drivers
    keep for themselves (locks).

    Raises:
        InvalidKey: It is none.
    """
    if not isinstance(key, str):
        raise InvalidKey(f"a key is a str, not {type(key).__name__}")
    if not key:
        raise InvalidKey("a key is not empty")
    if "#" in key:
        raise InvalidKey(f"{_shown(key)}: '#' marks a driver's own keys; percent-encode it as %23")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKey(f"{_shown(key)}: a key holds no lone surrogates") from None
    if size > MAX_KEY_BYTES:
        raise InvalidKey(f"{_shown(key)}: {size} bytes, and a key has at most {MAX_KEY_BYTES}")


def check_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys as a list, each once and in order, after ``check_key`` of each.

    Raises:
        InvalidKey: One of them is none, or a single str was given in place of several.
    """
    wanted = _distinct(keys)
    for key in wanted:
        check_key(key)
    return wanted


async def check_keys_in_turns(keys: Iterable[str]) -> list[str]:
    """Do as ``check_keys``, and of a long batch let other tasks run in between.

    Raises:
        InvalidKey: As ``check_keys``.
    """
    wanted = _distinct(keys)
    for turn in _turns(wanted):
        for key in turn:
            check_key(key)
        if len(turn) == _TURN:
            await asyncio.sleep(0)
    return wanted


def milliseconds(expires_in: float) -> int:
    """Convert an expiry in seconds to whole milliseconds, rounded up so that none becomes zero.

    Raises:
        InvalidExpiry: It is not a number, not finite, not above zero, or over ``MAX_EXPIRY_SECONDS``.
    """
    if isinstance(expires_in, bool) or not isinstance(expires_in, (int, float)):
        raise InvalidExpiry(
            f"an expiry is a number of seconds, not {type(expires_in).__name__}"
            f"{' (pass its .total_seconds())' if isinstance(expires_in, timedelta) else ''}"
        )
    if not 0 < expires_in <= MAX_EXPIRY_SECONDS:
        raise InvalidExpiry(
            f"an expiry is above 0 and at most {MAX_EXPIRY_SECONDS} seconds, not {expires_in!r};"
            " for a record that never expires pass None"
        )
    return math.ceil(expires_in * 1000)


def check_expiry(expires_in: float | None) -> int | None:
    """Return the ``milliseconds`` of an expiry, None for None.

    Raises:
        InvalidExpiry: See ``milliseconds``.
    """
    return None if expires_in is None else milliseconds(expires_in)


def check_prefix(prefix: str) -> None:
    """Refuse what no key can start with; the empty text starts all of them.

    Raises:
        InvalidKey: It is not text, or holds lone surrogates.
    """
    try:
        prefix.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidKey(f"a prefix is text without lone surrogates, not {ascii(prefix)[:80]}") from None


def check_put(put: Put, max_value_bytes: int) -> int | None:
    """Do as ``check_write``, of the put's fields."""
    return check_write(*put, max_value_bytes)


def check_write(
    key: str,
    value: bytes,
    expires_in: float | None,
    if_version: Version | Absent | None,
    write_id: Version | None,
    max_value_bytes: int,
) -> int | None:
    """Refuse what no ``put`` takes, and return its expiry as ``check_expiry`` does.

    Raises:
        InvalidKey: See ``check_key``.
        InvalidExpiry: See ``milliseconds``.
        UnsupportedType: The value is not ``bytes``, or a version is not one.
        RecordTooLarge: The value is over the driver's bound.
    """
    check_key(key)
    _check_value(key, value, max_value_bytes)
    expiry = None if expires_in is None else milliseconds(expires_in)
    if if_version is not None and if_version is not ABSENT:
        check_version(if_version)
    if write_id is not None and not (type(write_id) is bytes and len(write_id) == VERSION_BYTES):
        check_version(write_id)
    return expiry


def _check_value(key: str, value: bytes, max_value_bytes: int) -> None:
    """Refuse what no record of a driver holds.

    Raises:
        UnsupportedType: It is not ``bytes``.
        RecordTooLarge: It is over the driver's bound.
    """
    if not isinstance(value, bytes):
        raise UnsupportedType(f"{_shown(key)}: a store keeps bytes, not {type(value).__name__}")
    if len(value) > max_value_bytes:
        raise RecordTooLarge(
            f"{_shown(key)}: {len(value)} bytes, and this store takes at most {max_value_bytes}"
        )


def check_recode(key: str, value: bytes, if_version: Version, max_value_bytes: int) -> None:
    """Refuse what no ``recode`` takes.

    Raises:
        InvalidKey: See ``check_key``.
        UnsupportedType: The value is not ``bytes``, or the version is none.
        RecordTooLarge: The value is over the driver's bound.
    """
    check_key(key)
    _check_value(key, value, max_value_bytes)
    if if_version is None:
        raise UnsupportedType("recode needs the version of the record that was read")
    check_version(if_version)


def check_puts(puts: Iterable[Put], max_value_bytes: int) -> list[Put]:
    """Return the puts as a list, after ``check_put`` of each."""
    batch = list(puts)
    for put in batch:
        check_put(put, max_value_bytes)
    return batch


async def check_puts_in_turns(puts: Iterable[Put], max_value_bytes: int) -> list[Put]:
    """Do as ``check_puts``, and of a long batch let other tasks run in between."""
    batch = list(puts)
    for turn in _turns(batch):
        for put in turn:
            check_put(put, max_value_bytes)
        if len(turn) == _TURN:
            await asyncio.sleep(0)
    return batch


def check_writes(
    writes: Iterable[Put | Delete], write_id: Version | None, max_value_bytes: int
) -> list[Put | Delete]:
    """Return the writes of a ``write_all`` as a list, after a check of each.

    Raises:
        ConfigurationError: A key stands twice, or a put has a write id of its own.
        RecordTooLarge: A value is over the driver's bound, or all together are over ``MAX_VALUE_BYTES``.
        SessionKitError: See ``check_write``.
    """
    batch = list(writes)
    check_version(write_id)
    keys: set[str] = set()
    size = 0
    for write in batch:
        if isinstance(write, Put):
            check_put(write, max_value_bytes)
            size += len(write.value)
            if write.write_id is not None:
                raise ConfigurationError(
                    f"{_shown(write.key)}: puts of a write_all share its write_id and have none themselves"
                )
        elif isinstance(write, Delete):
            check_key(write.key)
            check_version(write.if_version)
        else:
            raise UnsupportedType(f"a write_all takes Put and Delete, not {type(write).__name__}")
        if write.key in keys:
            raise ConfigurationError(f"{_shown(write.key)} stands twice in one write_all")
        keys.add(write.key)
    if size > MAX_VALUE_BYTES:
        raise RecordTooLarge(f"{size} bytes in one write_all, and it takes at most {MAX_VALUE_BYTES}")
    return batch


def check_version(version: Version | None) -> None:
    """Refuse what is neither a version nor None.

    Raises:
        UnsupportedType: It is neither.
    """
    if version is not None and not (isinstance(version, bytes) and len(version) == VERSION_BYTES):
        raise UnsupportedType("a version is one that a Record or a Receipt carried")


def _distinct(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str):
        raise InvalidKey(f"{_shown(keys)}: several keys are wanted, and this is one str")
    return list(dict.fromkeys(keys))


def _turns(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _TURN] for start in range(0, len(items), _TURN))


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 80 else f"{key[:77]}...")
