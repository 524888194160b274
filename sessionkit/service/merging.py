"""What becomes of a session that two instances went on with while they could not see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessionkit.errors import CodecError
from sessionkit.resilience import merge_dicts, merge_three
from sessionkit.service.records import SessionRecord

if TYPE_CHECKING:
    from sessionkit.codec import Codec
    from sessionkit.resilience import Merge

_WHAT: Final = "merged"


class merge_sessions:  # noqa: N801 - used as a function
    """A merge of sessions that makes none which no user has seen; all else is merged as by ``merge_dicts``.

    Data are merged key by key where the two sides changed different keys, and the state was changed by one of
    them at most. Where they do not agree, the primary's session stands whole: a state with another's data
    would be a step that nobody took.

    Args:
        codec: The service's.
        namespace: The service's, for migrations of older data.
    """

    def __init__(self, codec: Codec, *, namespace: str = "session") -> None:
        self._codec = codec
        self._namespace = namespace
        self._dicts = merge_dicts(codec)

    def for_key(self, key: str) -> Merge:
        """See ``KeyedMerge.for_key``."""

        def merge(base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
            if mine is None or theirs is None:
                return theirs
            try:
                ours, other = self._session(mine, key), self._session(theirs, key)
                before = None if base is None else self._session(base, key)
            except CodecError:
                return self._dicts.for_key(key)(base, mine, theirs)
            merged = _merge(before, ours, other)
            if merged is None:
                return theirs
            return self._codec.wrap(merged.pack(self._codec, _WHAT), key=key)

        return merge

    def _session(self, value: bytes, key: str) -> SessionRecord:
        return SessionRecord.unpack(self._codec, self._codec.unwrap(value, key=key), self._namespace)


def _merge(base: SessionRecord | None, mine: SessionRecord, theirs: SessionRecord) -> SessionRecord | None:
    """Return the session that both sides come to, or None if they do not agree."""
    if base is None or not base.created == mine.created == theirs.created:
        return None  # two sessions, of which one has taken the other's place
    data, clashes = merge_three(base.data, mine.data, theirs.data)
    state, clashes_of_state = merge_three(*({"state": side.state} for side in (base, mine, theirs)))
    if clashes or clashes_of_state:
        return None
    return SessionRecord(data, state["state"], mine.created, max(mine.renewed, theirs.renewed), theirs.ends)
