"""The stored updates of one user, and which of them were processed, as the values of records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionkit.errors import CorruptRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MOST_HANDLED: Final = 256
"""How many of a user's updates are known to be processed: polling alone asks for 100 again."""

_BITS: Final = 64
"""Telegram's numbers have fewer; an int of any length could not even be printed."""


class PendingUpdate(NamedTuple):
    """An update that is to be processed.

    Attributes:
        update_id: Telegram's number of it.
        since: When it came, in seconds since the Unix epoch.
        attempts: How often it was taken up again.
        packed: It itself, as the codec packs it.
    """

    update_id: int
    since: float
    attempts: int
    packed: bytes


class _MemorySlot:
    """A record that PTB knows nothing of.

    Args:
        key: The record's key.
        memory: Where this process holds it.
    """

    __slots__ = ("_memory", "key")

    def __init__(self, key: str, memory: dict[str, Any]) -> None:
        self.key = key
        self._memory = memory

    def read(self) -> object | None:
        """See ``Slot.read``."""
        value: object | None = self._memory.get(self.key)
        return value

    def write(self, value: object | None) -> None:
        """See ``Slot.write``."""
        if value is None:
            self._memory.pop(self.key, None)
        else:
            self._memory[self.key] = value


class PendingSlot(_MemorySlot):
    """The updates of one user that are to be processed."""

    __slots__ = ()

    @property
    def entries(self) -> list[PendingUpdate]:
        """What was last read, in order."""
        return read_entries(self.read())

    def drop(self, done: Collection[int]) -> None:
        """Drop those that are processed."""
        self.write(write_entries(each for each in self.entries if each.update_id not in done) or None)


class HandledSlot(_MemorySlot):
    """Which updates of one user were processed last."""

    __slots__ = ()

    @property
    def ids(self) -> list[int]:
        """The numbers of the updates."""
        return read_ids(self.read())

    def add(self, update_id: int, pending: Collection[int]) -> None:
        """Add one, and forget the oldest, except those that still wait though they are processed."""
        ids = [*self.ids, update_id]
        kept = [number for number in ids[:-_MOST_HANDLED] if number in pending]
        self.write([*kept, *ids[-_MOST_HANDLED:]])


class UserUpdates(NamedTuple):
    """The stored updates of one user, or of a chat where they have no user.

    Attributes:
        pending: Those that are to be processed.
        handled: Which ones were processed last.
    """

    pending: PendingSlot
    handled: HandledSlot

    def settle(self, update_id: int) -> None:
        """Take note that an update is processed, to be stored with what it changed."""
        if update_id not in self.handled.ids:
            self.handled.add(update_id, {entry.update_id for entry in self.pending.entries})
        self.pending.drop(self.handled.ids)


def write_entries(entries: Iterable[PendingUpdate]) -> list[list[object]]:
    """Return entries as the codec keeps them."""
    return [list(entry) for entry in entries]


def read_entries(value: object) -> list[PendingUpdate]:
    """Return the entries of a record's value, in order of their numbers.

    Raises:
        CorruptRecord: It is none.
    """
    if value is None:
        return []
    # Of unknown type is whatever can be stored: even a comparison may raise.
    if not isinstance(value, list) or not all(_is_entry(fields) for fields in value):
        raise CorruptRecord("what should be updates that wait is something else")
    return sorted((PendingUpdate(*fields) for fields in value), key=lambda entry: entry.update_id)


def read_ids(value: object) -> list[int]:
    """Return the numbers of updates of a record's value, without what is none."""
    return [number for number in value if _is_count(number)] if isinstance(value, list) else []


def _is_entry(fields: object) -> bool:
    if not isinstance(fields, list) or len(fields) != len(PendingUpdate._fields):
        return False
    number, since, attempts, packed = fields
    is_time = isinstance(since, (int, float))
    return _is_count(number) and _is_count(attempts) and is_time and isinstance(packed, bytes)


def _is_count(number: object) -> bool:
    return type(number) is int and number.bit_length() < _BITS
