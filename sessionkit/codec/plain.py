"""Plain data, which rides on C code alone: scalars in lists and in dicts with scalar keys.

msgspec packs it, three times as fast as msgpack, and only once it is seen to be plain: else it would pack a
tuple as a list. What is usual comes back through msgspec, too, by a type that leaves no room for anything
else; the rest of plain data through msgpack.
"""

from __future__ import annotations

import sys
from gc import get_referents
from typing import TYPE_CHECKING, Any, Final

import msgpack
from msgspec import DecodeError, ValidationError
from msgspec.msgpack import Decoder, Encoder

from sessionkit.codec.raw import UNPACK_ERRORS
from sessionkit.codec.spread import FEW, WRITTEN, is_spread
from sessionkit.codec.wire import SCALARS

if TYPE_CHECKING:
    from sessionkit.codec.limits import Limits

_PLAIN: Final = SCALARS | {list, dict}

_USUAL_DEPTH: Final = 7
"""How many containers inside one another are usual; msgspec's decoder takes twice the memory and time to make
for each more."""

_HIDDEN: Final = sys.version_info >= (3, 13)
"""Whether the collector is not told what the ``__dict__`` of a living object holds."""

PLAIN_UNCOUNTED: Final = 3
"""Plain bodies of so many bytes for each element that is allowed are unpacked uncounted, as that is fast: an
element has at least one byte, and takes at most 72 of memory."""

_BOX_HEADS: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that begin an array or a map."""

_TRIED_TWICE: Final = 32 * 1024
"""The most heads that two decoders try, if the first has to give up: more might take too long."""

_PACKED_AGAIN: Final = 1024 * 1024
"""So long a body is packed again to prove it: its strings may take four times their size, and then some."""


NOT_PLAIN: Final = object()
"""In place of a value: it takes the careful way."""


def _usual_decoder() -> Decoder[Any]:
    """Return a decoder of nothing but text, numbers, bools, None, lists, and dicts with text as keys."""
    scalar: Any = bool | int | float | str | None
    usual: Any = scalar
    for _ in range(_USUAL_DEPTH):
        usual = scalar | list[usual] | dict[str, usual]
    return Decoder(usual)


_pack: Final = Encoder().encode
_unpack_usual: Final = _usual_decoder().decode


def pack_plain(value: object, limits: Limits) -> bytes | None:
    """Return the body of plain data within the limits; None if it is not, or perhaps not, such."""
    if not _is_plain(value, limits):
        return None
    try:
        body = _pack(value)
    except (OverflowError, UnicodeEncodeError):  # an int over 64 bits, a lone surrogate
        return None
    return body if len(body) <= limits.string_bytes else None


def _is_plain(value: Any, limits: Limits) -> bool:
    """Tell whether a value is plain data within the limits of depth and items, and so has no cycle.

    It asks the garbage collector for the parts of a whole level at once, faster than a walk; scalars have
    none. Of many parts the containers are picked first: one may stand in many places, so they may have more
    parts than there is room for.
    """
    if type(value) not in _PLAIN:
        return False
    parts = [value]
    room = limits.items
    for depth in range(limits.depth, -1, -1):
        if len(parts) > FEW and sum(map(len, parts)) > room:
            break
        below = get_referents(*(_told(parts) if _HIDDEN else parts))
        room -= len(parts) + 2 * len(below)  # of a dict with str keys only the values are told
        if not below:
            return room >= 0 and (depth > 0 or SCALARS.issuperset(map(type, parts)))
        # Types first: nothing but plain keys is hashed, as the code of others might do anything.
        if room < 0 or not _PLAIN.issuperset(map(type, below)):
            break
        if len(below) > FEW:
            if not _are_spread(parts):
                break
            below = [part for part in below if type(part) not in SCALARS]
        parts = below
    return False


def _told(parts: list[Any]) -> list[object]:
    """Return the parts with dicts that the collector is told the values of."""
    return [part.copy() if type(part) is dict else part for part in parts]


def _are_spread(parts: list[object]) -> bool:
    return all(is_spread(part, WRITTEN) for part in parts if type(part) is dict and len(part) > FEW)


def unpack_plain(body: bytes, limits: Limits) -> object:
    """Return the value of a body of plain data whose lengths were checked; ``NOT_PLAIN`` for most others.

    That it packs to the same bytes again proves that no key was there twice, and nothing else was odd.
    """
    if len(body) > _PACKED_AGAIN or (len(body) > limits.items and _heads(body) > limits.items):
        return NOT_PLAIN
    try:
        value = _unpack(body, limits.depth)
        return value if _pack(value) == body else NOT_PLAIN
    except (DecodeError, *UNPACK_ERRORS):
        return NOT_PLAIN


def _unpack(body: bytes, depth: int) -> object:
    if depth >= _USUAL_DEPTH:
        try:
            return _unpack_usual(body)
        except ValidationError:
            # Bytes, keys of other types, deeper: or not plain at all.
            if _heads(body) > _TRIED_TWICE:
                raise
    # Of keys that are no str or bytes, more than a short map holds may have been chosen to collide.
    strict = b"\xde" in body or b"\xdf" in body
    value = msgpack.unpackb(body, strict_map_key=strict, ext_hook=_refuse)
    if not _is_shallow(value, depth):
        raise ValueError("a timestamp, or data deeper than allowed")
    return value


def _heads(body: bytes) -> int:
    """Return how many bytes look like heads of containers: at least as many as there are."""
    return len(body) - len(body.translate(None, _BOX_HEADS))


def _refuse(_code: int, _payload: bytes) -> object:
    raise ValueError("an extension in plain data")


def _is_shallow(value: object, depth: int) -> bool:
    parts = [value]
    for _ in range(depth + 1):
        if SCALARS.issuperset(map(type, parts)):
            return True
        if not _PLAIN.issuperset(map(type, parts)):  # a timestamp, whose class refers to everything
            return False
        parts = get_referents(*parts)
    return False
