"""Plain data, which rides on msgpack's C code alone: scalars in lists and in dicts with scalar keys."""

from __future__ import annotations

from gc import get_referents
from typing import TYPE_CHECKING, Any, Final

import msgpack

from sessionkit.codec.raw import UNPACK_ERRORS, pack
from sessionkit.codec.spread import FEW, WRITTEN, is_spread
from sessionkit.codec.wire import SCALARS

if TYPE_CHECKING:
    from sessionkit.codec.limits import Limits

_BOXES: Final = frozenset({list, dict})
_BOX_HEADS: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that begin an array or a map."""

_FEW_HEADS: Final = 1024
"""In bodies up to this size, it is worth while to look whether there are too few heads to be deep."""

_TO_DATETIME: Final = 3
"""Makes of a msgpack timestamp what is not packed again."""

PLAIN_UNCOUNTED: Final = 3
"""Plain bodies of so many bytes for each element that is allowed are unpacked uncounted, as that is fast: an
element has at least one byte, and takes at most 72 of memory."""

_PACKED_AGAIN: Final = 1024 * 1024
"""So long a body is packed again to prove it: its strings may take four times their size, and then some."""


NOT_PLAIN: Final = object()
"""In place of a value: it takes the careful way."""


def pack_plain(value: object, limits: Limits) -> bytes | None:
    """Return the body of plain data within the limits; None if it is not, or perhaps not, such."""
    if not _is_plain(value, limits):
        return None
    try:
        body = pack(value)
    except (OverflowError, UnicodeEncodeError):  # an int over 64 bits, a lone surrogate
        return None
    return body if len(body) <= limits.string_bytes else None


def _is_plain(value: Any, limits: Limits) -> bool:
    """Tell whether a value is plain data within the limits of depth and items, and so has no cycle.

    It asks the garbage collector for the parts of all containers of a level at once, twice as fast as a walk.
    """
    if type(value) in SCALARS:
        return True
    boxes = [value]
    room = limits.items
    for _ in range(limits.depth):
        if not _BOXES.issuperset(map(type, boxes)):
            return False
        size = sum(map(len, boxes))
        room -= 2 * size + len(boxes)
        if room < 0 or (size > FEW and max(map(len, boxes)) > FEW and not _are_spread(boxes)):
            return False
        parts = get_referents(*boxes)
        if SCALARS.issuperset(map(type, parts)):
            return True
        boxes = [part for part in parts if type(part) not in SCALARS]
    return False


def _are_spread(boxes: list[Any]) -> bool:
    return all(is_spread(box, WRITTEN) for box in boxes if type(box) is dict and len(box) > FEW)


def unpack_plain(body: bytes, limits: Limits) -> object:
    """Return the value of a body of plain data whose lengths were checked; ``NOT_PLAIN`` for most others.

    That it packs to the same bytes again proves that no key was there twice, and nothing else was odd.
    """
    if len(body) > _PACKED_AGAIN:
        return NOT_PLAIN
    # Of keys that are no str or bytes, more than a short map holds may have been chosen to collide.
    strict = b"\xde" in body or b"\xdf" in body
    try:
        value = msgpack.unpackb(body, strict_map_key=strict, timestamp=_TO_DATETIME, ext_hook=_refuse)
        if pack(value) != body:
            return NOT_PLAIN
    except UNPACK_ERRORS:
        return NOT_PLAIN
    if len(body) <= _FEW_HEADS and len(body) - len(body.translate(None, _BOX_HEADS)) <= limits.depth:
        return value
    return value if _is_shallow(value, limits.depth) else NOT_PLAIN


def _refuse(_code: int, _payload: bytes) -> object:
    raise ValueError("an extension in plain data")


def _is_shallow(value: object, depth: int) -> bool:
    parts = [value]
    for _ in range(depth + 1):
        if SCALARS.issuperset(map(type, parts)):
            return True
        parts = get_referents(*parts)
    return False
