"""How many elements a body has, read off its heads before anything is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessionkit.codec.wire import extension_items

if TYPE_CHECKING:
    from sessionkit.codec.limits import Limits


def check_counts(body: bytes, limits: Limits) -> None:
    """Refuse a body of too many elements or with too long a string, in time linear in the limit of items.

    Raises:
        ValueError: The body is not one msgpack object.
        RecordTooLarge: It exceeds a limit.
    """
    place, due, room = 0, 1, limits.items
    end = len(body)
    while due and room >= 0:
        if place >= end:
            raise ValueError("a body that ends early")
        head = body[place]
        size = _SIZES[head]
        if size:
            place += size
            due -= 1
            continue
        width = _WIDTHS.get(head, 0)
        number = int.from_bytes(body[place + 1 : place + 1 + width], "big") if width else head & 0x0F
        place += 1 + width
        if head in _EXTENSIONS or head in _SHORT_EXTENSIONS:
            size = _SHORT_EXTENSIONS.get(head, number)
            room -= extension_items(body[place], size) if place < end else 0
            place += 1 + size
            due -= 1
            continue
        if head in _STRINGS:
            if number > limits.string_bytes:
                raise limits.refusal(f"a string of {number} bytes", "string_bytes")
            place += number
            due -= 1
            continue
        parts = 2 * number if head in _MAPS else number
        due += parts - 1
        room -= parts + 1
    if room < 0:
        raise limits.refusal("too many elements", "items")
    if place != end:
        raise ValueError("a body with a tail")


def _fixed_size(head: int) -> int:
    """Return how many bytes a scalar takes if its head says so; 0 for what says it after its head."""
    if head in _NUMBERS:
        return 1 + _NUMBERS[head]
    if 0xA0 <= head < 0xC0:
        return 1 + (head & 0x1F)
    if 0x80 <= head < 0xA0 or head in _WIDTHS or head in _SHORT_EXTENSIONS:
        return 0
    return 1


_NUMBERS: Final = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_STRINGS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_SHORT_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_WIDTHS: Final = {**_STRINGS, **_EXTENSIONS, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
"""How many bytes after a head give a length; those of short arrays and maps stand in the head itself."""
_SIZES: Final = [_fixed_size(head) for head in range(256)]
