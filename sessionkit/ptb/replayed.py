"""What becomes of a bot's records that were journaled in an outage and changed elsewhere meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkit.ptb.data_keys import DataKeys
from sessionkit.ptb.user_updates import PendingUpdate, read_entries, read_ids, write_entries
from sessionkit.resilience import merge_dicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.codec import Codec
    from sessionkit.resilience import Merge


class merge_records:  # noqa: N801 - used as a function
    """A merge of the records of a bot, for the ``on_conflict`` of a store that its persistence is given.

    A persistence that opens its store itself merges so by default. Of updates that wait none is dropped that
    one side has taken in and nobody has processed, and what either side has processed counts as processed.
    All else is merged as by ``merge_dicts`` with ``add_ints=True``.

    Args:
        codec: That of the persistence.
        key_prefix: That of the persistence.

    Raises:
        InvalidKey: The prefix cannot be part of a key.
    """

    def __init__(self, codec: Codec, *, key_prefix: str = "telegram_bot:") -> None:
        self._codec = codec
        self._keys = DataKeys(key_prefix)
        self._dicts = merge_dicts(codec, add_ints=True)

    def for_key(self, key: str) -> Merge:
        """See ``KeyedMerge.for_key``."""
        join: Callable[[Any, Any, Any], list[Any]]
        if key.startswith(self._keys.inboxes.start):
            join = _join_pending
        elif key.startswith(self._keys.handled.start):
            join = _join_handled
        else:
            return self._dicts.for_key(key)

        def merge(base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
            before, here, there = (self._opened(key, side) for side in (base, mine, theirs))
            joined = join(before, here, there)
            if joined == there:
                return theirs  # encrypted anew, they would be other bytes, and be written
            return self._codec.wrap(self._codec.pack(joined), key=key) if joined else None

        return merge

    def _opened(self, key: str, stored: bytes | None) -> Any:
        return [] if stored is None else self._codec.unpack(self._codec.unwrap(stored, key=key))


def _join_pending(base: Any, mine: Any, theirs: Any) -> list[list[object]]:
    before, here, there = (_by_number(side) for side in (base, mine, theirs))
    joined = {**here, **there}
    # Who had it and has it no more has processed it.
    gone = {number for number in before if number not in here or number not in there}
    return write_entries(joined[number] for number in sorted(joined.keys() - gone))


def _join_handled(base: Any, mine: Any, theirs: Any) -> list[int]:
    return list(dict.fromkeys([*read_ids(theirs), *read_ids(mine)]))


def _by_number(value: Any) -> dict[int, PendingUpdate]:
    return {entry.update_id: entry for entry in read_entries(value)}
