"""What becomes of a journaled write when the primary holds something else than it was based on."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

Merge: TypeAlias = "Callable[[bytes | None, bytes | None, bytes | None], bytes | None]"
"""``merge(base, mine, theirs)`` returns the value that is to stand, or None for none.

It is given values, each None where there is no record, or where the base is not known.
"""

Policy: TypeAlias = 'Literal["primary_wins", "local_wins"] | Merge'
"""``primary_wins`` drops the journaled write, ``local_wins`` writes it all the same, a function decides."""

_ABSENT: Final = object()


class Coder(Protocol):
    """The part of a codec that a merge needs."""

    def encode(self, obj: Any) -> bytes:
        """Return the bytes of an object."""
        ...

    def decode(self, data: bytes) -> Any:
        """Return the object in bytes."""
        ...


def check_policy(policy: object) -> None:
    """Refuse what is no policy.

    Raises:
        ConfigurationError: It is none.
    """
    if policy not in ("primary_wins", "local_wins") and not callable(policy):
        raise ConfigurationError(
            "on_conflict is 'primary_wins', 'local_wins' or a function of (base, mine, theirs),"
            f" not {policy!r}"
        )


def merge_dicts(codec: Coder) -> Merge:
    """Return a ``Merge`` of dicts, key by key at the top level, as three-way merges of text go line by line.

    What only one side changed, added or removed since the base is taken from that side; what both changed
    differently is taken from the primary. A record that was deleted on the primary stays deleted, and where
    one of the values is no dict, the primary's stands.

    Args:
        codec: What turns the stored bytes into dicts and back.
    """

    def merge(base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
        if mine is None or theirs is None:
            return theirs
        before, ours, other = ({} if value is None else codec.decode(value) for value in (base, mine, theirs))
        if not (isinstance(before, dict) and isinstance(ours, dict) and isinstance(other, dict)):
            return theirs
        merged = {}
        for name in {**other, **ours}:
            was, is_mine, is_theirs = (side.get(name, _ABSENT) for side in (before, ours, other))
            value = is_mine if _same(is_theirs, was) else is_theirs
            if value is not _ABSENT:
                merged[name] = value
        return codec.encode(merged)

    return merge


def _same(one: Any, other: Any) -> bool:
    """Return whether nothing was changed: unlike ``==``, 1 is not True, and what is no number is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (float, complex, Decimal)):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return _same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
