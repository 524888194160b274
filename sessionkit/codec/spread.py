"""A guard against keys chosen to collide, which would make a dict or set take quadratic time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_COLLISIONS: Final = 100
"""Python hashes all numbers and tuples of them without a secret; honest ones hardly ever collide."""


def is_spread(keys: Collection[object]) -> bool:
    """Tell whether no more than a few of the keys share a hash."""
    return len(keys) <= _COLLISIONS or len(keys) - len(set(map(hash, keys))) <= _COLLISIONS
