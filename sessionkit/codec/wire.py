"""The body of format 1: which msgpack object stands for which Python value.

None, bool, int of 64 bits, float, str, bytes, list and dict are msgpack's own nil, bool, int, float64,
str, bin, array and map. A map has only such scalars as keys. All else is one of:

* a leaf: an extension object of the code and payload given in ``leaves``;
* a marked array: its first element is an extension object without payload, the mark, that says what the
  array stands for. Marks stand nowhere else.

=================== ===================================================================================
mark                the rest of the array
=================== ===================================================================================
``TUPLE``           the items
``SET, FROZENSET``  the elements, in the order of their packed bytes
``DEQUE``           the greatest length or nil, then the items
``MAP``             key, value, key, value, …: a dict with a key that is no plain scalar
``ORDERED_DICT``    key, value, key, value, …
``DEFAULT_DICT``    the factory's tag or nil, then key, value, key, value, …
``REGISTERED``      the tag, then what the registered function made of the object
=================== ===================================================================================

Arrays rather than nested extension objects, so that one pass packs and unpacks a whole record and its
depth is what it looks like. The codes stand in stored bytes: one is never changed and never used again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Mark(IntEnum):
    """What a marked array stands for."""

    TUPLE = 1
    SET = 2
    FROZENSET = 3
    DEQUE = 4
    MAP = 5
    ORDERED_DICT = 6
    REGISTERED = 7
    DEFAULT_DICT = 8


class Leaf(IntEnum):
    """What the payload of a leaf is."""

    INT = 16
    BYTEARRAY = 17
    DECIMAL = 18
    FRACTION = 19
    COMPLEX = 20
    UUID = 21
    DATE = 22
    TIME = 23
    DATETIME = 24
    TIMEDELTA = 25


MARK_CODES: Final = {int(mark): mark for mark in Mark}
LEAF_CODES: Final = {int(leaf): leaf for leaf in Leaf}


SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
"""The types whose values msgpack keeps by itself."""


def extension_items(code: int, size: int) -> int:
    """Return how many elements more than another one an extension object counts: it takes longer to read."""
    if not size:  # a mark
        return 0
    return 16 if code == Leaf.FRACTION else 4
