"""Writes that are under way, and puts of which it is not known where they stand."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from sessionkit.resilience.entries import MOST_SENT
from sessionkit.store import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sessionkit.store import Absent, Version

_MOST_ASTRAY: Final = 1024
"""Of how many keys puts that went astray are remembered; one that is not is met as somebody else's."""


class _Astray(NamedTuple):
    """A put that may be met; ``ended`` tells which writes began after it had."""

    write_id: Version
    if_version: Version | Absent | None
    acknowledged: bool
    ended: int


Ticket: TypeAlias = "tuple[Version | Absent, Version | Absent | None]"
"""What a write is known by while it is under way, by identity: what it makes, and on which condition."""


class Seat(Protocol):
    """Where a ticket may stand: a copy of the record."""

    ticket: Ticket | None


class Flight:
    """A write under way of which there is more to say than its ticket does.

    Args:
        ticket: Its ticket.
        began: How many puts had gone astray when it began.

    Attributes:
        ticket: As given.
        began: As given.
        overlapped: Whether another write was under way together with it.
        deleted: Whether a deletion was.
        replaced: Whether a write that began later was acknowledged meanwhile.
        acknowledged: Whether its caller is told that it is done.
        known: Whether it is known where a put stands, so that it cannot be met unexpectedly.
    """

    __slots__ = ("acknowledged", "began", "deleted", "known", "overlapped", "replaced", "ticket")

    def __init__(self, ticket: Ticket, began: int) -> None:
        self.ticket = ticket
        self.began = began
        self.overlapped = False
        self.deleted = False
        self.replaced = False
        self.acknowledged = False
        self.known = False


class Flights(dict[str, "Ticket | list[Flight]"]):
    """What of this store's own may be met on the primary at any moment, by key.

    Of puts that overlap the last one to begin is taken for the one that stands, as it mostly is. As any of
    them may have been tried again, or have gone another way, that is in doubt, and all are remembered.

    A write that no other overlaps, and of whose key nothing is in doubt, is a ticket and no more: in this
    dictionary, or beside the copy of its record, where a healthy store's puts set and clear it themselves.
    It is in one of the two places, and beside a copy only while this dictionary has nothing of the key.

    Args:
        seats: Where tickets may stand, by key.
    """

    def __init__(self, seats: Mapping[str, Seat]) -> None:
        super().__init__()
        self._seats = seats
        self._astray: OrderedDict[str, list[_Astray]] = OrderedDict()
        self._ends = 0

    def begin(self, key: str, makes: Version | Absent, if_version: Version | Absent | None = None) -> Ticket:
        """Take note of a write; ``end`` must follow."""
        ticket = (makes, if_version)
        self.keep(key)
        if self.setdefault(key, ticket) is not ticket:
            flight = Flight(ticket, self._ends)
            others = self._flights(key)
            for other in others:
                flight.overlapped = other.overlapped = True
                flight.deleted = flight.deleted or other.ticket[0] is ABSENT
                other.deleted = other.deleted or makes is ABSENT
            others.append(flight)
        return ticket

    def land(self, key: str, ticket: Ticket) -> bool:
        """End a write of which there is no more to say than its ticket does; return whether that is so."""
        if self[key] is not ticket:
            return False
        del self[key]
        return True

    def keep(self, key: str) -> None:
        """Move the ticket beside a key's copy, if there is one, into this dictionary."""
        seat = self._seats.get(key)
        if seat is not None and seat.ticket is not None:
            self[key], seat.ticket = seat.ticket, None

    def flight(self, key: str, ticket: Ticket) -> Flight:
        """Return a write, to say more of it."""
        return next(flight for flight in self._flights(key) if flight.ticket is ticket)

    def acknowledge(self, key: str, ticket: Ticket) -> Flight:
        """Take note that the primary has a write, and return it."""
        flight = self.flight(key, ticket)
        for other in takewhile(lambda other: other is not flight, self._flights(key)):
            other.replaced = True  # it began before
        flight.acknowledged = True
        flight.known = not flight.overlapped
        if key in self._astray:
            # What was acknowledged before this one began does not stand there any more.
            puts = self._astray.pop(key)
            left = [put for put in puts if put.ended > flight.began or not put.acknowledged]
            if left:
                self._astray[key] = left
        return flight

    @contextmanager
    def ending(self, key: str, ticket: Ticket) -> Iterator[None]:
        """End a write with the body."""
        try:
            yield
        finally:
            self.end(key, ticket)

    def end(self, key: str, ticket: Ticket, *, known: bool = False) -> None:
        """Take note that a write has ended; a put of which nothing more is known may be met yet.

        Args:
            key: The record's key.
            ticket: The write's ticket.
            known: Whether it is known where it stands, as it was never sent.
        """
        makes, if_version = ticket
        # A deletion is not remembered: that nothing is there may be another's doing as well.
        if makes is ABSENT and self.land(key, ticket):
            return
        flight = self.flight(key, ticket)
        flight.known |= known
        self._flights(key).remove(flight)
        if not flight.known and isinstance(makes, bytes):
            self._ends += 1
            puts = self._astray.pop(key, [])
            puts.append(_Astray(makes, if_version, flight.acknowledged, self._ends))
            self._astray[key] = puts[-MOST_SENT:]
            if len(self._astray) > _MOST_ASTRAY:
                forgotten, _ = self._astray.popitem(last=False)
                self._drop_empty(forgotten)
        self._drop_empty(key)

    def of(self, key: str, condition: Version | Absent | None) -> list[Version | Absent]:
        """Return what may be met there that was ours and is to be replaced by a later write of ours.

        Args:
            key: The record's key.
            condition: On which condition that write is. With one it replaces what was on the same condition
                and is acknowledged to nobody; anything else may have come after others changed the record.
        """
        self.keep(key)
        astray = self._astray.get(key, ())
        under_way = [flight.ticket for flight in self._flights(key)] if key in self else ()
        if condition is None:
            return [*(put.write_id for put in astray), *(makes for makes, _ in under_way)]
        return [
            *(put.write_id for put in astray if put.if_version == condition and not put.acknowledged),
            *(makes for makes, if_version in under_way if if_version == condition),
        ]

    def _flights(self, key: str) -> list[Flight]:
        """Return the writes of a key, of which there is more to say now."""
        self.keep(key)
        under_way = self[key]
        if not isinstance(under_way, list):
            # Where there was but a ticket nothing had gone astray, and what did since has overlapped it.
            under_way = self[key] = [Flight(under_way, self._ends)]
        return under_way

    def _drop_empty(self, key: str) -> None:
        """Drop what says nothing; while something of the key is astray, its next write needs more."""
        if self.get(key) == [] and key not in self._astray:
            del self[key]
