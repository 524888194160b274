"""What is known of a write once the primary has acknowledged it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkit.errors import Applied, StoreError
from sessionkit.resilience.states import State

if TYPE_CHECKING:
    from sessionkit.resilience.copies import LastKnown
    from sessionkit.resilience.flights import Ticket
    from sessionkit.resilience.local import LocalView
    from sessionkit.resilience.recovery import Recovery
    from sessionkit.store import Absent, Clock, Put, Receipt, Version


class Arrivals:
    """Takes note of writes that the primary has.

    Args:
        local: Knows what was journaled meanwhile, and what is under way.
        copies: Told of what stands there.
        recovery: Told of success.
        clock: Gives the time in seconds since the Unix epoch.
    """

    def __init__(self, local: LocalView, copies: LastKnown, recovery: Recovery, clock: Clock) -> None:
        self._local = local
        self._journal = local.journal
        self._flights = local.flights
        self._copies = copies
        self._recovery = recovery
        self._clock = clock

    def stands(self, put: Put, receipt: Receipt, ticket: Ticket) -> None:
        """Take a copy of a put, unless another write of its key comes after it."""
        flight = self._flights.acknowledge(put.key, ticket)
        if flight.deleted:
            self._copies.forget(put.key)
        elif not flight.replaced:
            ends = None if put.expires_in is None else self._clock() + put.expires_in
            self._copies.take(put.key, put.value, receipt.version, ends)

    async def arrived(
        self, key: str, makes: Version | Absent, if_version: Version | Absent | None = None
    ) -> None:
        """Take note of a write before it is acknowledged.

        Args:
            key: The record's key.
            makes: What stands there now.
            if_version: What the write was on the condition of.

        Raises:
            VersionConflict: A later write of the key is acknowledged, which it did not know of.
            StoreError: The write is done, but what is left of an earlier one cannot be dropped.
        """
        self.note(key, makes, if_version)
        await self.outdate(key)

    def note(self, key: str, makes: Version | Absent, if_version: Version | Absent | None) -> None:
        """Do the part of ``arrived`` that waits for nothing.

        Raises:
            VersionConflict: As ``arrived``.
        """
        self._recovery.failures = 0
        if self._recovery.state is not State.HEALTHY:
            # It was on its way when another write of this key was journaled.
            self._local.arrived(key, makes, if_version)

    async def outdate(self, key: str) -> None:
        """Drop what is left of earlier writes of a key before a later one is acknowledged.

        Raises:
            StoreError: As ``arrived``.
        """
        if key not in self._journal.leftovers:
            return
        try:
            await self._journal.outdate(key)
        except StoreError as error:
            error.applied = Applied.YES
            raise
