"""Copies of what the primary was last known to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.errors import ConfigurationError
from sessionkit.resilience.flights import Flights

if TYPE_CHECKING:
    from sessionkit.resilience.flights import Ticket
    from sessionkit.store import Record, Version

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024
_OVERHEAD: Final = 400
_STRIPES: Final = 256
"""Of how many groups of keys it is told apart that one of them was forgotten."""


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


class Held:
    """A copy as it is kept: what is seen of the same key later changes it in place.

    Attributes:
        value: See ``Copy``.
        version: See ``Copy``.
        until: See ``Copy``.
        mark: See ``LastKnown.mark``.
        ticket: A write of its key that is under way; see ``Flights``. Only in the young generation.
    """

    __slots__ = ("mark", "ticket", "until", "value", "version")

    def __init__(self, value: bytes, version: Version, until: float | None, mark: object) -> None:
        self.value = value
        self.version = version
        self.until = until
        self.mark = mark
        self.ticket: Ticket | None = None


class LastKnown:
    """Bounded copies, of which those that were not seen for long go first.

    Two generations in place of an exact order: what is seen goes to the young one, and when half of the
    bytes do not hold it any more that becomes the old one, whose copies go. A look-up and a copy are each a
    step of a dictionary, as every operation of a healthy store pays for them.

    Args:
        max_bytes: The most that keys and values may take, with 400 bytes for each copy.

    Attributes:
        young: The young generation, by key. Others change a copy there only to one of an equally long value.
        flights: What is under way.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if type(max_bytes) is not int or max_bytes < 0:
            raise ConfigurationError(f"max_bytes is a whole number from 0 up, not {max_bytes!r}")
        self._half = max_bytes // 2
        self.young: dict[str, Held] = {}
        self.flights = Flights(self.young)
        self._old: dict[str, Held] = {}
        self._young_bytes = 0
        self._none = [object() for _ in range(_STRIPES)]

    def get(self, key: str) -> Copy | None:
        """Return the copy of a key's record."""
        held = self.young.get(key) or self._old.get(key)
        return None if held is None else Copy(held.value, held.version, held.until)

    def mark(self, key: str) -> object:
        """Return what stands for the last write of a key, or for there being none that is known: by identity.

        An answer that was asked for before another one stood there is older than what is here. Those of
        reads and renewals change nothing of it, so that of several the last one counts.
        """
        held = self.young.get(key) or self._old.get(key)
        return self._none[hash(key) % _STRIPES] if held is None else held.mark

    def read(self, key: str, record: Record, mark: object, now: float) -> None:
        """Take note of a record that was read; when it ends is known if it was written or renewed here.

        Args:
            key: Its key.
            record: What the primary answered.
            mark: The key's mark when it was asked; if there is another now, nothing is changed.
            now: The time then, in seconds since the Unix epoch.
        """
        held = self.young.get(key)
        if held is not None and held.version == record.version and (held.until is None or held.until > now):
            return
        if self.mark(key) is mark:
            held = held or self._old.get(key)
            until = held.until if held is not None and held.version == record.version else None
            # What should have ended, and is there, was renewed by others.
            self.take(
                key, record.value, record.version, None if until is None or until <= now else until, mark
            )

    def read_none(self, key: str, mark: object) -> None:
        """Take note that there is no such record, as ``read`` does of one."""
        if (key in self.young or key in self._old) and self.mark(key) is mark:
            self.forget(key)

    def take(
        self, key: str, value: bytes, version: Version, until: float | None, mark: object = None
    ) -> None:
        """Take a copy, unless it is too large by itself; then there is none of this key.

        Args:
            key: The record's key.
            value: Its value.
            version: Its version.
            until: When it ends, in seconds since the Unix epoch; None: never, or it is not known.
            mark: The mark it keeps, if it was read; None: it was written.
        """
        held = self.young.get(key)
        if held is not None and len(held.value) == len(value):
            held.value, held.version = value, version
            held.until, held.mark = until, version if mark is None else mark
        else:
            self._take_other(key, Held(value, version, until, version if mark is None else mark))

    def renew(self, key: str, until: float | None) -> None:
        """Take note of when a record ends now."""
        if (copied := self.get(key)) is not None:
            self.take(key, copied.value, copied.version, until, self.mark(key))

    def forget(self, key: str) -> None:
        """Drop the copy of a key's record, as others may have changed it."""
        self._none[hash(key) % _STRIPES] = object()
        self.flights.keep(key)
        gone = self.young.pop(key, None)
        if gone is not None:
            self._young_bytes -= _OVERHEAD + len(key) + len(gone.value)
        self._old.pop(key, None)

    def _take_other(self, key: str, held: Held) -> None:
        """Take a copy of another size than the one before, or the first one."""
        size = _OVERHEAD + len(key) + len(held.value)
        before = self.young.get(key)
        grown = self._young_bytes + (size if before is None else len(held.value) - len(before.value))
        if grown > self._half:
            self.forget(key)
            if size > self._half:
                return
            self._age()
            grown = size
        self.flights.keep(key)
        self.young[key] = held
        self._young_bytes = grown

    def _age(self) -> None:
        """Let the old generation go, and the young one become it."""
        for key, held in self.young.items():
            if held.ticket is not None:
                self.flights.keep(key)
        # Of what leaves with the old ones nothing is known any more, whatever is being read of it.
        self._none = [object() for _ in range(_STRIPES)]
        self._old = self.young.copy()
        self.young.clear()
