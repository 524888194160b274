"""What becomes of a journaled write when the primary holds something else than it was based on."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from sessionkit.errors import ConfigurationError
from sessionkit.resilience.states import check_function

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Merge: TypeAlias = "Callable[[bytes | None, bytes | None, bytes | None], bytes | None]"
"""``merge(base, mine, theirs)`` returns the value that is to stand, or None for none.

It is given values, each None where there is no record, or where the base is not known.
"""


@runtime_checkable
class KeyedMerge(Protocol):
    """Merges that depend on the record's key, as where it is part of the encryption."""

    def for_key(self, key: str) -> Merge:
        """Return the merge of one key's values."""
        ...


Policy: TypeAlias = 'Literal["primary_wins", "local_wins"] | Merge | KeyedMerge'
"""``primary_wins`` drops the journaled write, ``local_wins`` writes it all the same, a function decides."""

_ABSENT: Final = object()


class Coder(Protocol):
    """The part of a codec that a merge needs."""

    def pack(self, obj: Any) -> bytes:
        """Return the plain record of a value."""
        ...

    def unpack(self, plain: bytes) -> Any:
        """Return the value of a plain record."""
        ...

    def wrap(self, plain: bytes, *, key: str) -> bytes:
        """Return what is stored of a plain record under a key."""
        ...

    def unwrap(self, data: bytes, *, key: str) -> bytes:
        """Return the plain record of what was stored under a key."""
        ...


def check_policy(policy: object) -> None:
    """Refuse what is no policy.

    Raises:
        ConfigurationError: It is none.
    """
    if policy in ("primary_wins", "local_wins"):
        return
    if isinstance(policy, KeyedMerge):
        return
    if not callable(policy):
        raise ConfigurationError(
            "on_conflict is 'primary_wins', 'local_wins' or a function of (base, mine, theirs),"
            f" not {policy!r}"
        )
    check_function("on_conflict", policy)


class merge_dicts:  # noqa: N801 - used as a function
    """A merge of dicts, key by key at the top level, as three-way merges of text go line by line.

    What only one side changed, added or removed since the base is taken from that side; what both changed
    differently is taken from the primary. A record that was deleted on the primary stays deleted, and where
    one of the values is no dict, or of an older schema than the codec's, the primary's stands.

    It is not for sessions, whose state belongs to their data: see ``sessionkit.service.merge_sessions``.

    Args:
        codec: What turns the stored bytes into dicts and back.
        add_ints: As for ``merge_three``.
    """

    def __init__(self, codec: Coder, *, add_ints: bool = False) -> None:
        self._codec = codec
        self._add_ints = add_ints

    def for_key(self, key: str) -> Merge:
        """See ``KeyedMerge.for_key``."""

        def merge(base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
            if mine is None or theirs is None:
                return theirs
            sides = []
            for stored in (base, mine, theirs):
                plain = None if stored is None else self._codec.unwrap(stored, key=key)
                side = {} if plain is None else self._codec.unpack(plain)
                # What packs to other bytes than it was read from is of another schema: it may mean another
                # thing.
                if not isinstance(side, dict) or (plain is not None and self._codec.pack(side) != plain):
                    return theirs
                sides.append(side)
            merged, _ = merge_three(*sides, add_ints=self._add_ints, equal=self._equal)
            plain = self._codec.pack(merged)
            if plain == self._codec.pack(sides[2]):
                return theirs  # encrypted anew, they would be other bytes, and be written
            return self._codec.wrap(plain, key=key)

        return merge

    def _equal(self, one: Any, other: Any) -> bool:
        return type(one) is type(other) and (one is other or self._codec.pack(one) == self._codec.pack(other))


class Merged(NamedTuple):
    """What a three-way merge of mappings gives.

    Attributes:
        value: What is to stand.
        clashes: The names that both sides changed differently, and for which theirs stands.
    """

    value: dict[Any, Any]
    clashes: list[Any]


def same(one: Any, other: Any) -> bool:
    """Return whether nothing was changed: unlike ``==``, 1 is not True, and what is no number is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (float, complex, Decimal)):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def merge_three(
    base: Mapping[Any, Any],
    mine: Mapping[Any, Any],
    theirs: Mapping[Any, Any],
    *,
    add_ints: bool = False,
    equal: Callable[[Any, Any], bool] = same,
) -> Merged:
    """Return what two changes of a mapping come to, key by key, and where they do not agree.

    Args:
        base: What both sides began with.
        mine: What one side made of it.
        theirs: What the other side made of it.
        add_ints: Whether of an int that both sides changed the differences add up, so that a counter which
            was incremented on both sides is exact; what was not there before counts as 0.
        equal: Tells whether two values are the same, as not every class says so by ``==``.
    """
    merged, clashes = {}, []
    for name in {**theirs, **mine}:
        was, is_mine, is_theirs = (side.get(name, _ABSENT) for side in (base, mine, theirs))
        value = is_theirs
        if equal(is_theirs, was):
            value = is_mine
        elif not equal(is_mine, was):
            start = 0 if was is _ABSENT else was
            if add_ints and type(start) is type(is_mine) is type(is_theirs) is int:
                value = is_mine + is_theirs - start
            elif not equal(is_mine, is_theirs):
                clashes.append(name)
        if value is not _ABSENT:
            merged[name] = value
    return Merged(merged, clashes)
