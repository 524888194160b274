"""Copies of what the primary was last known to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from sessionkit.store import Record, Version

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024
_OVERHEAD: Final = 400


class Copy(NamedTuple):
    """A record as it was last seen.

    Attributes:
        value: Its bytes.
        version: Their version.
        until: When it ends, in seconds since the Unix epoch, as far as is known; None: it is not.
    """

    value: bytes
    version: Version
    until: float | None


class LastKnown:
    """Bounded copies, of which those that were not seen for long go first.

    Two generations in place of an exact order: what is seen goes to the young one, and when half of the
    bytes do not hold it any more that becomes the old one, whose copies go. A look-up and a copy are each a
    step or two of a dictionary, as every operation of a healthy store pays for them.

    Args:
        max_bytes: The most that keys and values may take, with 400 bytes for each copy.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if type(max_bytes) is not int or max_bytes < 0:
            raise ConfigurationError(f"max_bytes is a whole number from 0 up, not {max_bytes!r}")
        self._half = max_bytes // 2
        # Bare tuples: one is made for every write.
        self._young: dict[str, tuple[bytes, Version, float | None]] = {}
        self._old: dict[str, tuple[bytes, Version, float | None]] = {}
        self._young_bytes = 0
        self._none = object()

    def get(self, key: str) -> Copy | None:
        """Return the copy of a key's record."""
        copied = self._young.get(key) or self._old.get(key)
        return None if copied is None else Copy(*copied)

    def mark(self, key: str) -> object:
        """Return what stands for a key's copy, or for there being none: the same one until that changes.

        An answer that was asked for before a change is older than what is here.
        """
        return self._young.get(key) or self._old.get(key) or self._none

    def read(self, key: str, record: Record, mark: object) -> None:
        """Take note of a record that was read; when it ends is known if it was written or renewed here.

        Args:
            key: Its key.
            record: What the primary answered.
            mark: What stood for the key's copy when it was asked; if another does now, nothing is changed.
        """
        copied = self._young.get(key)
        if copied is not None and copied[1] == record.version:
            return
        if self.mark(key) is mark:
            self._take_read(key, record.value, record.version)

    def take(self, key: str, value: bytes, version: Version, until: float | None) -> None:
        """Take a copy, unless it is too large by itself; then there is none of this key."""
        before = self._young.get(key)
        if before is not None and len(before[0]) == len(value):
            self._young[key] = (value, version, until)
        else:
            self._take_other(key, value, version, until)

    def renew(self, key: str, until: float | None) -> None:
        """Take note of when a record ends now."""
        if (copied := self.get(key)) is not None:
            self.take(key, copied.value, copied.version, until)

    def forget(self, key: str) -> None:
        """Drop the copy of a key's record."""
        self._none = object()
        gone = self._young.pop(key, None)
        if gone is not None:
            self._young_bytes -= _OVERHEAD + len(key) + len(gone[0])
        self._old.pop(key, None)

    def _take_read(self, key: str, value: bytes, version: Version) -> None:
        old = self._old.get(key)
        self.take(key, value, version, old[2] if old is not None and old[1] == version else None)

    def _take_other(self, key: str, value: bytes, version: Version, until: float | None) -> None:
        """Take a copy of another size than the one before, or the first one."""
        size = _OVERHEAD + len(key) + len(value)
        before = self._young.get(key)
        grown = self._young_bytes + (size if before is None else len(value) - len(before[0]))
        if grown > self._half:
            self.forget(key)
            if size > self._half:
                return
            self._old, self._young = self._young, {}
            grown = size
        self._young[key] = (value, version, until)
        self._young_bytes = grown
