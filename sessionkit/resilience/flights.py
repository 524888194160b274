"""Operations that are under way, and puts of which it is not known where they stand."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.resilience.entries import MOST_SENT
from sessionkit.store import ABSENT, Absent

if TYPE_CHECKING:
    from sessionkit.store import Version

_MOST_ASTRAY: Final = 1024
"""Of how many keys puts that went astray are remembered; one that is not is met as somebody else's."""


class _Astray(NamedTuple):
    """A put that may be met; ``ended`` tells which operations began after it had."""

    write_id: Version
    acknowledged: bool
    ended: int


class Flight:
    """One operation on a key while it is under way.

    Attributes:
        makes: What a write leaves on the primary; None for an operation that makes no other version.
        conditional: Whether it is on the condition of a version.
        alone: Whether no write of the key overlaps it: the order of two answers need not be that of their
            writes.
        deleted: Whether a deletion overlaps it.
        replaced: Whether a put that began later was acknowledged meanwhile.
        acknowledged: Whether its caller is told that it is done.
        known: Whether it is known where a put stands, so that it cannot be met unexpectedly.
        began: Tells which puts had ended before.
    """

    __slots__ = ("acknowledged", "alone", "began", "conditional", "deleted", "known", "makes", "replaced")

    def __init__(self, makes: Version | Absent | None, conditional: bool, began: int) -> None:
        self.makes = makes
        self.began = began
        self.conditional = conditional
        self.alone = True
        self.deleted = False
        self.replaced = False
        self.acknowledged = False
        self.known = False

    def meets(self, write: Flight) -> None:
        """Take note of a write that overlaps it."""
        self.alone = False
        if write.makes is ABSENT:
            self.deleted = True


class Flights:
    """What of this store's own may be met on the primary at any moment."""

    def __init__(self) -> None:
        self._under_way: dict[str, list[Flight]] = {}
        self._astray: OrderedDict[str, list[_Astray]] = OrderedDict()
        self._ends = 0

    def begin(self, key: str, makes: Version | Absent | None = None, conditional: bool = False) -> Flight:
        """Take note of an operation; ``end`` must follow."""
        flight = Flight(makes, conditional, self._ends)
        others = self._under_way.get(key)
        if others is None:
            self._under_way[key] = [flight]
            return flight
        for other in others:
            if makes is not None:
                other.meets(flight)
            if other.makes is not None:
                flight.meets(other)
        others.append(flight)
        return flight

    def acknowledge(self, key: str, flight: Flight) -> None:
        """Take note that the primary has a write; where it stands is known if no other one overlaps it."""
        flight.acknowledged = True
        flight.known = flight.alone
        if key in self._astray:
            # What was acknowledged before this one began does not stand there any more.
            puts = self._astray.pop(key)
            left = [put for put in puts if put.ended > flight.began or not put.acknowledged]
            if left:
                self._astray[key] = left
        if not flight.alone:
            for other in self._under_way[key]:
                if other is flight:
                    break
                other.replaced = True

    def end(self, key: str, flight: Flight) -> None:
        """Take note that an operation has ended; a put of which nothing more is known may be met yet."""
        flights = self._under_way[key]
        if len(flights) == 1:
            del self._under_way[key]
        else:
            flights.remove(flight)
        makes = flight.makes
        # A deletion is not remembered: that nothing is there may be another's doing as well.
        if not flight.known and makes is not None and not isinstance(makes, Absent):
            self._ends += 1
            earlier = self._astray.pop(key, [])
            self._astray[key] = [*earlier, _Astray(makes, flight.acknowledged, self._ends)][-MOST_SENT:]
            if len(self._astray) > _MOST_ASTRAY:
                self._astray.popitem(last=False)

    def of(self, key: str, *, conditional: bool) -> list[Version | Absent]:
        """Return what may be met there that was ours and is to be replaced by a later write of ours.

        Args:
            key: The record's key.
            conditional: Whether that write is on a condition. Then it must not replace what was acknowledged
                to somebody else, or may be yet.
        """
        astray = self._astray.get(key, ())
        under_way = self._under_way.get(key, ())
        return [
            *(put.write_id for put in astray if not (conditional and put.acknowledged)),
            *(
                flight.makes
                for flight in under_way
                if flight.makes is not None and (flight.conditional or not conditional)
            ),
        ]
