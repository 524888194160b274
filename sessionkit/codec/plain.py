"""Plain data, which rides on msgpack's C code alone: scalars in lists and in dicts with scalar keys."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgpack

from sessionkit.codec.wire import SCALARS
from sessionkit.errors import CorruptRecord, RecordTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.codec.limits import Limits

Items: TypeAlias = list[object]
Pairs: TypeAlias = list[tuple[object, object]]

_UNPACK_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    msgpack.UnpackException,
)
_CONTAINER_HEADS: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that begin an array or a map."""

_PLAIN: Final = SCALARS | {list, dict}

_PROVE_FROM: Final = 16 * 1024
"""From this size on, lengths are proved before they are believed: msgpack allocates what a header claims,
for each of up to 1024 nested headers, so a small lie costs the square of the record's size."""


def is_plain(value: object, limits: Limits) -> bool:
    """Tell whether a value is plain data within the limits of depth and items, and so has no cycle."""
    if type(value) in SCALARS:
        return True
    return _room_after(value, limits.depth, limits.items) >= 0


def _room_after(value: object, depth: int, room: int) -> int:
    """Return how many of ``room`` elements are left after a container; negative if it is not plain."""
    children: Any
    if type(value) is dict:
        for key in value:
            if type(key) not in SCALARS:
                return -1
        children = value.values()
        room -= 1 + 2 * len(value)
    elif type(value) is list:
        children = value
        room -= 1 + len(value)
    else:
        return -1
    if not depth:
        return -1
    for child in children:
        if type(child) not in SCALARS:
            if room < 0:
                return -1
            room = _room_after(child, depth - 1, room)
    return room


def is_plain_tree(value: object, depth: int) -> bool:
    """Tell the same, but for the limit of items, of what msgpack unpacked: it has no cycles or shared parts.

    It asks the garbage collector for all children of a level at once, several times as fast as a walk.
    """
    level = [value]
    for _ in range(depth):
        kinds = set(map(type, level))
        if kinds <= SCALARS:
            return True
        if not kinds <= _PLAIN:
            return False
        level = gc.get_referents(*level)
    return SCALARS.issuperset(map(type, level))


def may_be_odd(body: bytes, limits: Limits) -> bool:
    """Tell whether what a body unpacked to needs a look: it may be too deep or hold a msgpack timestamp.

    Never False where it does, often True where it does not.
    """
    heads = len(body) - len(body.translate(None, _CONTAINER_HEADS))
    return heads > limits.depth or b"\xff" in body


def pack(value: object) -> bytes:
    """Return the msgpack bytes of plain data or of a lowered value."""
    return cast("bytes", msgpack.packb(value, strict_types=True))


def unpack(
    body: bytes,
    limits: Limits,
    on_map: Callable[[Pairs], object],
    on_extension: Callable[[int, bytes], object],
) -> object:
    """Return what a body unpacks to, with what ``on_map`` and ``on_extension`` make of its parts.

    Raises:
        CorruptRecord: The body is not one msgpack object.
        RecordTooLarge: It has more elements than the limits allow.
    """
    on_list = None
    if len(body) > limits.items:  # an element takes at least a byte, so a shorter body needs no counting
        counter = _Counter(limits.items, on_map)
        on_map, on_list = counter.map, counter.list
    try:
        if len(body) >= _PROVE_FROM:
            _prove_lengths(body)
        return msgpack.unpackb(
            body, strict_map_key=False, object_pairs_hook=on_map, list_hook=on_list, ext_hook=on_extension
        )
    except _UNPACK_ERRORS as error:
        # `from None`: msgpack's errors carry parts of the record.
        raise CorruptRecord(
            f"the body of the record is not what sessionkit wrote ({type(error).__name__})"
        ) from None


def unique(pairs: Pairs) -> dict[object, object]:
    """Return the dict of a map.

    Raises:
        ValueError: A key is there twice.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key twice in one map")
    return made


def _prove_lengths(body: bytes) -> None:
    unpacker = msgpack.Unpacker(None, max_buffer_size=len(body))
    unpacker.feed(body)
    unpacker.skip()


class _Counter:
    """Hooks that count elements as containers are completed, and stop at the bound."""

    def __init__(self, items: int, on_map: Callable[[Pairs], object]) -> None:
        self._items = items
        self._room = items
        self._on_map = on_map

    def map(self, pairs: Pairs) -> object:
        self._take(1 + 2 * len(pairs))
        return self._on_map(pairs)

    def list(self, items: Items) -> Items:
        self._take(1 + len(items))
        return items

    def _take(self, elements: int) -> None:
        self._room -= elements
        if self._room < 0:
            raise RecordTooLarge(f"the record has more than {self._items} elements, the bound of this codec")
