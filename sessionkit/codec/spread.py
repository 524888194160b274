"""A guard against keys chosen to collide, with which a dict or set takes quadratic time.

Python hashes numbers, and tuples and objects made of them, without a secret. Equal hashes are not needed for
the attack: keys whose hashes differ can be chosen to look for their place along the same row of taken ones.
So the search is followed as CPython does it, in ``Objects/dictobject.c`` and ``Objects/setobject.c`` of 3.7
and later, at every size a growing table passes through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

FEW: Final = 15
"""So many keys are quick whatever they are; also the most that a map of msgpack's shortest form holds."""

WRITTEN: Final = 3
READ: Final = 4
"""How many taken places a key may meet, on average, where it is written and where it is read: some hashes are
others in the next process. Random keys meet less than one."""

_MORE: Final = 10
_MORE_KEYS: Final = 2000
"""So many more each of the first keys may meet: ids that are multiples of a million meet about five,
fractions on a grid of 1/1024 about eleven."""

_SECRET: Final = frozenset({str, bytes})
"""The types whose hashes depend on a secret of the process."""

_WORD: Final = 2**64 - 1
_RUN: Final = 9
"""How many neighbours of a taken place a set tries before it jumps."""


def is_spread(keys: Collection[object], steps: int = READ) -> bool:
    """Tell whether a dict of these keys, added one by one, is built in about linear time."""
    return _is_quick(keys, steps, 0, _dict_tables)


def is_spread_set(elements: Collection[object], steps: int = READ) -> bool:
    """Tell whether a set of these elements, added one by one, is built in about linear time."""
    # Half of what a dict's keys may meet, as each time the neighbours are tried, too.
    return _is_quick(elements, steps // 2, _RUN, _set_tables)


def _is_quick(
    keys: Collection[object], steps: int, run: int, tables: Callable[[int], Iterator[tuple[int, int]]]
) -> bool:
    if len(keys) <= FEW or _SECRET.issuperset(map(type, keys)):
        return True
    hashes = [hash(key) & _WORD for key in keys]
    return all(_fills_quickly(hashes[:count], size, steps, run) for size, count in tables(len(hashes)))


def _dict_tables(keys: int) -> Iterator[tuple[int, int]]:
    """Yield the size of each table and how many keys it takes until a larger one is made."""
    size = 32
    while (room := size * 2 // 3) < keys:
        yield size, room
        size *= 2
    yield size, keys


def _set_tables(keys: int) -> Iterator[tuple[int, int]]:
    size = 32
    while (room := -(-(size - 1) * 3 // 5)) < keys:
        yield size, room
        wanted = room * (2 if room > 50_000 else 4)
        while size <= wanted:
            size *= 2
    yield size, keys


def _fills_quickly(hashes: list[int], size: int, steps: int, run: int) -> bool:
    mask = size - 1
    taken = bytearray(size)
    left = steps * len(hashes) + _MORE * min(len(hashes), _MORE_KEYS)
    for hashed in hashes:
        perturb = hashed
        place = perturb & mask
        while taken[place]:
            if run and place + run <= mask and (free := taken.find(0, place, place + run + 1)) >= 0:
                place = free
                break
            perturb >>= 5
            place = (place * 5 + perturb + 1) & mask
            left -= 1
        if left < 0:
            return False
        taken[place] = 1
    return True
