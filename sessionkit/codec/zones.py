"""Time zones as bytes: one byte for the kind, then what the kind needs.

==== =============== ==============================================================
kind time zone       payload
==== =============== ==============================================================
0    none            nothing
1    timezone.utc    nothing
2    timezone        offset from UTC in microseconds, 8 bytes signed big endian
3    timezone, named the same, then the name in UTF-8
4    ZoneInfo        its key in ASCII
==== =============== ==============================================================
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo
from pickle import PicklingError
from typing import Any, Final
from zoneinfo import ZoneInfo

from sessionkit.errors import CodecError, UnsupportedType

_NONE, _UTC, _OFFSET, _NAMED, _ZONE = range(5)
_OFFSET_BYTES: Final = 8
_MICROSECOND: Final = timedelta(microseconds=1)

# ZoneInfo looks a key up as a file and as a resource of a package: let nothing but a zone's name through.
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+\-]*(/[A-Za-z0-9][A-Za-z0-9_+\-]*)*", re.ASCII)
_ZONE_KEY_LENGTH: Final = 128


def dump_zone(zone: tzinfo | None) -> bytes:
    """Return the bytes of a time zone.

    Raises:
        UnsupportedType: It is of a class that sessionkit cannot make again, a ZoneInfo that its key would not
            give again, or made of subclasses of str and timedelta.
    """
    if zone is None:
        return bytes([_NONE])
    if zone is UTC:
        return bytes([_UTC])
    if type(zone) is ZoneInfo:
        if not _is_zone_key(zone.key):
            raise UnsupportedType("a ZoneInfo is kept by its key, and this one has none that names a zone")
        _check_source(zone)
        return bytes([_ZONE]) + zone.key.encode()
    if type(zone) is timezone:
        return _dump_offset(zone)
    raise UnsupportedType(
        f"a time zone of class {type(zone).__module__}.{type(zone).__qualname__} is not kept;"
        " use datetime.timezone or zoneinfo.ZoneInfo"
    )


def load_zone(data: bytes) -> tzinfo | None:
    """Return the time zone of its bytes.

    Raises:
        ValueError: They are those of none.
        CodecError: This machine does not know the zone.
    """
    kind, payload = data[0], data[1:]
    if kind == _ZONE:
        return _load_zoneinfo(payload.decode("ascii"))
    if kind in (_NONE, _UTC) and not payload:
        return UTC if kind == _UTC else None
    if kind in (_OFFSET, _NAMED) and len(payload) >= _OFFSET_BYTES:
        offset = int.from_bytes(payload[:_OFFSET_BYTES], "big", signed=True) * _MICROSECOND
        name = payload[_OFFSET_BYTES:]
        if kind == _NAMED:
            return timezone(offset, name.decode())
        if not name:
            return timezone(offset)
    raise ValueError("no time zone")


def _dump_offset(zone: timezone) -> bytes:
    # The arguments it was made of: a name that is the same as the default one still shows in its repr.
    reduced: Any = zone.__reduce__()
    offset, *name = reduced[1]
    if type(offset) is not timedelta or any(type(part) is not str for part in name):
        raise UnsupportedType(
            "a time zone whose offset or name is of a subclass of timedelta or str would come back without it"
        )
    dumped: bytes = (offset // _MICROSECOND).to_bytes(_OFFSET_BYTES, "big", signed=True)
    if not name:
        return bytes([_OFFSET]) + dumped
    try:
        text: bytes = name[0].encode()
    except UnicodeEncodeError:
        raise UnsupportedType("a time zone's name holds no lone surrogates") from None
    return bytes([_NAMED]) + dumped + text


def _check_source(zone: ZoneInfo) -> None:
    """Refuse what ``ZoneInfo(key)`` would not give again, told by how it says it is to be pickled."""
    try:
        reduced: Any = zone.__reduce__()
    except PicklingError:  # ZoneInfo's documented answer for those from files
        raise UnsupportedType(
            f"a ZoneInfo is kept by its key, and this one was read from a file under the key {zone.key!r}"
        ) from None
    # Two datetimes are told apart, and subtracted, by another rule where their zones are two objects.
    if not reduced[1][1]:
        raise UnsupportedType(
            f"a ZoneInfo is kept by its key, and no_cache made this one another than ZoneInfo({zone.key!r})"
        )


def _load_zoneinfo(key: str) -> ZoneInfo:
    if not _is_zone_key(key):
        raise ValueError("no key of a time zone")
    try:
        return ZoneInfo(key)
    except (OSError, LookupError, ValueError):
        raise CodecError(
            f"the time zone {key!r} is not known on this machine; install or update the tzdata package"
        ) from None


def _is_zone_key(key: str | None) -> bool:
    return key is not None and len(key) <= _ZONE_KEY_LENGTH and _ZONE_KEY.fullmatch(key) is not None
