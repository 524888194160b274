"""Equality as a store must keep it: by value and by type, all the way down."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict, deque
from datetime import datetime, time, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def exactly_equal(a: object, b: object) -> bool:  # noqa: PLR0911 -- one line per kind of value
    """Tell whether two values are the same in all that a program can observe, except for identity.

    Stricter than ``==``: types must match everywhere (``1``, ``1.0`` and ``True`` differ), dicts must have
    the same order, ``0.0`` and ``-0.0`` differ, as do times of another fold or time zone and decimals of
    another exponent. Wider than ``==``: a NaN equals a NaN.
    """
    if type(a) is not type(b):
        return False
    left: Any = a
    right: Any = b
    if isinstance(left, float):
        return _same_float(left, right)
    if isinstance(left, complex):
        return _same_float(left.real, right.real) and _same_float(left.imag, right.imag)
    if isinstance(left, Decimal):
        return left.as_tuple() == Decimal(right).as_tuple()
    if isinstance(left, Enum):
        return left is right
    if isinstance(left, (datetime, time)):
        return _same_time(left, right)
    if isinstance(left, UUID):
        return left.int == right.int and left.is_safe is right.is_safe
    if isinstance(left, dict):
        return _same_factory(left, right) and _same_items(left.items(), right.items())
    if isinstance(left, (set, frozenset)):
        return _same_elements(left, right)
    if isinstance(left, deque):
        return left.maxlen == right.maxlen and _same_items(left, right)
    if isinstance(left, (list, tuple)):
        return _same_items(left, right)
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        return all(exactly_equal(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right)


def _same_float(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b and math.copysign(1, a) == math.copysign(1, b)


def _same_time(a: Any, b: Any) -> bool:
    return (
        a.replace(tzinfo=None) == b.replace(tzinfo=None)
        and a.fold == b.fold
        and _same_zone(a.tzinfo, b.tzinfo)
    )


def _same_zone(a: tzinfo | None, b: tzinfo | None) -> bool:
    if isinstance(a, ZoneInfo) and isinstance(b, ZoneInfo):
        return a.key == b.key
    if isinstance(a, timezone) and isinstance(b, timezone):
        return repr(a) == repr(b)  # the offset to the microsecond, and the name if it was given one
    return a == b


def _same_factory(a: Any, b: Any) -> bool:
    return not isinstance(a, defaultdict) or a.default_factory is b.default_factory


def _same_items(a: Iterable[object], b: Iterable[object]) -> bool:
    left, right = list(a), list(b)
    return len(left) == len(right) and all(map(exactly_equal, left, right))


def _same_elements(a: Collection[object], b: Collection[object]) -> bool:
    left = list(b)
    for element in a:
        match = next((i for i, other in enumerate(left) if exactly_equal(element, other)), None)
        if match is None:
            return False
        del left[match]
    return not left
