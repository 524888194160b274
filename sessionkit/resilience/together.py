"""Several writes, all or none."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, cast

from sessionkit.errors import (
    Applied,
    BatchRefused,
    ConfigurationError,
    SessionKitError,
    StoreError,
    VersionConflict,
)
from sessionkit.store import ABSENT, Put, check_writes, new_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessionkit.resilience.arrivals import Arrivals
    from sessionkit.resilience.copies import LastKnown
    from sessionkit.resilience.flights import Ticket
    from sessionkit.resilience.gate import Gate
    from sessionkit.resilience.rescue import Rescue
    from sessionkit.store import AtomicStore, Delete, Receipt, SessionStore, Version


class Together:
    """Writes several records all or none: to the primary, or where that is not asked into the journal.

    Args:
        primary: The primary.
        gate: Knows whether it may be asked.
        rescue: Does what the primary cannot.
        arrivals: Told of what the primary has.
        copies: What the primary last held, and what is under way; told of both.
    """

    def __init__(
        self,
        primary: SessionStore,
        gate: Gate,
        rescue: Rescue,
        arrivals: Arrivals,
        copies: LastKnown,
    ) -> None:
        self._primary = primary
        self._gate = gate
        self._rescue = rescue
        self._flights = copies.flights
        self._arrivals = arrivals
        self._copies = copies

    async def write(self, writes: Iterable[Put | Delete], write_id: Version | None) -> Receipt:
        """See ``AtomicStore.write_all``.

        Raises:
            JournalFull: The primary cannot be asked, and the journal has no room for all.
        """
        capabilities = self._primary.capabilities
        batch = check_writes(writes, write_id, capabilities.max_value_bytes)
        if not capabilities.atomic:
            raise ConfigurationError(
                f"{self._primary!r} cannot write these records all or none: write them one by one, or use"
                " a store whose capabilities.atomic is True"
            )
        version = new_version() if write_id is None else write_id
        if not await self._gate.is_open_for_all([write.key for write in batch]):
            return await self._rescue.write_all(batch, version)
        tickets = [
            self._flights.begin(write.key, version if isinstance(write, Put) else ABSENT, write.if_version)
            for write in batch
        ]
        known = False  # whether it is known where it stands
        try:
            receipt, known = await self._send(batch, version)
            if not known:
                await self._arrived(batch, receipt, tickets)
        except SessionKitError as error:
            known = not isinstance(error, StoreError) or error.applied is Applied.NO
            raise
        finally:
            for write, ticket in zip(batch, tickets, strict=True):
                self._flights.end(write.key, ticket, known=known)
        return receipt

    async def _send(self, batch: Sequence[Put | Delete], version: Version) -> tuple[Receipt, bool]:
        """Write to the primary or into the journal, and return whether it is known from here to be done."""
        started = monotonic()
        try:
            return await cast("AtomicStore", self._primary).write_all(batch, write_id=version), False
        except StoreError as error:
            return await self._rescue.write_all_after(error, started, batch, version)

    async def _arrived(
        self, batch: Sequence[Put | Delete], receipt: Receipt, tickets: Sequence[Ticket]
    ) -> None:
        """Take note that the primary has all of it.

        Raises:
            BatchRefused: Later writes of some keys are acknowledged, which these did not know of.
            StoreError: They are done, but what is left of earlier ones cannot be dropped.
        """
        refusals: dict[str, SessionKitError] = {}
        for write, ticket in zip(batch, tickets, strict=True):
            if isinstance(write, Put):
                self._arrivals.stands(write, receipt, ticket)
            else:
                self._copies.forget(write.key)
            makes = receipt.version if isinstance(write, Put) else ABSENT
            try:
                self._arrivals.note(write.key, makes, write.if_version)
            except VersionConflict as conflict:
                refusals[write.key] = conflict
        for write in batch:
            await self._arrivals.outdate(write.key)
        if refusals:
            refused = BatchRefused(refusals)
            refused.applied = Applied.MAYBE
            raise refused
