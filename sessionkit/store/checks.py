"""Argument checks that every driver applies before it does anything, so that all refuse alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from sessionkit.errors import InvalidExpiry, InvalidKey, RecordTooLarge, UnsupportedType
from sessionkit.store.records import ABSENT, VERSION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkit.store.records import Absent, Version

MAX_KEY_BYTES: Final = 64 * 1024
MAX_EXPIRY_SECONDS: Final = 100 * 366 * 86_400
"""A hundred years; Redis refuses an expiry whose absolute time overflows 64-bit milliseconds."""


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
    if isinstance(keys, str):
        raise InvalidKey(f"{_shown(keys)}: several keys are wanted, and this is one str")
    wanted = list(dict.fromkeys(keys))
    for key in wanted:
        check_key(key)
    return wanted


def milliseconds(expires_in: float) -> int:
    """Convert an expiry in seconds to whole milliseconds, rounded up so that none becomes zero.

    Raises:
        InvalidExpiry: It is not a number, not finite, not above zero, or over ``MAX_EXPIRY_SECONDS``.
    """
    if isinstance(expires_in, bool) or not isinstance(expires_in, (int, float)):
        raise InvalidExpiry(
            f"an expiry is a number of seconds, not {type(expires_in).__name__}"
            " (of a timedelta, pass .total_seconds())"
        )
    if not 0 < expires_in <= MAX_EXPIRY_SECONDS:
        raise InvalidExpiry(
            f"an expiry is above 0 and at most {MAX_EXPIRY_SECONDS} seconds, not {expires_in!r};"
            " for a record that never expires pass None"
        )
    return math.ceil(expires_in * 1000)


def check_put(
    key: str,
    value: bytes,
    expires_in: float | None,
    if_version: Version | Absent | None,
    write_id: Version | None,
    max_value_bytes: int,
) -> None:
    """Refuse arguments that no ``put`` takes.

    Raises:
        InvalidKey: See ``check_key``.
        InvalidExpiry: See ``milliseconds``.
        UnsupportedType: The value is not ``bytes``, or a version is not one.
        RecordTooLarge: The value is over the driver's bound.
    """
    check_key(key)
    if not isinstance(value, bytes):
        raise UnsupportedType(f"{_shown(key)}: a store keeps bytes, not {type(value).__name__}")
    if len(value) > max_value_bytes:
        raise RecordTooLarge(
            f"{_shown(key)}: {len(value)} bytes, and this store takes at most {max_value_bytes}"
        )
    if expires_in is not None:
        milliseconds(expires_in)
    check_version(if_version)
    check_version(write_id)


def check_version(version: Version | Absent | None) -> None:
    """Refuse what is neither a version, nor ``ABSENT``, nor None.

    Raises:
        UnsupportedType: It is none of them.
    """
    if version is None or version is ABSENT:
        return
    if not isinstance(version, bytes) or len(version) != VERSION_BYTES:
        raise UnsupportedType("a version is one that a Record or a Receipt carried, ABSENT or None")


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 80 else f"{key[:77]}...")
