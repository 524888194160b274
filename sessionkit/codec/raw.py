"""Bodies to msgpack's own objects and back, without believing what a body says of its lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgpack

from sessionkit.codec.counting import check_counts
from sessionkit.errors import CorruptRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.codec.limits import Limits

Pairs: TypeAlias = tuple[tuple[object, object], ...]
"""What a map unpacks to."""

UNPACK_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    msgpack.UnpackException,
)
"""All that msgpack raises for one body or another; UnicodeError is a ValueError."""

NO_ROOM: Final = (MemoryError, RecursionError)
"""What says nothing of a body: another caller, with more memory or a shorter stack, reads it."""

_LONG_HEADS: Final = b"\xdc\xdd\xde\xdf"
"""The bytes that begin an array or a map of up to 2**32 parts."""

_BELIEVED: Final = 128 * 1024
"""How many parts may be claimed in vain: msgpack allocates 8 bytes for each, in all open containers."""

_HARMLESS: Final = 512
"""So short a body cannot claim much more, with a head every three bytes."""

_BUFFER: Final = 2048
"""Where packing starts from; msgpack's own 256 KiB would be mapped and unmapped by every call."""


def pack(value: object) -> bytes:
    """Return the msgpack bytes of plain data or of a lowered value."""
    return cast("bytes", msgpack.Packer(strict_types=True, buf_size=_BUFFER).pack(value))


def check_lengths(body: bytes, limits: Limits, uncounted: int = 1) -> None:
    """Refuse a body that would unpack to more than the limits allow, or claims more than it holds.

    Args:
        body: The body.
        limits: The limits.
        uncounted: A body of so many bytes for each element that is allowed is not counted.

    Raises:
        CorruptRecord: It is not one msgpack object.
        RecordTooLarge: It exceeds the limits of elements or of strings.
    """
    size = len(body)
    try:
        if size > uncounted * limits.items or size > limits.string_bytes:
            check_counts(body, limits)
        elif size > _HARMLESS and (size - len(body.translate(None, _LONG_HEADS))) * size > _BELIEVED:
            unpacker = msgpack.Unpacker(None, max_buffer_size=size)
            unpacker.feed(body)
            unpacker.skip()
    except UNPACK_ERRORS as error:
        raise _corrupt(error) from None


def unpack(body: bytes, on_extension: Callable[[int, bytes], object]) -> object:
    """Return what a body whose lengths were checked unpacks to; maps become ``Pairs``.

    Raises:
        CorruptRecord: It is not one msgpack object.
    """
    try:
        return msgpack.unpackb(body, strict_map_key=False, object_pairs_hook=tuple, ext_hook=on_extension)
    except UNPACK_ERRORS as error:
        raise _corrupt(error) from None


def _corrupt(error: BaseException) -> CorruptRecord:
    # Raised `from None`: msgpack's errors carry parts of the record.
    return CorruptRecord(f"the body of the record is not what sessionkit wrote ({type(error).__name__})")
