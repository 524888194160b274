"""What this instance knows by itself: its journal, and its copies of what the primary last held."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sessionkit.errors import StoreUnavailable, VersionConflict
from sessionkit.resilience.entries import Entry, Kind
from sessionkit.store import ABSENT, RING_SIZE, Absent, Put, Receipt, Record, Version, Where, new_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkit.resilience.copies import Copy, LastKnown
    from sessionkit.resilience.entries import Base
    from sessionkit.resilience.journal import Journal
    from sessionkit.store import Clock


class LocalView:
    """Answers reads and takes writes without the primary.

    Args:
        journal: Takes the writes.
        copies: What the primary last held.
        clock: Gives the time in seconds since the Unix epoch.
        keep_bases: Whether entries keep the value they were based on, for a merge to come.
    """

    def __init__(self, journal: Journal, copies: LastKnown, clock: Clock, *, keep_bases: bool) -> None:
        self.journal = journal
        self._copies = copies
        self._clock = clock
        self._keep_bases = keep_bases
        self._on_their_way: dict[str, list[Version]] = {}

    @contextmanager
    def on_its_way(self, key: str, write_id: Version) -> Iterator[None]:
        """Take note that a write may reach the primary while the body runs: what waits then replaces it."""
        ids = self._on_their_way.setdefault(key, [])
        ids.append(write_id)
        if (waiting := self.journal.get(key)) is not None:
            self.journal.note(waiting.also_sent([write_id]))
        try:
            yield
        finally:
            ids.remove(write_id)
            if not ids:
                del self._on_their_way[key]

    def get(self, key: str) -> Record | None:
        """Return the record as it is here, marked stale; None where it was deleted or has expired here.

        Raises:
            StoreUnavailable: Nothing is known of it.
        """
        entry = self.journal.get(key)
        if entry is not None and (entry.kind is Kind.DELETE or entry.expired(self._clock())):
            return None
        if entry is not None and entry.kind is Kind.PUT:
            return Record(entry.value, entry.write_id, stale=True)
        # A renewal that waits says how long the copy is good.
        copied = self._copied(key, renewed=entry is not None)
        if copied is None:
            raise _unknown(key)
        return Record(copied.value, copied.version, stale=True)

    async def put(self, put: Put, sent: Iterable[Version] = ()) -> Receipt:
        """Journal a put.

        Args:
            put: The put, checked.
            sent: Its id, if it may have reached the primary.

        Raises:
            VersionConflict: It is known here that the record is at another version.
            JournalFull: There is no room.
            StoreError: The journal's file failed.
        """
        write_id = new_version() if put.write_id is None else put.write_id
        waiting = self.journal.get(put.key)
        if waiting is not None and write_id in waiting.recent:
            # A write again that this entry stands for; whether the journal's file has it is not known here.
            await self.journal.add(waiting)
            return Receipt(write_id, Where.JOURNALED)
        if waiting is not None:
            # Should this one have arrived, what waits replaces it, also where it is refused here.
            self.journal.note(waiting.also_sent(sent))
        self._check(put.key, put.if_version)
        await self._add(
            put.key,
            put.if_version,
            Entry(
                put.key,
                0,
                write_id,
                Kind.PUT,
                put.value,
                deadline=self._deadline(put.expires_in),
                expires_in=put.expires_in,
                sent=tuple(sent),
                recent=(write_id, *(() if waiting is None else waiting.recent[: RING_SIZE - 1])),
            ),
        )
        return Receipt(write_id, Where.JOURNALED)

    async def delete(self, key: str, if_version: Version | None, *, sent: bool = False) -> bool:
        """Journal a deletion, and return whether there is something to delete as far as is known.

        Args:
            key: The record's key.
            if_version: Only at this version.
            sent: Whether it may have reached the primary, so that nothing being there is no surprise.

        Raises:
            VersionConflict: As ``put``.
            JournalFull: As ``put``.
            StoreError: As ``put``.
        """
        known = self.version(key)
        if known is ABSENT and not sent:
            return False
        if known is not ABSENT:
            self._check(key, if_version)
        await self._add(key, if_version, Entry(key, 0, new_version(), Kind.DELETE))
        return known is not ABSENT

    async def touch(self, key: str, expires_in: float | None, if_version: Version | None) -> bool:
        """Journal a renewal, and return whether there is something to renew.

        Raises:
            StoreUnavailable: That is not known.
            VersionConflict: As ``put``.
            JournalFull: As ``put``.
            StoreError: As ``put``.
        """
        if self.get(key) is None:
            return False
        self._check(key, if_version)
        waiting = self.journal.get(key)
        entry = waiting or Entry(key, 0, new_version(), Kind.TOUCH)
        await self._add(
            key, if_version, replace(entry, deadline=self._deadline(expires_in), expires_in=expires_in)
        )
        return True

    def version(self, key: str) -> Base:
        """Return the version the record has here, or None where nothing is known of it."""
        entry = self.journal.get(key)
        if entry is not None and (entry.kind is Kind.DELETE or entry.expired(self._clock())):
            return ABSENT
        if entry is not None and entry.kind is Kind.PUT:
            return entry.write_id
        copied = self._copied(key, renewed=entry is not None)
        return None if copied is None else copied.version

    def _check(self, key: str, if_version: Version | Absent | None) -> None:
        known = self.version(key)
        if if_version is not None and known is not None and if_version != known:
            raise VersionConflict(key, current=known)

    async def _add(self, key: str, if_version: Version | Absent | None, entry: Entry) -> None:
        """Add the entry, based on what the first write of its key was based on."""
        waiting = self.journal.get(key)
        if waiting is None:
            base = self.version(key) if if_version is None else if_version
            copied = self._copied(key) if self._keep_bases else None
            base_value = copied.value if copied is not None and copied.version == base else None
            entry = replace(entry, base=base, base_value=base_value)
        else:
            entry = replace(entry, base=waiting.base, base_value=waiting.base_value).also_sent(waiting.sent)
        entry = entry.also_sent(self._on_their_way.get(key, ()))
        await self.journal.add(replace(entry, seq=self.journal.next_seq()))

    def _copied(self, key: str, *, renewed: bool = False) -> Copy | None:
        copied = self._copies.get(key)
        if copied is None or (not renewed and copied.until is not None and copied.until <= self._clock()):
            return None
        return copied

    def _deadline(self, expires_in: float | None) -> float | None:
        return None if expires_in is None else self._clock() + expires_in


def _unknown(key: str) -> StoreUnavailable:
    return StoreUnavailable(f"{key[:80]!a}: the store cannot be asked, and nothing is known of it here")
