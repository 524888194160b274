"""What is known of one record, and what waits to be written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from sessionkit.store import ABSENT, new_version

if TYPE_CHECKING:
    import asyncio

    from sessionkit.errors import SessionKitError
    from sessionkit.store import Absent, Version

Base: TypeAlias = "Version | Absent | None"
"""The version a record was last seen at, ``ABSENT``, or None where it was never read."""


class Slot(Protocol):
    """Where in PTB's memory a record's value lives."""

    @property
    def key(self) -> str:
        """The record's key."""
        ...

    def read(self) -> object | None:
        """Must return the value itself, not a copy, or None where there is none."""
        ...

    def write(self, value: object | None) -> None:
        """Must put the value there; None: remove it. A dict that is there keeps its identity."""
        ...


class Write:
    """A value on its way, or None for a deletion; compared by identity, as a newer one may be equal.

    Attributes:
        value: Its bytes.
        mark: What it is compared by.
        write_id: The version it makes.
        error: Why the last attempt failed.
        in_doubt: Whether an attempt may have been applied. Then it is tried again as it is, under its id,
            before anything newer: or what it did could not be told from what others did.
    """

    __slots__ = ("error", "in_doubt", "mark", "value", "write_id")

    def __init__(self, value: bytes | None, mark: bytes | None, error: SessionKitError | None = None) -> None:
        self.value = value
        self.mark = mark
        self.write_id = new_version()
        self.error = error
        self.in_doubt = False


class Cell:
    """One record as this process knows it.

    Attributes:
        version: What it was last seen at.
        stored: Its bytes then; None for an absent one.
        mark: What they are compared by.
        waiting: What is to be written: the newest value, behind one that travels or is in doubt.
        flight: Done when what travels has arrived; None while nothing does.
        turns: Counts what became known, so that an older reply is not taken for news.
        pins: How many units of work use it now.
        slot: Where its value lives; None where nobody but PTB knows.
        apart: What PTB holds, and its mark, where others' changes were merged and PTB could not be told.
    """

    __slots__ = ("apart", "flight", "mark", "pins", "slot", "stored", "turns", "version", "waiting")

    def __init__(self) -> None:
        self.version: Base = None
        self.stored: bytes | None = None
        self.mark: bytes | None = None
        self.waiting: list[Write] = []
        self.flight: asyncio.Future[None] | None = None
        self.turns = 0
        self.pins = 0
        self.slot: Slot | None = None
        self.apart: tuple[bytes | None, bytes | None] | None = None

    @property
    def newest(self) -> Write | None:
        """What is to stand in the end, or None where nothing waits."""
        return self.waiting[-1] if self.waiting else None

    @property
    def has_value(self) -> bool:
        """Whether there is a record, or one waits to be written."""
        newest = self.newest
        return self.stored is not None if newest is None else newest.value is not None

    def saw(self, version: Version | Absent, data: bytes | None, mark: bytes | None) -> None:
        """Take note of what is stored."""
        self.version = version
        self.stored = data
        self.mark = mark
        self.turns += 1

    def is_held(self, mark: bytes | None) -> bool:
        """Whether a value is the newest one already, stored or waiting; None stands for no value."""
        newest = self.newest
        return newest.mark == mark if newest is not None else self.version is not None and mark == self.mark

    def hold(self, value: bytes | None, mark: bytes | None) -> None:
        """Have a value written that is not held yet, or None for a deletion."""
        newest = self.newest
        kept = self.waiting[:1] if newest and (self.flight is not None or self.waiting[0].in_doubt) else []
        # What failed is not mended by a newer value that has not travelled yet.
        self.waiting = [*kept, Write(value, mark, None if newest is None else newest.error)]

    def arrived(self, write: Write) -> None:
        """Take note that a write was acknowledged."""
        self.saw(ABSENT if write.value is None else write.write_id, write.value, write.mark)
        if self.apart is not None:
            # For PTB it is as if the record had not been read: what it hands over next is based on this.
            self.version = None
            self.stored, self.mark = self.apart
        self.waiting.remove(write)
        for newer in self.waiting:
            newer.error = None
        if self.waiting and self.waiting[-1].mark == self.mark:
            self.waiting.clear()

    def failed(self, write: Write, error: SessionKitError, *, in_doubt: bool) -> None:
        """Take note that an attempt failed; newer values are not stored either."""
        write.in_doubt = write.in_doubt or in_doubt
        for each in self.waiting:
            each.error = error
        if not write.in_doubt:
            self.waiting = self.waiting[-1:]
